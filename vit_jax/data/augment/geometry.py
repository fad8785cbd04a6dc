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

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vit_jax import sections
from vit_jax.data.augment import warp
from vit_jax.data.examples import Example
from vit_jax.data.images.channels import fewer_channels, to_channels
from vit_jax.data.images.decode import Box, Encoded, pixels, scaled, size_of
from vit_jax.data.images.opencv import opencv
from vit_jax.data.images.resampling import Resample, resize
from vit_jax.errors import InputError

OBJECT_FIELDS = ("boxes", "box_label", "masks", "keypoints")
IGNORED = -1  # of a segmentation: what does not count
PADDING_MODES = ("constant", "reflect")
DEFAULT = Resample()

Window = tuple[float, float, float, float]  # left, top, right, bottom; may leave the image


class Motion(NamedTuple):
    """One movement, as each kind of field needs it.

    Attributes:
      size: (H, W) afterwards.
      image: uint8[h,w,c], or encoded, -> uint8[H,W,c].
      labels: [h,w] and the value outside -> [H,W], of any type.
      points: f64[...,2], x and y, -> the same, moved.
    """

    size: tuple[int, int]
    image: Callable[[np.ndarray | Encoded], np.ndarray]
    labels: Callable[[np.ndarray, int], np.ndarray]
    points: Callable[[np.ndarray], np.ndarray]


def crop_and_resize(
    example: Example,
    box: Box,
    size: tuple[int, int],
    resample: Resample = DEFAULT,
    *,
    channels: int | None = None,
    min_visible: float = 0.0,
    scaled_decode: bool = False,
) -> Example:
    """Cuts a box out and resizes it; an image that is still encoded is decoded there alone.

    Args:
      example: with any of the fields above.
      box: whole pixels inside of the image.
      size: (H, W) of the result.
      resample: how the image is resized; labels of pixels take the nearest.
      channels: of the result; None keeps them.
      min_visible: see the top of this file.
      scaled_decode: whether a JPEG may be decoded at a half, quarter or eighth of its size where
        that still is `size` or more: faster, and nearly the same pixels. Pillow's kernels alone.
    """

    def image(whole: np.ndarray | Encoded) -> np.ndarray:
        part, inner = scaled(whole, box, size) if scaled_decode else (pixels(whole, box), None)
        kernel, antialias = resample
        part = fewer_channels(part, channels)
        resized = resize(part, size, kernel, antialias=antialias, box=inner)
        return resized if channels is None else to_channels(resized, channels)

    window = (box.left, box.top, box.left + box.width, box.top + box.height)
    return move(example, window_motion(window, size, image), min_visible=min_visible)


def flip(example: Example, *, keypoint_order: Sequence[int] | None = None) -> Example:
    """Mirrors left and right.

    Args:
      example: with any of the fields above.
      keypoint_order: k positions: which keypoint takes the place of each, since what was a left
        hand is a right one in the mirror; None keeps the order.
    """
    h, w = example_size(example)
    motion = Motion(
        size=(h, w),
        image=lambda image: mirrored(pixels(image)),
        labels=lambda plane, _: plane[:, ::-1],
        points=lambda xy: xy * (-1, 1) + (w, 0),
    )
    flipped = move(example, motion)
    if keypoint_order is not None and "keypoints" in flipped:
        flipped["keypoints"] = flipped["keypoints"][:, list(keypoint_order)]
    return flipped


def mirrored(image: np.ndarray) -> np.ndarray:
    """uint8[h,w,c], left and right exchanged."""
    # As a reversed view it would be copied into the batch byte by byte: 440 us at 224x224, not 7.
    return opencv().flip(image, 1).reshape(image.shape)


def pad(
    example: Example,
    *,
    left: int,
    top: int,
    right: int,
    bottom: int,
    fill: tuple[int, ...] | int = 0,
    mode: str = "constant",
) -> Example:
    """Adds pixels on each side, of one colour or mirrored at the edge; labels do not count there.

    Args:
      example: with any of the fields above.
      left, top, right, bottom: pixels of each side.
      fill: for 'constant', one value or one a channel.
      mode: 'constant' or 'reflect'.
    """
    h, w = example_size(example)
    window, size = (-left, -top, w + right, h + bottom), (h + top + bottom, w + left + right)

    def image(whole: np.ndarray | Encoded) -> np.ndarray:
        whole, sides = pixels(whole), ((top, bottom), (left, right), (0, 0))
        if mode == "reflect":
            return np.pad(whole, sides, mode="reflect")
        padded = np.empty((*size, whole.shape[2]), np.uint8)
        padded[:] = fill
        padded[top : top + h, left : left + w] = whole
        return padded

    sections.choose(dict.fromkeys(PADDING_MODES), mode, where="mode")
    return move(example, window_motion(window, size, image))


def window_motion(
    window: Window, size: tuple[int, int], image: Callable[[np.ndarray | Encoded], np.ndarray]
) -> Motion:
    """What shows `window` of the image at size = (H, W); `image` does so for the image itself."""
    left, top, right, bottom = window
    scale = np.array([size[1] / (right - left), size[0] / (bottom - top)])

    def labels(plane: np.ndarray, outside: int) -> np.ndarray:
        rows, columns = _centres(top, bottom, size[0]), _centres(left, right, size[1])
        return warp.read(plane, rows[:, None], columns[None], outside)

    return Motion(size, image, labels, lambda xy: (xy - (left, top)) * scale)


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
    forward = _inverse(warp.continuous(matrix, law))
    motion = Motion(
        size=example_size(example),
        image=lambda image: warp.warp_image(
            pixels(image), matrix, law=law, resample=resample, fill=fill
        ),
        labels=lambda plane, outside: warp.warp_labels(plane, matrix, law=law, fill=outside),
        points=lambda xy: xy @ forward[:, :2].T + forward[:, 2],
    )
    return move(example, motion, min_visible=min_visible)


def move(example: Example, motion: Motion, *, min_visible: float = 0.0) -> Example:
    """Applies one movement to every field that lives in the image's coordinates."""
    moved = dict(example)
    if "image" in example:
        moved["image"] = motion.image(example["image"])
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


def _centres(start: float, stop: float, n: int) -> np.ndarray:
    """int64[n], the pixels in which the centres of n equal parts of start to stop lie.

    Added up one by one, and from zero where whole pixels are cut, as Pillow does, so that a
    centre between two pixels falls to the same.
    """
    offset = int(start) if float(start).is_integer() else 0
    step = (stop - start) / n
    places = np.full(n, step)
    places[0] = start - offset + step * 0.5
    return offset + np.floor(np.add.accumulate(places)).astype(np.int64)


def example_size(example: Example) -> tuple[int, int]:
    """(h, w) of the image, or of the frames of the video."""
    return size_of(example["image"]) if "image" in example else example["video"].shape[1:3]
