"""Several sources as one, each with a weight: how often its examples are drawn.

The mixture itself is the plain concatenation of its parts, so an index tells an example whatever
the weights are. Who orders the examples reads `weights` and `lengths`.

Letters: p = parts.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.data.examples import Source
from vit_jax.data.sources import open_source
from vit_jax.data.sources.fields import listed
from vit_jax.data.sources.remap import Remapped, remap
from vit_jax.data.splits import Part, Selection
from vit_jax.errors import InputError

MOST_WEIGHT = 1e12  # sums stay finite, and no unit is so small


class Mixture(Selection):
    """The examples of one source after those of another.

    Attributes:
      parts: p sources.
      weights: p numbers above 0 that sum to 1: the share of draws from each part.
      lengths: p numbers: the examples of each part.
    """

    def __init__(self, parts: Sequence[Source], weights: Sequence[float]):
        """Args:
        parts: sources of the same fields and classes.
        weights: numbers above 0, of any sum.
        """
        for part in parts[1:]:
            _check_alike(parts[0], part)
        self.parts = tuple(parts)
        self.weights = tuple(weight / math.fsum(weights) for weight in weights)
        self.lengths = tuple(len(part) for part in parts)
        name = " + ".join(part.name for part in parts)
        super().__init__(name, [Part(part, 0, len(part)) for part in parts])


def open_mixture(
    parts: Sequence[Mapping[str, Any]],
    *,
    split: str = "train",
    merge_classes: bool = False,
) -> Mixture:
    """Opens what a list in `data.source` describes.

    Args:
      parts: the arguments of `_open_part`, one mapping a part.
      split: of parts that name none.
      merge_classes: the classes are the sorted union of all parts' rather than the same in each.

    Raises:
      InputError: naming the part that cannot be opened, or that does not fit the first.
    """
    if not parts:
        raise InputError("data.source is an empty list; allowed: one mapping a part.")
    opened, weights = [], []
    for k, part in enumerate(parts):
        where = f"data.source[{k}]"
        if not isinstance(part, Mapping):
            raise InputError(f"{where} is {part!r}; allowed: a mapping with the key 'source'.")
        source, weight = sections.call(_open_part, part, where=where, default_split=split)
        sections.check_ranges(where, weight=(weight, sections.TINY, MOST_WEIGHT))
        opened.append(source)
        weights.append(weight)
    return Mixture(merge(opened) if merge_classes else opened, weights)


def _open_part(
    *,
    default_split: str,
    source: str,
    split: str | None = None,
    weight: float = 1.0,
    data_dir: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    labels: Mapping[str, Any] | None = None,
) -> tuple[Source, float]:
    """A part and its weight.

    Args:
      source, split, data_dir, image_key, label_key: see `sources.open_source`.
      weight: the share of draws, relative to the other parts'.
      labels: see `remap.remap`.
    """
    keys = dict(data_dir=data_dir, image_key=image_key, label_key=label_key)
    opened = open_source(source, default_split if split is None else split, **keys)
    return (opened if labels is None else remap(opened, labels)), weight


def merge(parts: Sequence[Source]) -> list[Source]:
    """The same sources with the sorted union of their classes; labels follow their names."""
    union = tuple(sorted(set().union(*(part.class_names for part in parts))))
    number = {name: i for i, name in enumerate(union)}
    return [
        part
        if part.class_names in (union, ())
        else Remapped(part, union, np.array([number[name] for name in part.class_names], np.int32))
        for part in parts
    ]


def _check_alike(first: Source, part: Source):
    if set(part.fields) != set(first.fields):
        raise InputError(
            f"{part.name} has the fields {', '.join(part.fields)}, {first.name} has "
            f"{', '.join(first.fields)}; the parts of a mixture must have the same."
        )
    if part.class_names != first.class_names:
        raise InputError(
            f"{part.name} has {len(part.class_names)} classes ({listed(part.class_names)}), "
            f"{first.name} has {len(first.class_names)} ({listed(first.class_names)}); set "
            "data.merge_classes=True to unite them."
        )
