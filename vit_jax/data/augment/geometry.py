"""Movements of an example: its image and everything that lives in the image's coordinates.

Each function takes an example (see `examples.py`) and returns a new one with image or video,
boxes, box_label, segmentation, masks and keypoints moved alike; label, labels and caption stay.
Nothing here is random. Box coordinates are continuous: pixel j covers j to j + 1.

What happens to an object at the border: its box is cut to the image, and where the visible share
of its area is zero or below `min_visible`, the object goes with its box, class, mask and
keypoints. A keypoint outside of the image is marked invisible.

Letters: h, w, c = height, width, channels; H, W = the same of the result; t frames; n objects;
k keypoints of an object.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vit_jax.data.augment import warp
from vit_jax.data.decode import pixels, size_of
from vit_jax.data.examples import Example
from vit_jax.errors import InputError

OBJECT_FIELDS = ("boxes", "box_label", "masks", "keypoints")
IGNORED = -1  # of a segmentation: what does not count


class Motion(NamedTuple):
    """One movement, as each kind of field needs it.

    Attributes:
      size: (H, W) afterwards.
      image: uint8[h,w,c] -> uint8[H,W,c].
      labels: [h,w] and the value outside -> [H,W], of any type.
      points: f64[...,2], x and y, -> the same, moved.
    """

    size: tuple[int, int]
    image: Callable[[np.ndarray], np.ndarray]
    labels: Callable[[np.ndarray, int], np.ndarray]
    points: Callable[[np.ndarray], np.ndarray]


def affine(
    example: Example,
    matrix: np.ndarray,
    *,
    law: str,
    resample: str,
    fill: tuple[int, ...] | int,
    min_visible: float = 0.0,
) -> Example:
    """Moves by an affine map, the size unchanged.

    Args:
      example: with any of the fields above.
      matrix: f64[2,3], from x, y, 1 of the result to x, y of the input.
      law: 'pillow' or 'tensorflow', see `warp`: whose coordinates and rounding.
      resample: 'nearest', 'bilinear' or 'bicubic'.
      fill: of the image where nothing was; a segmentation gets -1, masks False.
      min_visible: see the top of this file.

    Raises:
      InputError: for an unknown law or interpolation, or a matrix that has no inverse.
    """
    matrix = np.asarray(matrix, np.float64)
    size = _size(example)
    forward = _inverse(warp.continuous(matrix, law))
    motion = Motion(
        size=size,
        image=lambda image: warp.warp_image(image, matrix, law=law, resample=resample, fill=fill),
        labels=lambda plane, outside: warp.warp_labels(plane, matrix, law=law, fill=outside),
        points=lambda xy: xy @ forward[:, :2].T + forward[:, 2],
    )
    return move(example, motion, min_visible=min_visible)


def move(example: Example, motion: Motion, *, min_visible: float = 0.0) -> Example:
    """Applies one movement to every field that lives in the image's coordinates."""
    moved = dict(example)
    if "image" in example:
        moved["image"] = motion.image(pixels(example["image"]))
    if "video" in example:
        moved["video"] = np.stack([motion.image(frame) for frame in example["video"]])
    if "segmentation" in example:
        moved["segmentation"] = motion.labels(example["segmentation"], IGNORED)
    if "masks" in example:
        planes = [motion.labels(mask, False) for mask in example["masks"]]
        moved["masks"] = np.array(planes, bool).reshape(len(planes), *motion.size)
    if "keypoints" in example:
        moved["keypoints"] = _move_keypoints(example["keypoints"], motion)
    return _move_boxes(moved, motion, min_visible) if "boxes" in example else moved


def _move_boxes(example: Example, motion: Motion, min_visible: float) -> Example:
    """The hull of each box's moved corners, cut to the image; objects out of view dropped."""
    boxes = np.asarray(example["boxes"], np.float64).reshape(-1, 4)
    corners = motion.points(boxes[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2))
    hull = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    height, width = motion.size
    cut = np.clip(hull, 0, (width, height, width, height))
    seen, whole = _areas(cut), _areas(hull)
    kept = (seen > 0) & (seen >= min_visible * whole)
    example["boxes"] = cut.astype(np.float32)
    for name in OBJECT_FIELDS:
        if name in example:
            example[name] = example[name][kept]
    return example


def _move_keypoints(keypoints: np.ndarray, motion: Motion) -> np.ndarray:
    height, width = motion.size
    xy = motion.points(np.asarray(keypoints[..., :2], np.float64))
    inside = np.all((xy >= 0) & (xy < (width, height)), axis=-1)
    visible = np.where(inside, keypoints[..., 2], 0)
    return np.concatenate([xy, visible[..., None]], axis=-1).astype(np.float32)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _inverse(matrix: np.ndarray) -> np.ndarray:
    """The 2x3 map that undoes another."""
    try:
        return np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))[:2]
    except np.linalg.LinAlgError:
        raise InputError(f"matrix is {matrix.tolist()}; it must have an inverse.") from None


def _size(example: Example) -> tuple[int, int]:
    """(h, w) of the image, or of the frames of the video."""
    return size_of(example["image"]) if "image" in example else example["video"].shape[1:3]
