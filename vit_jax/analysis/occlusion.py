"""Occlusion sensitivity (arXiv:1311.2901, section 4.2): what is lost where a part is hidden.

    map[i, j] = score(image) - score(image with the window around place (i, j) filled)

Letters: b images; p changed images; H, W, C pixels and channels; rows, columns of places.
"""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.analysis.fills import fill_images
from vit_jax.analysis.scores import Scorer
from vit_jax.core import Variables
from vit_jax.errors import InputError


def occlusion(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    window: tuple[int, int],
    stride: tuple[int, int] | None = None,
    classes: Int[Array, " b"] | None = None,
    score: str | None = None,
    fill: str = "mean",
    batch_size: int = 64,
) -> Float[Array, "b rows columns"]:
    """Drop of the score where a window around each place is filled; of any model.

    Places are centres of cells of `stride` pixels, so the result is a picture of the image in
    ceil(H / stride) rows; a window over the border is cut there. With the window alone each part of
    the image is hidden once.

    Memory: `batch_size` images in the model, and the given ones.

    Args:
      images: as the model takes them, normalised.
      window, stride: in pixels; the stride is a window by default. `pixels_of_patch` says what a
        ViT's patch is.
      classes, score: see `scores.Scorer`.
      fill: see `fills.fill_images`.
    """
    stride = window if stride is None else stride
    for name, sides in (("window", window), ("stride", stride)):
        if any(not 1 <= s <= size for s, size in zip(sides, images.shape[1:3], strict=True)):
            raise InputError(
                f"{name} is {tuple(sides)} pixels; allowed: from 1 to {images.shape[1:3]}."
            )
    scorer = Scorer(model, variables, images, classes=classes, score=score, batch_size=batch_size)
    rows, columns = (spans(*sides) for sides in zip(images.shape[1:3], window, stride, strict=True))
    inputs = (images, fill_images(images, fill, size=window), rows, columns)
    found = scorer(_occlude, len(rows) * len(columns), inputs)
    drops = scorer.whole[:, None] - found
    return drops.reshape(-1, len(rows), len(columns))


def spans(size: int, window: int, stride: int) -> Int[np.ndarray, "n 2"]:
    """First pixel of each window along an axis, and the one after its last."""
    centres = (np.arange(math.ceil(size / stride)) + 0.5) * stride
    first = np.floor(centres - window / 2).astype(int)
    return np.clip(np.stack([first, first + window], axis=1), 0, size)


def _occlude(inputs, image, place):
    """Images [p, H, W, C] with the window at these places filled."""
    images, filled, rows, columns = inputs
    row, column = jnp.divmod(place, len(columns))

    def is_within(span, size):
        pixels = jnp.arange(size)
        return (pixels >= span[:, :1]) & (pixels < span[:, 1:])

    height, width = images.shape[1:3]
    vertical, horizontal = is_within(rows[row], height), is_within(columns[column], width)
    is_hidden = vertical[:, :, None] & horizontal[:, None, :]
    return jnp.where(is_hidden[..., None], filled[image], images[image])
