"""Where the values of a swept setting, or of the metric, stand on a picture's axis from 0 to 1.

Numbers stand by size, or by the logarithm of it where all are positive and span decades; all else
are categories, evenly spaced by name. A trial without the setting stands apart on the left.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.sweeps.findings import NOT_SET
from vit_jax.sweeps.labels import shorten, text_of

DECADES = 1.5  # from where on the axis is logarithmic
NOT_SET_ROOM = 0.14  # left of the values, where some trial lacks the setting
FEW = 6  # so many distinct numbers are the ticks themselves


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
    left = NOT_SET_ROOM if len(present) < len(values) else 0.0
    scale = _scale(present)
    if scale == "category":
        place, ticks = _categories(present, characters)
    else:
        place, ticks = _numbers(present, scale == "log")
    into = lambda at: left + (1 - left) * at  # noqa: E731
    places = tuple(0.0 if v is NOT_SET else into(place[_key(v, scale)]) for v in values)
    moved = [(into(at), text) for at, text in ticks]
    if left:
        moved = [(0.0, str(NOT_SET)), *moved]
    return SweptAxis(name=name, scale=scale, places=places, ticks=tuple(_apart(moved, characters)))


def spans_decades(values: Sequence[float]) -> bool:
    return min(values) > 0 and math.log10(max(values) / min(values)) >= DECADES


def _scale(values: Sequence[Any]) -> str:
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return "category"
    return "log" if spans_decades(values) else "linear"


def _key(value: Any, scale: str) -> Any:
    return text_of(value) if scale == "category" else float(value)


def _categories(values: Sequence[Any], characters: int) -> tuple[Mapping[str, float], list]:
    names = sorted({text_of(value) for value in values})
    place = {name: (i + 0.5) / len(names) for i, name in enumerate(names)}
    room = max(6, characters // len(names) - 2)
    return place, [(at, shorten(name, room)) for name, at in place.items()]


def _numbers(values: Sequence[float], is_log: bool) -> tuple[Mapping[float, float], list]:
    distinct = sorted({float(value) for value in values})
    low, high = distinct[0], distinct[-1]
    change = math.log if is_log else float
    span = change(high) - change(low)
    at = lambda value: 0.5 if not span else (change(value) - change(low)) / span  # noqa: E731
    is_whole = all(isinstance(value, int) for value in values)
    shown = (
        distinct
        if len(distinct) <= FEW
        else _round_numbers(low, high, is_log=is_log, is_whole=is_whole)
    )
    return {v: at(v) for v in distinct}, [(at(v), f"{v:.4g}") for v in shown]


def _round_numbers(low: float, high: float, *, is_log: bool, is_whole: bool) -> list[float]:
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
