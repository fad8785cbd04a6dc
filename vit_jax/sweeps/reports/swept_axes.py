"""Where the values of a swept setting, or of the metric, stand on a picture's axis from 0 to 1.

Numbers stand by size, or by the logarithm of it where they span decades; all else are categories,
evenly spaced by name. On the left, apart from the others, stand trials without the setting, and the
0 of a logarithmic axis.
"""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.sweeps.reports.findings import NOT_SET
from vit_jax.sweeps.reports.labels import shorten, text_of

DECADES = 1.5  # from where on the axis is logarithmic
LOW_END = 0.25  # of a range
ROOM = 0.14  # of a value that stands apart
FEW = 10  # so many distinct numbers are the ticks themselves


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweptAxis:
    """`ticks` are (place, text); `places` are of the values, in the order they were given in."""

    name: str
    scale: str  # 'linear', 'log' or 'category'
    places: tuple[float, ...]
    ticks: tuple[tuple[float, str], ...]


def make_axis(name: str, values: Sequence[Any], *, characters: int = 76) -> SweptAxis:
    """An axis for these values; `characters` is how many of its ticks' letters fit beside another.

    Raises IndexError for no values.
    """
    present = [value for value in values if value is not NOT_SET]
    scale = _scale(present)
    apart = [str(NOT_SET)] if len(present) < len(values) else []
    if scale == "log" and 0 in present:
        present = [value for value in present if value != 0]
        apart.append("0")
    find = _categories(present, characters) if scale == "category" else _numbers(present, scale)
    left = ROOM * len(apart)
    places = {text: ROOM * i for i, text in enumerate(apart)}
    ticks = [(at, text) for text, at in places.items()]
    ticks += [(left + (1 - left) * at, text) for at, text in find.ticks]

    def place(value: Any) -> float:
        text = str(NOT_SET) if value is NOT_SET else "0" if value == 0 else ""
        if (text in places and scale != "category") or value is NOT_SET:
            return places[text]
        return left + (1 - left) * find.places[_key(value, scale)]

    return SweptAxis(
        name=name,
        scale=scale,
        places=tuple(map(place, values)),
        ticks=tuple(_apart(ticks, characters)),
    )


def spans_decades(values: Sequence[float], *, decades: float = DECADES) -> bool:
    """Are positive values so far apart, and most of them at the low end of their range?

    Draws from a uniform law may span decades, too, but lie evenly as they are.
    """
    low, middle, high = min(values), statistics.median_low(set(values)), max(values)
    if low <= 0 or math.log10(high) - math.log10(low) < decades:
        return False
    return (middle - low) / (high - low) < LOW_END


@dataclasses.dataclass(frozen=True)
class _Found:
    """Places from 0 to 1 by value, and (place, text) of ticks."""

    places: Mapping[Any, float]
    ticks: Sequence[tuple[float, str]]


def _scale(values: Sequence[Any]) -> str:
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return "category"
    above = [value for value in values if value != 0]
    return "log" if above and spans_decades(above) else "linear"


def _key(value: Any, scale: str) -> Any:
    return text_of(value) if scale == "category" else float(value)


def _categories(values: Sequence[Any], characters: int) -> _Found:
    names = sorted({text_of(value) for value in values})
    place = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
    room = max(6, characters // len(names) - 2)
    return _Found(place, [(at, shorten(name, room)) for name, at in place.items()])


def _numbers(values: Sequence[float], scale: str) -> _Found:
    distinct = sorted({float(value) for value in values})
    low, high = distinct[0], distinct[-1]
    change = math.log if scale == "log" else float
    span = change(high) - change(low)
    at = lambda value: 0.5 if not span else (change(value) - change(low)) / span  # noqa: E731
    is_whole = all(isinstance(value, int) for value in values)
    is_few = len(distinct) <= FEW
    shown = distinct if is_few else _round_numbers(low, high, scale == "log", is_whole)
    return _Found({v: at(v) for v in distinct}, [(at(v), f"{v:.4g}") for v in shown])


def _round_numbers(low: float, high: float, is_log: bool, is_whole: bool) -> list[float]:
    from matplotlib import ticker  # slow to import

    if is_log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = np.asarray([digit * 10.0**decade for decade in decades for digit in (1, 3)])
        if len(decades) > 4:
            found = 10.0 ** np.asarray(decades)
    else:
        found = ticker.MaxNLocator(5, integer=is_whole).tick_values(low, high)
    inside = found[(found >= low) & (found <= high)]
    return [float(value) for value in inside] if len(inside) > 1 else [low, high]


def _apart(ticks: Sequence[tuple[float, str]], characters: int) -> list[tuple[float, str]]:
    """The ticks without those whose text would touch the one before."""
    kept: list[tuple[float, str]] = []
    for at, text in sorted(ticks):
        needed = (len(text) + len(kept[-1][1])) / 2 + 2 if kept else 0
        if not kept or (at - kept[-1][0]) * characters >= needed:
            kept.append((at, text))
    return kept
