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
_MANY = 6  # settings that a name of its own may be told with


def label(records: Sequence[Record], settings: Mapping[str, Any]) -> str:
    """Of a group: the name that a person gave its trials, or the settings that set it apart.

    Args:
      records: the group's trials.
      settings: short name of each swept key -> the group's value.
    """
    told = ", ".join(f"{name}={text_of(value)}" for name, value in settings.items())
    names = {stem(record.name) for record in records}
    if len(names) > 1 or any(record.name == name_of(record.overrides) for record in records):
        return told or "base"
    (name,) = names
    is_numbered = bool(re.search(r"\d", name)) and told and len(settings) <= _MANY
    return f"{name}: {told}" if is_numbered and len(records) == 1 else name


def stem(name: str) -> str:
    """A trial's name without its seed: 'lr=0.1,seed=3' -> 'lr=0.1'."""
    return _SEED.sub("", name).strip(",") or name


def without_seed_of_needs(value: Any) -> Any:
    return stem(value) if isinstance(value, str) and value.startswith(NEEDS) else value


def text_of(value: Any) -> str:
    """A setting as one word or a few."""
    if isinstance(value, float):
        return f"{value:.4g}"
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


def listed(names: Sequence[str], *, most: int = 8) -> str:
    """'`a`, `b` and 3 more'."""
    told = ", ".join(f"`{name}`" for name in names[:most])
    return told + (f" and {len(names) - most} more" if len(names) > most else "")
