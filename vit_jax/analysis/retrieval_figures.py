"""Contact sheets of queries and what was found for them.

Letters: h, w, c = height, width, channels of each image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit_jax.analysis.figures import new_figure, tiled

TILE = 1.2  # inches of an image's side
FRAME = {True: "tab:green", False: "tab:red"}
BETWEEN = 0.08  # of a tile's width; what is between two
CAPTION = 0.2  # of its height


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
    from matplotlib.patches import Rectangle

    height, width = answers[0].query.shape[:2]
    above, between = max(1, round(CAPTION * height)), max(1, round(BETWEEN * width))
    rows = [[answer.query, *answer.found] for answer in answers]
    canvas = tiled(rows, above=above, between=between)
    inches = TILE / width
    figure = new_figure(*(inches * pixels for pixels in canvas.shape[1::-1]))
    axes = figure.add_subplot()  # one for all, since the layout of many takes long
    axes.imshow(canvas)
    axes.set_axis_off()
    for i, answer in enumerate(answers):
        top = i * (height + above) + above
        axes.text(0, top - 1, f"query: {answer.caption}", fontsize=6)
        found = zip(answer.captions, answer.is_right, strict=True)
        for j, (caption, is_right) in enumerate(found, start=1):
            left = j * (width + between)
            axes.text(left, top - 1, caption, fontsize=6)
            corner = (left - 0.5, top - 0.5)  # a pixel's centre is drawn at its number
            colour = FRAME[bool(is_right)]
            axes.add_patch(Rectangle(corner, width, height, fill=False, color=colour, lw=2))
    figure.savefig(target, dpi=120)
