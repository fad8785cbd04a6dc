"""Resizing of images: by Pillow's law, or by that of tf.image.resize through OpenCV.

    interpolation     antialias=True                  antialias=False
    nearest           Pillow                          the same; tf.image.resize agrees
    bilinear          Pillow: torchvision, timm       OpenCV: tf.image.resize, as big_vision
    bicubic           Pillow: torchvision, timm       refused, see below
    lanczos, box      Pillow                          refused
    area              the mean of the part of the image that a pixel covers, by OpenCV, the same
                      either way: tf.image.resize(method='area')

Pillow widens its kernels when it shrinks an image; that is what `antialias` means. It rounds to
the nearest level. The laws of OpenCV are computed in float32 and cut off to whole levels, as
big_vision's operations do. Bicubic without antialiasing is not offered because OpenCV's kernel
(a = -0.75) is not TensorFlow's (a = -0.5): they differ by up to 25 levels on noise.

Letters: h, w, c = height, width, channels found; H, W = height and width asked for.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from vit_jax import sections
from vit_jax.data.images.opencv import opencv
from vit_jax.errors import InputError

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
    "box": Image.Resampling.BOX,
}
INTERPOLATIONS = (*PILLOW, "area")
NOT_ANTIALIASED = ("nearest", "bilinear", "area")


class Resample(NamedTuple):
    """How pixels between pixels are made; see the table above."""

    interpolation: str = "bilinear"
    antialias: bool = True

    def check(self, *, where: str) -> "Resample":
        """Itself; InputError where the table has no such law."""
        sections.choose(dict.fromkeys(INTERPOLATIONS), self.interpolation, where=where)
        if not self.antialias and self.interpolation not in NOT_ANTIALIASED:
            raise InputError(
                f"{where} is {self.interpolation!r} with antialias=False; without antialiasing "
                f"there are: {', '.join(NOT_ANTIALIASED)}."
            )
        return self


def resize(
    image: np.ndarray,
    size: tuple[int, int],
    interpolation: str,
    *,
    antialias: bool = True,
    box: tuple[float, float, float, float] | None = None,
) -> np.ndarray:
    """Resamples uint8[h,w,c], or a box of it, to uint8[H,W,c].

    Args:
      image: uint8[h,w,c], any number of channels.
      size: (H, W).
      interpolation, antialias: see the table at the top of this file.
      box: left, top, right, bottom in pixels; with the laws of OpenCV whole numbers.

    Raises:
      InputError: for a pair that the table does not have.
    """
    h, w = image.shape[:2]
    if (h, w) == tuple(size) and box in (None, (0, 0, w, h)):
        return image
    by_opencv = interpolation == "area" or (interpolation == "bilinear" and not antialias)
    if by_opencv:
        return _opencv(image if box is None else _cut(image, box), size, interpolation)
    Resample(interpolation, antialias).check(where="interpolation")
    target, kernel = (size[1], size[0]), PILLOW[interpolation]  # Pillow: width first
    if image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(target, kernel, box=box))
    # Channel by channel, because Pillow premultiplies the colours of four channels by the last.
    planes = [Image.fromarray(plane).resize(target, kernel, box=box) for plane in _planes(image)]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1)


def _opencv(image: np.ndarray, size: tuple[int, int], interpolation: str) -> np.ndarray:
    if image.shape[:2] == tuple(size):
        return image
    law = {"bilinear": _bilinear, "area": _area}[interpolation]
    exact = image.astype(np.float32)
    if image.shape[2] == 3:
        found = law(exact, size)
    else:  # it drops an axis of one channel, and some of its kernels take four at most
        found = np.stack([law(plane, size) for plane in _planes(exact)], axis=-1)
    return found.astype(np.uint8)  # means of pixels: none is out of range


def _bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return opencv().resize(image, (size[1], size[0]), interpolation=opencv().INTER_LINEAR)


def _area(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    # OpenCV averages only where no side grows, so a shrinking side goes first, alone.
    smaller = tuple(min(new, old) for new, old in zip(size, image.shape[:2], strict=True))
    for height, width in (smaller, size):
        if image.shape[:2] != (height, width):
            image = opencv().resize(image, (width, height), interpolation=opencv().INTER_AREA)
    return image


def _planes(image: np.ndarray) -> list[np.ndarray]:
    return [np.ascontiguousarray(image[..., k]) for k in range(image.shape[2])]


def _cut(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    left, top, right, bottom = (round(edge) for edge in box)
    if (left, top, right, bottom) != tuple(box):
        raise InputError(f"box is {box}; without Pillow's kernels it must be whole pixels.")
    return image[top:bottom, left:right]
