"""How a mesh axis splits the arrays of a traced program, followed from its inputs to its results.

An axis splits at most one dimension of an array. What is said here is what a compiler that moves
as little as possible would do: a product over a split dimension is summed and whole, elementwise
operations keep the split of their operands, and where no rule knows better an array is whole.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from jax.extend import core as jax_core

from vit_jax.analysis import cost

# In place of a dimension: the array belongs to examples, which the axis shares out already.
EXAMPLES = -1


class Split(NamedTuple):
    """An axis of this many devices, and the dimension of each input of a program that it splits.

    None stands for no dimension, `EXAMPLES` for inputs of which each device has its own rows.
    """

    ways: int
    dimensions: tuple[int | None, ...]


def follow(jaxpr: jax_core.Jaxpr, split: Split) -> dict[Any, int | None]:
    """The dimension of every variable of the program that the axis splits."""
    found: dict[Any, int | None] = dict(zip(jaxpr.invars, split.dimensions, strict=True))
    for equation in jaxpr.eqns:
        given = read(equation.invars, found)
        found.update(zip(equation.outvars, _results(equation, given), strict=True))
    return found


def read(variables: Sequence[Any], found: dict[Any, int | None]) -> list[int | None]:
    is_literal = [isinstance(v, jax_core.Literal) for v in variables]
    return [None if c else found.get(v) for v, c in zip(variables, is_literal, strict=True)]


def inner_inputs(equation: Any, given: list[int | None]) -> list[tuple[int | None, ...]]:
    """For each program that the equation runs, the dimensions of that program's inputs."""
    programs = cost.inner_programs(equation)
    if equation.primitive.name == "scan":
        return [_scan_inputs(equation, programs[0], given)]
    fits = [len(program.invars) == len(given) for program in programs]
    nothing = [(None,) * len(program.invars) for program in programs]
    return [tuple(given) if fit else none for fit, none in zip(fits, nothing, strict=True)]


def _results(equation: Any, given: list[int | None]) -> list[int | None]:
    none = [None] * len(equation.outvars)
    if all(dimension is None for dimension in given):
        return none
    programs = cost.inner_programs(equation)
    if programs and len(programs[0].outvars) == len(none):
        inputs = inner_inputs(equation, given)[0]
        results = read(programs[0].outvars, follow(programs[0], Split(1, inputs)))
        return _scan_results(equation, results) if equation.primitive.name == "scan" else results
    if EXAMPLES in given:
        return [EXAMPLES] * len(none)
    rule = RULES.get(equation.primitive.name, _alike)
    return [rule(equation, given, output.aval.shape) for output in equation.outvars]


def _scan_inputs(equation, program, given):
    """Of one pass: constants, what is carried, and a slice of each stack."""
    consts, carried = equation.params["num_consts"], equation.params["num_carry"]
    stacks = [_less(d, 1) for d in given[consts + carried :]]
    fixed, state = given[:consts], given[consts : consts + carried]
    for _ in range(2):  # what is carried is known after a pass
        inputs = (*fixed, *state, *stacks)
        results = read(program.outvars, follow(program, Split(1, inputs)))[:carried]
        state = [EXAMPLES if EXAMPLES in (a, b) else b for a, b in zip(state, results, strict=True)]
    return (*fixed, *state, *stacks)


def _scan_results(equation, results):
    carried = equation.params["num_carry"]
    stacks = [d if d in (None, EXAMPLES) else d + 1 for d in results[carried:]]
    return results[:carried] + stacks


def _less(dimension: int | None, removed: int) -> int | None:
    """A dimension's place once this many in front of it are gone; None if it was among them."""
    if dimension in (None, EXAMPLES):
        return dimension
    return None if dimension < removed else dimension - removed


def _alike(equation, given, shape):
    """The same place, where an operand's dimension there is the result's."""
    for operand, d in zip(equation.invars, given, strict=True):
        if d is not None and len(operand.aval.shape) == len(shape):
            return d if operand.aval.shape[d] == shape[d] else None
    return None


def _transpose(equation, given, shape):
    return equation.params["permutation"].index(given[0])


def _broadcast(equation, given, shape):
    return equation.params["broadcast_dimensions"][given[0]]


def _stack(equation, given, shape):
    found = next(d for d in given if d is not None)
    return found + (found >= equation.params["axis"])


def _squeeze(equation, given, shape):
    return given[0] - sum(d < given[0] for d in equation.params["dimensions"])


def _reduce(equation, given, shape):
    axes = equation.params["axes"]
    return None if given[0] in axes else given[0] - sum(d < given[0] for d in axes)


def _reshape(equation, given, shape):
    """A dimension keeps its split if it goes on as, begins, or is divided behind, another."""
    before = math.prod(equation.invars[0].aval.shape[: given[0]])
    for i, size in enumerate(shape):
        if size > 1 and math.prod(shape[:i]) == before:
            return i
    return None


def _product(equation, given, shape):
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (len(operand.aval.shape) for operand in equation.invars)
    left_free = [d for d in range(left) if d not in (*left_sum, *left_batch)]
    right_free = [d for d in range(right) if d not in (*right_sum, *right_batch)]
    orders = ([*left_batch, *left_free], [*right_batch, *[None] * len(left_free), *right_free])
    if given[0] in left_sum or given[1] in right_sum:
        return None
    places = (o.index(d) for o, d in zip(orders, given, strict=True) if d is not None)
    return next(places, None)


RULES = {
    "transpose": _transpose,
    "broadcast_in_dim": _broadcast,
    "squeeze": _squeeze,
    "stack": _stack,
    "reshape": _reshape,
    "dot_general": _product,
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min", "argmax", "argmin"), _reduce),
}
