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

# A backward pass multiplies twice for each product of the forward pass.
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
    is_trained = _depends(jaxpr, is_gradient)
    return sum(math.prod(x.shape) for x, used in zip(leaves, is_trained, strict=True) if used)


def count_flops(function: Callable[..., Any], *arguments: Any) -> int:
    """FLOPs of one call of `function`; the arguments may be shapes."""
    with by_definition():
        return count_program(jax.make_jaxpr(function)(*arguments).jaxpr)


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


def _depends(jaxpr: jax_core.Jaxpr, inputs: list[bool]) -> list[bool]:
    """For each output: does it depend on one of the inputs that are True?"""
    reached = {v for v, is_source in zip(jaxpr.invars, inputs, strict=True) if is_source}

    def reaches(variables):
        return [not isinstance(v, jax_core.Literal) and v in reached for v in variables]

    for equation in jaxpr.eqns:
        flags, inner = reaches(equation.invars), inner_programs(equation)
        outputs = [any(flags)] * len(equation.outvars)
        # Jit alone is looked into: it passes its inputs one by one and only once.
        if equation.primitive.name in ("jit", "pjit"):
            outputs = _depends(inner[0], flags)
        reached.update(v for v, flag in zip(equation.outvars, outputs, strict=True) if flag)
    return reaches(jaxpr.outvars)
