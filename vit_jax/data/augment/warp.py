"""Affine resampling of arrays, as Pillow and as TensorFlow do it.

Both read, for each pixel of the result, the place in the input that a matrix names. They differ
in four ways, which `law` chooses between:

                       'pillow'                          'tensorflow'
    coordinates        pixel j has its centre at j + .5  pixel j has its centre at j
    nearest            the pixel that the place is in    the place rounded, .5 away from zero
    edges of bilinear  the edge pixel goes on            blended with the fill
    to integers        rounded                           cut off

The first is `Image.transform` with AFFINE; the second ImageProjectiveTransformV3, which
big_vision and the original RandAugment (arXiv:1909.13719) call through TensorFlow Addons.

Letters: h, w, c = height, width, channels.
"""

import numpy as np
from PIL import Image

from vit_jax import sections
from vit_jax.errors import InputError

PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
TENSORFLOW = ("nearest", "bilinear")


def warp_image(
    image: np.ndarray, matrix: np.ndarray, *, law: str, resample: str, fill: tuple[int, ...] | int
) -> np.ndarray:
    """uint8[h,w,c] read at the places that `matrix` names.

    Args:
      image: uint8[h,w,c].
      matrix: f64[2,3], from x, y, 1 of the result to x, y of the input.
      law: 'pillow' or 'tensorflow'; it also says what the coordinates mean.
      resample: 'nearest', 'bilinear', or with Pillow 'bicubic'.
      fill: what lies outside of the image, one value or one a channel.

    Raises:
      InputError: for an unknown law, or an interpolation that it lacks.
    """
    function = sections.choose({"pillow": _pillow, "tensorflow": _tensorflow}, law, where="law")
    return function(image, np.asarray(matrix, np.float64), resample, _per_channel(fill, image))


def warp_labels(labels: np.ndarray, matrix: np.ndarray, *, law: str, fill: int) -> np.ndarray:
    """[h,w] of any type, read where `warp_image` with 'nearest' reads."""
    matrix = np.asarray(matrix, np.float64)
    if law == "tensorflow":
        return read(labels, *_tensorflow_nearest(labels.shape, matrix), fill)
    # Pillow moves positions, so that its own arithmetic picks the pixel.
    positions = np.arange(labels.size, dtype=np.int32).reshape(labels.shape)
    moved = _pillow_plane(positions, matrix, PILLOW["nearest"], -1)
    found = labels.ravel()[np.maximum(moved, 0)]
    found[moved < 0] = fill
    return found


def continuous(matrix: np.ndarray, law: str) -> np.ndarray:
    """The matrix in coordinates where pixel j covers j to j + 1, those of boxes and Pillow."""
    if law == "pillow":
        return np.asarray(matrix, np.float64)
    linear, offset = np.asarray(matrix, np.float64)[:, :2], np.asarray(matrix)[:, 2]
    return np.column_stack([linear, offset + 0.5 - linear @ (0.5, 0.5)])


def _pillow(
    image: np.ndarray, matrix: np.ndarray, resample: str, fill: tuple[int, ...]
) -> np.ndarray:
    kernel = sections.choose(PILLOW, resample, where="resample")
    if image.shape[2] == 3:
        return _pillow_plane(image, matrix, kernel, fill)
    # One by one, because Pillow knows no other numbers of channels without alpha.
    planes = [_pillow_plane(image[..., k], matrix, kernel, fill[k]) for k in range(len(fill))]
    return np.stack(planes, axis=-1)


def _pillow_plane(
    plane: np.ndarray, matrix: np.ndarray, kernel: int, fill: tuple[int, ...] | int
) -> np.ndarray:
    """What Pillow can hold: uint8[h,w], uint8[h,w,3] or int32[h,w]."""
    size, data = (plane.shape[1], plane.shape[0]), tuple(matrix.ravel().tolist())
    image = Image.fromarray(np.ascontiguousarray(plane))
    return np.asarray(image.transform(size, Image.Transform.AFFINE, data, kernel, fillcolor=fill))


def _tensorflow(
    image: np.ndarray, matrix: np.ndarray, resample: str, fill: tuple[int, ...]
) -> np.ndarray:
    sections.choose(dict.fromkeys(TENSORFLOW), resample, where="resample with law='tensorflow'")
    colour = np.array(fill, np.uint8)
    if resample == "nearest":
        return read(image, *_tensorflow_nearest(image.shape[:2], matrix), colour)
    x, y = _tensorflow_places(image.shape[:2], matrix)
    left, top = np.floor(x), np.floor(y)
    right, low = (x - left)[..., None], (y - top)[..., None]
    rows, columns = top.astype(np.int64), left.astype(np.int64)

    def line(row: np.ndarray) -> np.ndarray:
        return (1 - right) * read(image, row, columns, colour) + right * read(
            image, row, columns + 1, colour
        )

    return ((1 - low) * line(rows) + low * line(rows + 1)).astype(np.uint8)


def _tensorflow_nearest(size: tuple[int, int], matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """int64[h,w] rows and columns, which may lie outside."""
    x, y = _tensorflow_places(size, matrix)
    return _round_away(y), _round_away(x)


def _tensorflow_places(size: tuple[int, int], matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f32[h,w] x and y, in TensorFlow's precision, so that ties fall as there."""
    grid = np.meshgrid(np.arange(size[1], dtype=np.float32), np.arange(size[0], dtype=np.float32))
    (a, b, c), (d, e, f) = np.asarray(matrix, np.float32)
    x, y = grid
    return a * x + b * y + c, d * x + e * y + f


def _round_away(value: np.ndarray) -> np.ndarray:
    """Nearest whole number, halves away from zero; in f64, where adding a half is exact."""
    value = value.astype(np.float64)
    return np.trunc(value + np.copysign(0.5, value)).astype(np.int64)


def read(
    array: np.ndarray, rows: np.ndarray, columns: np.ndarray, fill: np.ndarray | int
) -> np.ndarray:
    """array[rows, columns], and `fill` outside of it."""
    h, w = array.shape[:2]
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    found = array[np.clip(rows, 0, h - 1), np.clip(columns, 0, w - 1)]
    found[~inside] = fill
    return found


def _per_channel(fill: tuple[int, ...] | int, image: np.ndarray) -> tuple[int, ...]:
    values = (fill,) if np.isscalar(fill) else tuple(fill)
    if len(values) not in (1, image.shape[2]):
        raise InputError(
            f"fill has {len(values)} values; it must be one, or one for each of the "
            f"{image.shape[2]} channels."
        )
    return tuple(int(v) for v in (values * image.shape[2] if len(values) == 1 else values))
