"""Parameters of a model, and its floating-point operations, counted on its traced program.

Only matrix products and convolutions count, a multiply-add as two operations, as in the
published figures; a scan counts each of its passes. The count is of the model, not of what a
compiler makes of it, so recomputation for memory's sake does not raise it.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax.extend import core as jax_core

from vit_jax.analysis import devices
from vit_jax.layers.attention_choice import by_definition

# A backward pass multiplies twice for each product of the forward pass that it goes through.
TRAINING_FACTOR = 3
# Modules of this name hold the parameters of several layers, stacked along the first axis.
STACKED = "blocks"


class Parameters(NamedTuple):
    """One row of a parameter table."""

    name: str  # path, with '(×12)' behind what stands for twelve layers
    shape: tuple[int, ...] | None  # of one layer; None where the row holds several arrays
    layers: int  # 1 for what is not stacked
    count: int  # numbers in all layers
    share: float  # of the model's count, 0 to 1


class Flops(NamedTuple):
    """Of a loss."""

    forward: int
    training: int  # with the backward pass to its parameters


class Reached(NamedTuple):
    """What of a program depends on chosen inputs."""

    flops: int
    outputs: list[bool]


def peak_flops(device: jax.Device) -> float | None:
    """Peak bfloat16 FLOP/s of a device; None where it is not known (CPUs)."""
    name = devices.name_of(device.device_kind)
    return None if name is None else devices.DEVICES[name].peak_flops


def count_parameters(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def parameter_table(params: Any, depth: int) -> list[Parameters]:
    """Rows of `params`, arrays or shapes, put together by the first `depth` names of their path."""
    rows: dict[str, list[tuple[int, tuple[int, ...]]]] = {}  # name -> (layers, shape of one)
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names, layers, shape = [str(key.key) for key in key_path], 1, tuple(leaf.shape)
        if STACKED in names[:depth]:
            layers, *shape = shape
            names[names.index(STACKED)] += f" (×{layers})"
        rows.setdefault("/".join(names[:depth]), []).append((layers, tuple(shape)))
    total, table = count_parameters(params), []
    for name, arrays in rows.items():
        count = sum(layers * math.prod(shape) for layers, shape in arrays)
        shape = arrays[0][1] if len(arrays) == 1 else None
        table.append(Parameters(name, shape, arrays[0][0], count, count / total))
    return table


def count_trained(update: Callable[[Any, Any], Any], params: Any) -> int:
    """Parameters whose update depends on a gradient: a frozen one is sent zeros.

    Args:
      update: (gradients, params) -> updates, e.g. an optimizer's for some state of it.
      params: arrays or shapes.
    """
    leaves = jax.tree.leaves(params)
    jaxpr = jax.make_jaxpr(update)(params, params).jaxpr
    is_gradient = [i < len(leaves) for i in range(len(jaxpr.invars))]
    is_trained = _reach(jaxpr, is_gradient).outputs
    return sum(math.prod(x.shape) for x, used in zip(leaves, is_trained, strict=True) if used)


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of one call of `function`; the arguments may be shapes."""
    with by_definition():
        return count_program(jax.make_jaxpr(function)(*arguments).jaxpr)


def count_training(loss: Callable[..., Any], params: Any, *others: Any) -> Flops:
    """FLOPs of `loss(params, *others)`, and of it with its gradient by `params`.

    A product that depends on a parameter counts `TRAINING_FACTOR` times, so also the first layer's
    and frozen ones', as is usual; others, e.g. a teacher's, once.
    """
    with by_definition():
        jaxpr = jax.make_jaxpr(loss)(params, *others).jaxpr
    size = len(jax.tree.leaves(params))
    reached = _reach(jaxpr, [i < size for i in range(len(jaxpr.invars))])
    forward = count_program(jaxpr)
    return Flops(forward, forward + (TRAINING_FACTOR - 1) * reached.flops)


def count_program(jaxpr: jax_core.Jaxpr) -> int:
    """`count_flops` of a traced program."""
    return sum(count_equation(equation) for equation in jaxpr.eqns)


def count_equation(equation: Any) -> int:
    """FLOPs of one equation of a traced program, the programs that it runs included."""
    name = equation.primitive.name
    if name == "dot_general":
        (contracted, _), _ = equation.params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        depth = math.prod(left[axis] for axis in contracted)
        return 2 * depth * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = equation.params["dimension_numbers"].rhs_spec[0]
        per_output = math.prod(kernel) // kernel[outputs]
        return 2 * per_output * math.prod(equation.outvars[0].aval.shape)
    inner = sum(count_program(jaxpr) for jaxpr in inner_programs(equation))
    return inner * equation.params["length"] if name == "scan" else inner


def inner_programs(equation: Any) -> list[jax_core.Jaxpr]:
    """The programs that an equation of a program runs: of jit, scan, cond, remat and the like."""
    found = []
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            item = getattr(item, "jaxpr", item)
            if isinstance(item, jax_core.Jaxpr):
                found.append(item)
    return found


def _reach(jaxpr: jax_core.Jaxpr, inputs: list[bool]) -> Reached:
    """What depends on one of the inputs that are True: FLOPs, and which outputs."""
    reached = {v for v, is_source in zip(jaxpr.invars, inputs, strict=True) if is_source}
    flops = 0

    def reaches(variables):
        return [not isinstance(v, jax_core.Literal) and v in reached for v in variables]

    for equation in jaxpr.eqns:
        found = _reach_of(equation, reaches(equation.invars))
        flops += found.flops
        reached.update(v for v, flag in zip(equation.outvars, found.outputs, strict=True) if flag)
    return Reached(flops, reaches(jaxpr.outvars))


def _reach_of(equation: Any, flags: list[bool]) -> Reached:
    if not any(flags):
        return Reached(0, [False] * len(equation.outvars))
    if equation.primitive.name == "scan":
        return _reach_of_scan(equation, flags)
    inner = inner_programs(equation)
    # Of jit, remat and custom derivatives, which pass their inputs one by one and only once.
    if len(inner) == 1 and len(inner[0].invars) == len(flags):
        return _reach(inner[0], flags)
    return Reached(count_equation(equation), [True] * len(equation.outvars))


def _reach_of_scan(equation: Any, flags: list[bool]) -> Reached:
    (body,) = inner_programs(equation)
    first = equation.params["num_consts"]
    last = first + equation.params["num_carry"]
    while True:  # until what is carried on reaches nothing more
        found = _reach(body, flags)
        after = found.outputs[: last - first]
        carried = [a or b for a, b in zip(flags[first:last], after, strict=True)]
        if carried == flags[first:last]:
            break
        flags = [*flags[:first], *carried, *flags[last:]]
    outputs = [*carried, *found.outputs[last - first :]]
    return Reached(found.flops * equation.params["length"], outputs)
