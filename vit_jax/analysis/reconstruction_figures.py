"""Pictures of images, of what a model saw of them, and of what it painted in the gaps.

Letters: n examples; h, w, c pixels and channels.
"""

import math
from pathlib import Path

import numpy as np
from jaxtyping import Bool, UInt8

from vit_jax.analysis.figures import DPI, new_figure, tiled

TILE = 1.2  # inches of an image's side
GREY = 128  # of what is masked
TITLES = ("original", "masked", "reconstruction")


def draw_reconstructions(
    images: UInt8[np.ndarray, "n h w c"],
    masked: Bool[np.ndarray, "n h w"],
    painted: UInt8[np.ndarray, "n h w c"],
    target: Path,
) -> None:
    """Three columns: original, masked, reconstruction; of many examples several such side by side.

    Args:
      images: as the model got them.
      masked: is a pixel masked?
      painted: the images with masked pixels as predicted.
      target: PNG file.
    """
    hidden = np.where(masked[..., None], GREY, images).astype(np.uint8)
    triples = list(zip(images, hidden, painted, strict=True))
    blocks = max(1, round(math.sqrt(len(triples) / len(TITLES))))
    rows = [
        [tile for triple in triples[i : i + blocks] for tile in triple]
        for i in range(0, len(triples), blocks)
    ]
    width = images.shape[2]
    between = max(1, round(0.08 * width))
    canvas = tiled(rows, above=between, between=between)
    inches = TILE / width
    figure = new_figure(inches * canvas.shape[1], inches * canvas.shape[0] + 0.3)
    axes = figure.add_subplot()
    axes.imshow(canvas)
    axes.set_axis_off()
    for i in range(len(rows[0])):
        axes.text(i * (width + between), 0, TITLES[i % len(TITLES)], fontsize=7, va="bottom")
    figure.savefig(target, dpi=DPI)
