"""Rectangles of an image painted over: random erasing and Cutout.

Both are stated on normalised images, where zero is the mean and noise is N(0, 1). Here images are
still uint8, so zero is the mean and noise is mean + std N(0, 1), rounded and cut to 0 to 255. Boxes
and masks stay: an object that is hidden in part is still there. A video loses the same rectangle
in all frames.

Letters: h, w, c = height, width, channels.
"""

import math
from dataclasses import dataclass

import numpy as np

from vit_jax import sections
from vit_jax.data.augment.geometry import example_size
from vit_jax.data.dialects import TIMM, dialect_of
from vit_jax.data.examples import Example
from vit_jax.data.images.decode import Box, pixels
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError

MODES = ("const", "rand", "pixel")
MOST_BOXES = 1000  # each takes its time
TRIES = 10  # at each rectangle, in timm and torchvision


@dataclass(frozen=True, kw_only=True)
class RandomErasing:
    """See `build_erasing`."""

    probability: float
    mode: str
    area: tuple[float, float]
    ratio: tuple[float, float]
    max_count: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        count = int(rng.integers(1, self.max_count + 1)) if self.max_count > 1 else 1
        area = (self.area[0] / count, self.area[1] / count)
        for _ in range(count):
            box = erased_box(example_size(example), rng, area=area, ratio=self.ratio)
            if box is not None:
                example = paint(example, box, self._colours(box, example, rng))
        return example

    def _colours(self, box: Box, example: Example, rng: np.random.Generator) -> np.ndarray:
        """uint8 that broadcasts to the box."""
        channels = example["image" if "image" in example else "video"].shape[-1]
        shape = {"const": None, "rand": (channels,), "pixel": (box.height, box.width, channels)}
        drawn = 0.0 if self.mode == "const" else rng.standard_normal(shape[self.mode])
        values = 255 * (np.array(self.mean) + np.array(self.std) * drawn)
        return np.clip(np.rint(values), 0, 255).astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class Cutout:
    """See `build_cutout`."""

    probability: float
    side: int
    fill: tuple[int, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        box = cutout_box(example_size(example), rng, side=self.side)
        return paint(example, box, np.array(self.fill, np.uint8))


def build_erasing(
    *,
    probability: float,
    mode: str = "const",
    min_area: float | None = None,
    max_area: float | None = None,
    min_ratio: float | None = None,
    max_ratio: float | None = None,
    max_count: int = 1,
    preprocessing: Preprocessing,
    dialect: str | None,
) -> RandomErasing:
    """Random erasing (arXiv:1708.04896) by the law of timm or torchvision.

    Args:
      probability: of erasing anything; 0.25 is usual.
      mode: 'const' paints the mean, 'rand' one random colour a rectangle, 'pixel' one a pixel.
      min_area, max_area: share of the image, of all rectangles together; None is the dialect's.
      min_ratio, max_ratio: height / width, its logarithm uniform; None is the dialect's.
      max_count: rectangles, uniform from 1 to this; one in torchvision.
      preprocessing: whose mean and std.
      dialect: None and big_vision, which has no random erasing, are as timm.

    Raises:
      InputError: for a value out of range.
    """
    where, own = "augment.erasing", dialect_of(dialect, where="augment.dialect") or TIMM
    sections.check_probability(where, probability)
    sections.choose(dict.fromkeys(MODES), mode, where=f"{where}.mode")
    area = _range(min_area, max_area, own.erase_area, f"{where}.min_area and max_area", most=1)
    ratio = _range(min_ratio, max_ratio, own.erase_ratio, f"{where}.min_ratio and max_ratio")
    most = 1 if dialect == "torchvision" else MOST_BOXES
    if not 1 <= max_count <= most:
        allowed = "1 with dialect='torchvision'" if most == 1 else f"1 to {most}"
        raise InputError(f"{where}.max_count is {max_count}; allowed: {allowed}.")
    return RandomErasing(
        probability=probability,
        mode=mode,
        area=area,
        ratio=ratio,
        max_count=max_count,
        mean=preprocessing.mean,
        std=preprocessing.std,
    )


def build_cutout(
    *,
    side: int,
    probability: float = 1.0,
    fill: tuple[int, ...] | int | None = None,
    preprocessing: Preprocessing,
) -> Cutout:
    """Cutout (arXiv:1708.04552): a square whose centre is any pixel; the image cuts it off.

    Args:
      side: pixels; twice what big_vision calls pad_size, so an even number there.
      probability: of doing it.
      fill: 0 to 255, one value or one a channel; None is the mean, and big_vision has 128.
      preprocessing: whose mean.
    """
    where = "augment.cutout"
    sections.check_probability(where, probability)
    if side < 1:
        raise InputError(f"{where}.side is {side}; allowed: 1 or more pixels.")
    if fill is None:
        fill = tuple(round(255 * mean) for mean in preprocessing.mean)
    fill = (fill,) if isinstance(fill, int) else fill
    if len(fill) not in (1, preprocessing.channels) or not all(0 <= v <= 255 for v in fill):
        raise InputError(
            f"{where}.fill is {fill}; allowed: one number of 0 to 255, or {preprocessing.channels}."
        )
    return Cutout(probability=probability, side=side, fill=fill)


def erased_box(
    size: tuple[int, int],
    rng: np.random.Generator,
    *,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Box | None:
    """Area and logarithm of height / width uniform, position uniform; None where none fitted.

    A rectangle must be less high and less wide than the image of size = (h, w), in both libraries.
    """
    h, w = size
    for _ in range(TRIES):
        wanted = rng.uniform(*area) * h * w
        drawn = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        height, width = round(math.sqrt(wanted * drawn)), round(math.sqrt(wanted / drawn))
        if height < h and width < w:
            top, left = rng.integers(h - height + 1), rng.integers(w - width + 1)
            return Box(int(top), int(left), height, width)
    return None


def cutout_box(size: tuple[int, int], rng: np.random.Generator, *, side: int) -> Box:
    """A square around a uniform pixel, cut to the image of size = (h, w)."""
    first = [int(rng.integers(n)) - side // 2 for n in size]
    (top, left), (bottom, right) = (
        [max(start, 0) for start in first],
        [min(start + side, n) for start, n in zip(first, size, strict=True)],
    )
    return Box(top, left, bottom - top, right - left)


def paint(example: Example, box: Box, colours: np.ndarray) -> Example:
    """The example with a box of its image, or of each frame, painted over."""
    name = "image" if "image" in example else "video"
    painted = pixels(example[name]).copy()
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    painted[..., rows, columns, :] = colours
    return {**example, name: painted}


def _range(
    low: float | None, high: float | None, own: tuple[float, float], name: str, most=math.inf
) -> tuple[float, float]:
    low, high = own[0] if low is None else low, own[1] if high is None else high
    if not 0 < sections.number(low, name) <= sections.number(high, name) <= most:
        raise InputError(f"{name} are {low} and {high}; allowed: above 0, in order, to {most}.")
    return float(low), float(high)
