"""How a report names settings, groups and numbers: short enough for a phone."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.sweeps.folder import Record
from vit_jax.sweeps.statistics import Summary
from vit_jax.sweeps.trials import NEEDS, name_of

_SEED = re.compile(r"(^|,)seed=-?\d+(?=,|$)")
_LONGEST_KEY, _SHORTEST_KEY, _LONGEST_VALUE = 12, 4, 14  # characters, where not all fit


def own_name(records: Sequence[Record]) -> str | None:
    """The name that a person or a search gave a group's trials; None for names of overrides."""
    names = {stem(record.name) for record in records}
    if len(names) > 1 or any(record.name == name_of(record.overrides) for record in records):
        return None
    return names.pop()


def told(settings: Mapping[str, str], *, limit: int | None = None) -> str:
    """'learning_rate=0.01, depth=4' in at most `limit` characters.

    Keys are cut before values, which tell groups apart; the last settings go where none of that
    suffices.
    """
    text = ", ".join(f"{key}={value}" for key, value in settings.items())
    if limit is None or len(text) <= limit:
        return text
    for length in range(_LONGEST_KEY, _SHORTEST_KEY - 1, -1):
        parts = [_part(key, value, length) for key, value in settings.items()]
        if len(", ".join(parts)) <= limit:
            return ", ".join(parts)
    while len(parts) > 1 and len(", ".join(parts)) + len(", …") > limit:
        parts.pop()
    return shorten(", ".join([*parts, "…"]), limit)


def _part(key: str, value: str, length: int) -> str:
    return f"{shorten(key, length)}={shorten(value, _LONGEST_VALUE)}"


def stem(name: str) -> str:
    """A trial's name without its seed: 'lr=0.1,seed=3' -> 'lr=0.1'."""
    return _SEED.sub("", name).strip(",") or name


def without_seed_of_needs(value: Any) -> Any:
    return stem(value) if isinstance(value, str) and value.startswith(NEEDS) else value


def text_of(value: Any) -> str:
    """A setting as one word or a few."""
    if isinstance(value, float):
        return f"{value:.8g}"  # 0.9999 and 0.99999 are two settings
    if isinstance(value, Mapping | list | tuple | None | bool):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def shorten(text: str, limit: int) -> str:
    """At most `limit` characters: the middle goes, since ends tell names apart."""
    if len(text) <= limit:
        return text
    left = (limit - 1) // 2
    return f"{text[:left]}…{text[len(text) - (limit - 1 - left) :]}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def spread(summary: Summary | None) -> str:
    """'0.8361 ± 0.0042': the spread with two digits that count, and the mean with as many."""
    if summary is None:
        return "–"
    if not summary.std:
        return number(summary.mean) + ("" if summary.std is None else " ± 0")
    digits = 1 - math.floor(math.log10(summary.std))
    if not 0 <= digits <= 8:
        return f"{summary.mean:.4g} ± {summary.std:.2g}"
    return f"{summary.mean:.{digits}f} ± {summary.std:.{digits}f}"


def duration(seconds: float) -> str:
    """3725 -> '1 h 2 min'."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(names: Sequence[str], *, most: int = 8) -> str:
    """'`a`, `b` and 3 more'."""
    text = ", ".join(f"`{name}`" for name in names[:most])
    return text + (f" and {len(names) - most} more" if len(names) > most else "")
