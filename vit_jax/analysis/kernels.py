"""What a traced program asks of a device: products with their operands, and passes over memory.

A model of what a compiler makes of it, in two rules. Products and convolutions are kernels of
their own, which read their operands and write their result. Everything between them is fused as
far as it goes: an array is written only if a product, a loop or the caller reads it, a reduction
writes its result, and whoever needs an array that is not written computes it again from what is.
What fusions read in common they read once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.extend import core as jax_core

from vit_jax.analysis import cost, layout
from vit_jax.analysis.layout import Split
from vit_jax.analysis.memory import Sizes

PRODUCTS = ("dot_general", "conv_general_dilated")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_and", "reduce_or", "argmax")
BREAKS = (*PRODUCTS, *REDUCTIONS, "sort", "cumsum", "gather", "scatter", "scatter-add", "top_k")


class Kernel(NamedTuple):
    """A kernel's work on one device, for all its executions together.

    `itemsize` is the bytes of one number that a product multiplies; 0 for a pass over memory.
    `summed_bytes` are those of products over a split dimension, which the devices have to add up.
    """

    flops: float
    bytes: float
    itemsize: int
    count: int
    summed_bytes: float = 0


def find(function: Any, *inputs: Any, splits: Sequence[Split] = ()) -> list[Kernel]:
    """The kernels of a call; with `splits`, of the leaves of `inputs`, those of one device."""
    return of(jax.make_jaxpr(function)(*inputs).jaxpr, splits)


def of(jaxpr: jax_core.Jaxpr, splits: Sequence[Split] = ()) -> list[Kernel]:
    """The kernels of a traced program."""
    return _Program(jaxpr, splits, 1, {}, {}).kernels


class _Program:
    """Walks a program once.

    Attributes:
      kernels: what was found.
      sources: variable that is not written -> those that are read to compute it again.
    """

    def __init__(self, jaxpr, splits, count, sources, bytes_of, written=None):
        self.size, self.count, self.kernels = Sizes(jaxpr, splits), count, []
        self.sources: dict[Any, frozenset] = dict(sources)
        self.bytes_of: dict[Any, int] = bytes_of  # of all programs' variables
        self.reads: set[frozenset] = set()
        self.written = _written(jaxpr, jaxpr.outvars if written is None else written)
        for equation in jaxpr.eqns:
            if equation.primitive.name in PRODUCTS:
                self._product(equation)
            elif cost.inner_programs(equation):
                self._inner(equation)
            else:
                self._pass(equation)

    def _product(self, equation):
        arrays = {*_variables(equation.invars), *equation.outvars}
        flops = cost.count_equation(equation) / _ways(equation, self.size)
        itemsize = np.dtype(equation.invars[0].aval.dtype).itemsize
        summed = self.size.of(equation.outvars[0]) if self._is_partial(equation) else 0
        self._add(flops, sum(map(self.size.of, arrays)), itemsize, summed)

    def _is_partial(self, equation):
        if equation.primitive.name != "dot_general":
            return False
        contracted, _ = equation.params["dimension_numbers"]
        given = [layout.read(equation.invars, found) for found in self.size.found]
        return any(
            any(d is not None and d in axes for d, axes in zip(dimensions, contracted, strict=True))
            for dimensions in given
            if layout.EXAMPLES not in dimensions  # there the axis gathers what it splits
        )

    def _inner(self, equation):
        is_scan = equation.primitive.name == "scan"
        runs = self.count * (equation.params["length"] if is_scan else 1)
        for program, splits in zip(
            cost.inner_programs(equation), self.size.inner(equation), strict=True
        ):
            outer, inner, written = equation.invars, program.invars, None
            known = {
                i: self.sources[o]
                for o, i in zip(outer, inner, strict=False)
                if not isinstance(o, jax_core.Literal) and o in self.sources
            }
            if is_unrolled := is_scan and equation.params["unroll"] >= equation.params["length"]:
                written = program.outvars[: equation.params["num_carry"]]
            found = _Program(program, splits, runs, known, self.bytes_of, written)
            self.kernels += found.kernels
            if is_unrolled:
                pairs = zip(equation.outvars, program.outvars, strict=True)
                self.sources.update((o, found.sources[i]) for o, i in pairs if i in found.sources)

    def _pass(self, equation):
        is_break = equation.primitive.name in BREAKS
        given = _variables(equation.invars)
        needed = frozenset().union(*(self.sources.get(v, frozenset([v])) for v in given))
        self.bytes_of.update((v, self.size.of(v)) for v in given)
        results = [v for v in equation.outvars if v in self.written]
        if not is_break:
            self.sources.update((v, needed) for v in equation.outvars if v not in self.written)
        if results:
            moved = sum(map(self.size.of, results))
            if needed not in self.reads:
                self.reads.add(needed)
                moved += sum(self.bytes_of[v] for v in needed)
            self._add(0, moved, 0)

    def _add(self, flops, moved, itemsize, summed=0):
        n = self.count
        self.kernels.append(Kernel(flops * n, moved * n, itemsize, n, summed * n))


def _variables(values: Sequence[Any]) -> list[Any]:
    return [v for v in values if not isinstance(v, jax_core.Literal)]


def _written(jaxpr: jax_core.Jaxpr, results: Sequence[Any]) -> set[Any]:
    """Variables that go to memory."""
    found = set(_variables(results))
    for equation in jaxpr.eqns:
        name, is_call = equation.primitive.name, bool(cost.inner_programs(equation))
        if name in BREAKS or is_call:
            found.update(equation.outvars)
        if name in PRODUCTS or is_call:
            found.update(_variables(equation.invars))
    return found


def _ways(equation: Any, size: Sizes) -> int:
    """How many devices share a product: along axes that split any of its arrays."""
    shared = 1
    for ways, found in zip(size.ways, size.found, strict=True):
        dimensions = layout.read([*equation.invars, *equation.outvars], found)
        if layout.EXAMPLES not in dimensions and any(d is not None for d in dimensions):
            shared *= ways
    return shared
