"""The laws that random crops are drawn by; who uses which stands in `dialects`.

Each is `law(size, rng, *, area, ratio, attempts) -> Box`, where size = (h, w) is that of the image,
`area` the least and largest share of it that a box may have, and `ratio` the least and largest
width / height of the box, in pixels of the image.

Letters: h, w = height and width.
"""

import math

import numpy as np

from vit_jax.data.images.decode import Box


def uniform_area(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    attempts: int,
) -> Box:
    """Area uniform, logarithm of the ratio uniform, position uniform: torchvision and timm.

    Sides are rounded; a box that does not fit is drawn anew. After the last attempt it is the
    largest centred box of an allowed ratio. After Inception (arXiv:1409.4842, section 6).
    """
    h, w = size
    low, high = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(attempts):
        pixels = rng.uniform(*area) * h * w
        drawn = math.exp(rng.uniform(low, high))
        height, width = round(math.sqrt(pixels / drawn)), round(math.sqrt(pixels * drawn))
        if 0 < height <= h and 0 < width <= w:
            return _placed(rng, height, width, h - height + 1, w - width + 1)
    height, width = min(h, round(w / ratio[0])), min(w, round(h * ratio[1]))
    return Box((h - height) // 2, (w - width) // 2, max(height, 1), max(width, 1))


def uniform_height(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
    attempts: int,
) -> Box:
    """Ratio uniform, then height uniform between those of the areas: tf.image's and big_vision's.

    The law of `sample_distorted_bounding_box`. So small areas are more frequent than where the
    area is uniform, and never is the last row or column in a box that is smaller than the image:
    offsets are drawn below the greatest one. After the last attempt it is the whole image.
    """
    h, w = size
    least, most = area[0] * h * w, area[1] * h * w
    for _ in range(attempts):
        drawn = rng.uniform(*ratio)
        height = _height(rng, drawn, least, most, size)
        width = round(height * drawn)
        # A pixel more or less where rounding left the range of areas.
        if width * height < least:
            height, width = height + 1, round((height + 1) * drawn)
        if width * height > most:
            height, width = height - 1, round((height - 1) * drawn)
        if least <= width * height <= most and 0 < width <= w and 0 < height <= h:
            return _placed(rng, height, width, max(h - height, 1), max(w - width, 1))
    return Box(0, 0, h, w)


def _height(
    rng: np.random.Generator, ratio: float, least: float, most: float, size: tuple[int, int]
) -> int:
    """Uniform over the whole heights from that of the least area to the greatest that fits."""
    h, w = size
    low, high = round(math.sqrt(least / ratio)), round(math.sqrt(most / ratio))
    if round(high * ratio) > w:
        high = int((w + 0.5 - 1e-7) / ratio)
        high -= round(high * ratio) > w
    high = min(high, h)
    return int(rng.integers(low, high + 1)) if low < high else high


def _placed(
    rng: np.random.Generator, height: int, width: int, offsets_down: int, offsets_right: int
) -> Box:
    """At a uniform position among so many."""
    return Box(int(rng.integers(offsets_down)), int(rng.integers(offsets_right)), height, width)


LAWS = {"uniform_area": uniform_area, "uniform_height": uniform_height}
