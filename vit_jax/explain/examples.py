"""Images to look at: files, or examples of a split, read when they are asked for.

Letters: h, w, c pixels and channels.
"""

import dataclasses
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8

from vit_jax import restoring
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.pipeline import EvalSettings
from vit_jax.evaluation import prediction
from vit_jax.restoring import Restored


class Example(NamedTuple):
    name: str
    image: UInt8[np.ndarray, "h w c"]
    label: int | None  # position in `Examples.class_names`


class Examples(NamedTuple):
    """Some images, of which each model makes its own input.

    Attributes:
      origin: what they are, e.g. 'digits:test'.
      count: how many, the unreadable ones included.
      class_names: of the labels; empty where there are none.
      read: yields the readable ones, preprocessed; the others are told.
    """

    origin: str
    count: int
    class_names: tuple[str, ...]
    read: Callable[[Preprocessing], Iterator[Example]]


def of_files(paths: Sequence[Path], *, on_bad: Callable[[str], None]) -> Examples:
    """Image files; an unreadable one is told to `on_bad` and left out."""

    def read(preprocessing: Preprocessing) -> Iterator[Example]:
        for path, image in prediction.read_all(paths, preprocessing, on_bad=on_bad):
            yield Example(readable(path.name), image, None)

    return Examples("image files", len(paths), (), read)


def readable(name: str) -> str:
    """A file's name as text to write and draw: a mark in place of each byte that is no UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def of_split(
    restored: Restored, settings: EvalSettings, *, count: int, is_spread: bool
) -> Examples:
    """Up to `count` examples: the first, or of the whole split at even steps.

    Unreadable ones are logged and left out.

    Args:
      settings: which split; of the training's source where it names none.
      is_spread: at even steps, so that a split in the order of its classes has all of them.
    """
    opened = restoring.splits(restored, num_workers=0, num_threads=0, skip_bad_examples=True)
    data = opened.open(settings, batch_size=1, own_classes=True)
    total = data.num_examples
    last = total if is_spread else min(count, total)
    positions = np.unique(np.linspace(0, last - 1, min(count, total)).round().astype(int))

    def read(preprocessing: Preprocessing) -> Iterator[Example]:
        reader = dataclasses.replace(data, preprocessing=preprocessing)
        for position in positions.tolist():
            row = reader.row(position)
            if row["mask"]:
                label = int(row["label"]) if "label" in row else None
                yield Example(f"#{position}", row["image"], label)

    return Examples(data.source.name, len(positions), tuple(data.source.class_names), read)
