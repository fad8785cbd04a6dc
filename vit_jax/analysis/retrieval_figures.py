"""Contact sheets of queries and what was found for them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit_jax.analysis.figures import new_figure

TILE = 1.2  # inches of an image's side
FRAME = {True: "tab:green", False: "tab:red"}


class Answer(NamedTuple):
    """A query, and images that were found, the nearest first.

    Attributes:
      query, found: uint8[h, w, c] images.
      caption, captions: their classes.
      is_right: is an image relevant?
    """

    query: np.ndarray
    caption: str
    found: Sequence[np.ndarray]
    captions: Sequence[str]
    is_right: Sequence[bool]


def draw_answers(answers: Sequence[Answer], target: Path) -> None:
    """One row a query: itself, then what was found, relevant ones framed green, others red."""
    columns = 1 + max(len(answer.found) for answer in answers)
    figure = new_figure(TILE * columns, (TILE + 0.25) * len(answers))
    for i, answer in enumerate(answers):
        tiles = [(answer.query, answer.caption, None)]
        tiles += zip(answer.found, answer.captions, answer.is_right, strict=True)
        for j, (image, caption, is_right) in enumerate(tiles):
            axes = figure.add_subplot(len(answers), columns, i * columns + j + 1)
            show(axes, image)
            axes.set_title(caption if j else f"query: {caption}", fontsize=6)
            frame(axes, None if is_right is None else FRAME[bool(is_right)])
    figure.savefig(target, dpi=120)


def show(axes, image: np.ndarray) -> None:
    """uint8[h, w, c]; grey where it has one channel or two."""
    shown = image[..., :3] if image.shape[-1] >= 3 else image[..., 0]
    axes.imshow(shown, cmap="gray", vmin=0, vmax=255)


def frame(axes, colour: str | None) -> None:
    """No ticks, and a border of this colour."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(colour is not None)
        spine.set_color(colour or "black")
        spine.set_linewidth(2.5)
