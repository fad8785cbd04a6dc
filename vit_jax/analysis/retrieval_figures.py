"""Contact sheets of queries and what was found for them.

Letters: h, w, c = height, width, channels of each image.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vit_jax.analysis.figures import new_figure

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


def tiled(rows: Sequence[Sequence[np.ndarray]], *, above: int, between: int) -> np.ndarray:
    """uint8[H, W, 3]: images of one size in rows on white, with so many pixels above and between.

    The tile of row i and column j begins at pixel (i + 1) * above + i * h, j * (w + between).
    """
    height, width = rows[0][0].shape[:2]
    down, right = height + above, width + between
    columns = max(map(len, rows))
    canvas = np.full((down * len(rows), right * columns - between, 3), 255, np.uint8)
    for i, images in enumerate(rows):
        for j, image in enumerate(images):
            shown = image[..., :3] if image.shape[-1] >= 3 else image[..., :1]
            top, left = i * down + above, j * right
            canvas[top : top + height, left : left + width] = shown
    return canvas
