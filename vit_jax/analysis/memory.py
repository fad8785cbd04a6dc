"""Bytes that a training step needs, read off its traced program before anything is compiled.

A compiler fuses and reorders, so what is said of activations is an estimate; what is said of
trees of arrays (parameters, moments) is exact.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend import core as jax_core

from vit_jax.analysis import cost, layout
from vit_jax.analysis.layout import Split


def tree_bytes(tree: Any) -> int:
    """Bytes of all arrays or shapes of a tree."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def device_bytes(tree: Any) -> int:
    """Bytes of a tree's part on one device; each leaf says by its sharding what that is."""
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def saved_bytes(
    loss: Callable[..., Any], params: Any, *inputs: Any, splits: Sequence[Split] = ()
) -> int:
    """Bytes that the forward pass keeps for the backward pass of `loss(params, *inputs)`.

    What is saved anyway, parameters and inputs, does not count; nor does what rematerialisation
    computes again. With `splits`, of the leaves of (params, *inputs), bytes are of one device.
    """

    def forward(params, *inputs):
        _, backward = jax.vjp(lambda p: loss(p, *inputs), params)
        return jax.tree.leaves(backward)  # the arrays that it holds

    jaxpr = jax.make_jaxpr(forward)(params, *inputs).jaxpr
    own = {v for equation in jaxpr.eqns for v in equation.outvars}
    size = Sizes(jaxpr, splits)
    return sum(map(size.of, own & _variables(jaxpr.outvars)))


def peak_bytes(function: Callable[..., Any], *inputs: Any, splits: Sequence[Split] = ()) -> int:
    """Most bytes of results, passing and final, alive at once in a call; inputs do not count.

    With `splits`, of the leaves of `inputs`, bytes are of one device.
    """
    return peak_of(jax.make_jaxpr(function)(*inputs).jaxpr, splits)


def results_of(jaxpr: jax_core.Jaxpr, splits: Sequence[Split] = ()) -> int:
    """Bytes of a program's results on one device."""
    own = {v for equation in jaxpr.eqns for v in equation.outvars}
    return sum(map(Sizes(jaxpr, splits).of, _variables(jaxpr.outvars) & own))


class Sizes:
    """Bytes of a program's variables on one device."""

    def __init__(self, jaxpr: jax_core.Jaxpr, splits: Sequence[Split]):
        self.ways = [split.ways for split in splits]
        self.found = [layout.follow(jaxpr, split) for split in splits]

    def of(self, variable: Any) -> int:
        size = math.prod(variable.aval.shape) * variable.aval.dtype.itemsize
        for ways, found in zip(self.ways, self.found, strict=True):
            if found.get(variable) not in (None, layout.EXAMPLES):
                size //= ways
        return size

    def inner(self, equation: Any) -> list[list[Split]]:
        """The splits of each program that an equation runs."""
        each = [
            layout.inner_inputs(equation, layout.read(equation.invars, found))
            for found in self.found
        ]
        programs = range(len(cost.inner_programs(equation)))
        pairs = list(zip(self.ways, each, strict=True))
        return [[Split(ways, inputs[i]) for ways, inputs in pairs] for i in programs]


def peak_of(jaxpr: jax_core.Jaxpr, splits: Sequence[Split] = ()) -> int:
    """`peak_bytes` of a traced program.

    A variable lives from the equation that makes it to the last one that reads it.
    """
    size = Sizes(jaxpr, splits)
    own = {v for equation in jaxpr.eqns for v in equation.outvars}
    readers = [equation.invars for equation in jaxpr.eqns] + [jaxpr.outvars]
    last = {v: i for i, variables in enumerate(readers) for v in _variables(variables) & own}
    dying: dict[int, int] = {}  # equation -> bytes that nobody reads after it
    for variable, i in last.items():
        dying[i] = dying.get(i, 0) + size.of(variable)
    alive = highest = 0
    for i, equation in enumerate(jaxpr.eqns):
        alive += sum(size.of(v) for v in equation.outvars if v in last)
        highest = max(highest, alive + _inner_bytes(equation, size))
        alive -= dying.get(i, 0)
    return highest


def _inner_bytes(equation: Any, size: Sizes) -> int:
    """What an equation's programs need beside its results."""
    most = 0
    for program, splits in zip(cost.inner_programs(equation), size.inner(equation), strict=True):
        # A scan's results are stacks of what one pass makes; elsewhere they are the very same.
        is_result = equation.primitive.name != "scan"
        inner = Sizes(program, splits)
        results = sum(map(inner.of, _variables(program.outvars))) if is_result else 0
        most = max(most, peak_of(program, splits) - results)
    return most


def _variables(values: Any) -> set[Any]:
    return {v for v in values if not isinstance(v, jax_core.Literal)}
