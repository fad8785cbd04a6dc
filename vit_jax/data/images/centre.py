"""The centre crop of evaluation, as each dialect rounds it; see `data/dialects.py`.

All scale the image, ratio kept, and cut the centre out. They differ in how the sizes between
are rounded: by one pixel, which moves the whole image by up to one.

Letters: h, w, c = height, width, channels found; H, W = height and width asked for.
"""

import math
from typing import NamedTuple

import numpy as np

from vit_jax import sections
from vit_jax.data.images.resampling import Resample, resize
from vit_jax.errors import InputError


class Plan(NamedTuple):
    """An intermediate size, and where in it the crop begins."""

    height: int
    width: int
    top: int
    left: int


def centre_box(
    size: tuple[int, int], target: tuple[int, int], crop_fraction: float
) -> tuple[float, float, float, float]:
    """The (left, top, right, bottom) of the centre crop, in pixels of an image of `size`.

    The image is thought scaled, ratio kept, until it just covers target / crop_fraction; the
    box is what the central `target` pixels see. Resampling that box directly gives the same
    image as resizing and then cropping, without rounding the intermediate size.
    """
    (h, w), (height, width) = size, target
    scale = max(height / h, width / w) / crop_fraction
    box_height, box_width = height / scale, width / scale
    left, top = (w - box_width) / 2, (h - box_height) / 2
    # Pillow refuses a box that leaves the image by one rounding error.
    return max(left, 0.0), max(top, 0.0), min(left + box_width, w), min(top + box_height, h)


def centre_crop(
    image: np.ndarray,
    target: tuple[int, int],
    *,
    crop_fraction: float,
    dialect: str,
    resample: Resample,
) -> np.ndarray:
    """uint8[h,w,c] -> uint8[H,W,c] by way of the dialect's intermediate size."""
    plan = plan_of(image.shape[:2], target, crop_fraction=crop_fraction, dialect=dialect)
    image = resize(
        image,
        (plan.height, plan.width),
        resample.interpolation,
        antialias=resample.antialias,
    )
    return image[plan.top : plan.top + target[0], plan.left : plan.left + target[1]]


def plan_of(
    size: tuple[int, int], target: tuple[int, int], *, crop_fraction: float, dialect: str
) -> Plan:
    """The sizes and offsets of `centre_crop` for an image of `size`, as `dialect` rounds them."""
    check_target(target, dialect)
    return sections.choose(PLANS, dialect, where="dialect")(size, target, crop_fraction)


def check_target(target: tuple[int, int], dialect: str | None):
    """InputError where the dialect's operations know squares alone."""
    if dialect in ("big_vision", "torchvision") and target[0] != target[1]:
        raise InputError(
            f"image_size is {target[0]}x{target[1]}; resize='crop' of dialect={dialect!r} makes "
            "squares alone."
        )


def short_side_size(size: tuple[int, int], side: int, *, dialect: str | None) -> tuple[int, int]:
    """(h, w) scaled until the shorter is `side`: resize_small, or else Resize of one number."""
    h, w = size
    if dialect == "big_vision":
        factor = np.float32(side) / np.float32(min(h, w))
        return round(float(np.float32(h) * factor)), round(float(np.float32(w) * factor))
    long = int(side * max(h, w) / min(h, w))
    return (long, side) if w <= h else (side, long)


def _big_vision(size: tuple[int, int], target: tuple[int, int], crop_fraction: float) -> Plan:
    height, width = short_side_size(size, round(target[0] / crop_fraction), dialect="big_vision")
    return Plan(height, width, (height - target[0]) // 2, (width - target[1]) // 2)


def _torchvision(size: tuple[int, int], target: tuple[int, int], crop_fraction: float) -> Plan:
    side = round(target[0] / crop_fraction)
    return _centred(short_side_size(size, side, dialect="torchvision"), target)


def _timm(size: tuple[int, int], target: tuple[int, int], crop_fraction: float) -> Plan:
    covered = [math.floor(side / crop_fraction) for side in target]
    if covered[0] == covered[1]:
        return _centred(short_side_size(size, covered[0], dialect="timm"), target)
    scale = min(found / asked for found, asked in zip(size, covered, strict=True))
    return _centred((round(size[0] / scale), round(size[1] / scale)), target)


def _centred(size: tuple[int, int], target: tuple[int, int]) -> Plan:
    """Python's round, so that half a pixel goes to the even side."""
    return Plan(*size, *(round((found - cut) / 2) for found, cut in zip(size, target, strict=True)))


PLANS = {"big_vision": _big_vision, "torchvision": _torchvision, "timm": _timm}
