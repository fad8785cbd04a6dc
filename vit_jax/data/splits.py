"""The slices of sources that a split names.

A split such as 'train[:98%]+test' is a selection of index ranges, so no example is copied and
complementary slices partition their base exactly.

Letters: n = examples in a base split.
"""

import bisect
import math
import re
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from itertools import accumulate
from typing import NamedTuple

from vit_jax.data.examples import Example, Range, Source
from vit_jax.errors import InputError

GRAMMAR = (
    "a split is NAME, NAME[FROM:TO] or a sum of these with '+'; FROM and TO are example counts "
    "or percentages, both optional, negative from the end: 'train', 'train[:98%]', "
    "'train[98%:]', 'train[1000:]', 'train[:-100]', 'train[10%:20%]', 'train+test[:10]'"
)

_BOUND = r"-?\d+|-?\d+(?:\.\d+)?%"
_TERM = re.compile(rf"\s*([^\[\]:+]+?)\s*(?:\[\s*({_BOUND})?\s*:\s*({_BOUND})?\s*\])?\s*")


class Term(NamedTuple):
    """One summand of a split as written; a bound is '' where it was left out."""

    name: str
    start: str
    stop: str

    def __str__(self) -> str:
        return f"{self.name}[{self.start}:{self.stop}]"


class Part(NamedTuple):
    """The examples `range(start, stop)` of a base source."""

    base: Source
    start: int
    stop: int


class Selection(Source):
    """Index ranges of other sources, one after the other."""

    def __init__(self, name: str, parts: list[Part]):
        self.name = name
        first = parts[0].base
        self.class_names, self.fields = first.class_names, first.fields
        if all(part.base.present is not None for part in parts):
            self.present = tuple(sorted(set().union(*(part.base.present for part in parts))))
        self._parts = parts
        self._ends = list(accumulate(part.stop - part.start for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, i: int) -> Example:
        base, j = self._locate(i)
        return base.read(j)

    def ranges(self) -> list[Range]:
        return [found for part in self._parts for found in _within(part)]

    def describe(self, i: int) -> str:
        base, j = self._locate(i)
        return base.describe(j)

    def file_name(self, i: int) -> str:
        base, j = self._locate(i)
        return base.file_name(j)

    def _locate(self, i: int) -> tuple[Source, int]:
        k = bisect.bisect_right(self._ends, i)
        part = self._parts[k]
        return part.base, part.stop - (self._ends[k] - i)


def _within(part: Part) -> Iterator[Range]:
    """A part, of a source that may have parts itself."""
    passed = 0
    for base, start, stop in part.base.ranges():
        low = max(start, start + part.start - passed)
        high = min(stop, start + part.stop - passed)
        if low < high:
            yield Range(base, low, high)
        passed += stop - start


def parse(split: str) -> list[Term]:
    """Returns the summands of a split.

    Raises:
      InputError: where the split does not follow `GRAMMAR`.
    """
    matches = [_TERM.fullmatch(term) for term in str(split).split("+")]
    if not all(matches):
        raise InputError(f"Cannot read split {split!r}: {GRAMMAR}.")
    return [Term(*(group or "" for group in match.groups())) for match in matches]


def surely_overlap(one: str, other: str) -> bool:
    """Do two splits of one source share examples? False, too, where only its length could tell.

    That is where counts meet percentages, or counts from the end others.
    """
    pairs = ((a, b) for a in parse(one) for b in parse(other) if a.name == b.name)
    return any(_share_examples(*pair) for pair in pairs)


def _share_examples(one: Term, other: Term) -> bool:
    bounds = [bound for term in (one, other) for bound in term[1:] if bound]
    is_percent = {bound.endswith("%") for bound in bounds}
    if len(is_percent) > 1 or (is_percent == {False} and any(b.startswith("-") for b in bounds)):
        return False
    (start, stop), (begin, end) = (
        (_place(term.start, Fraction(0)), _place(term.stop, math.inf)) for term in (one, other)
    )
    return max(start, begin) < min(stop, end)


def _place(bound: str, default: Fraction | float) -> Fraction | float:
    """A bound as a percentage or a count, from the start."""
    if not bound:
        return default
    return Fraction(bound.rstrip("%")) + (100 if bound.startswith("-") else 0)


def select(available: Mapping[str, Callable[[], Source]], split: str, *, name: str) -> Source:
    """Opens the base splits that `split` names and returns the examples it selects.

    Args:
      available: base split -> function that opens it.
      split: see `GRAMMAR`.
      name: the source as configured, for messages, e.g. 'idx:/data/mnist'.

    Raises:
      InputError: for a malformed, unknown, empty or out-of-range split.
    """
    terms = parse(split)
    for term in terms:
        if term.name not in available:
            known = ", ".join(available)
            raise InputError(f"{name} has no split {term.name!r}; available: {known}.")
    opened = {base: available[base]() for base in dict.fromkeys(term.name for term in terms)}
    parts = [_part(term, opened[term.name], name) for term in terms]
    if len(parts) == 1 and parts[0].stop - parts[0].start == len(parts[0].base):
        return parts[0].base  # the common case: no indirection for each example
    first = parts[0].base
    for part in parts[1:]:
        if (part.base.fields, part.base.class_names) != (first.fields, first.class_names):
            raise InputError(
                f"Split {split!r} joins {first.name} of {_kind(first)} and {part.base.name} of "
                f"{_kind(part.base)}; allowed: splits of the same fields and classes."
            )
    return Selection(f"{name} {split}", parts)


def _kind(source: Source) -> str:
    return f"{'+'.join(source.fields)} in {len(source.class_names)} classes"


def _part(term: Term, base: Source, name: str) -> Part:
    n = len(base)
    start = _position(term.start, n, 0, term, name)
    stop = _position(term.stop, n, n, term, name)
    if start >= stop:
        raise InputError(f"Split {str(term)!r} of {name} is empty: {term.name} has {n} examples.")
    return Part(base, start, stop)


def _position(bound: str, n: int, default: int, term: Term, name: str) -> int:
    """Returns a bound as a position in 0..n; percentages round down, in exact arithmetic."""
    if not bound:
        return default
    if bound.endswith("%"):
        percent = Fraction(bound[:-1])
        # '-10%' is the same place as '90%', whatever the rounding.
        percent += 100 if bound.startswith("-") else 0
        position, is_inside = percent * n // 100, 0 <= percent <= 100
    else:
        position = int(bound) + (n if bound.startswith("-") else 0)
        is_inside = 0 <= position <= n
    if not is_inside:
        raise InputError(
            f"Split {str(term)!r} of {name} is out of range: {term.name} has {n} examples (100%)."
        )
    return position
