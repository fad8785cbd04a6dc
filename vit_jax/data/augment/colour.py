"""Photometric operations as Pillow computes them, the law of torchvision and of timm.

Each is `f(image, setting) -> image` on uint8[h,w,c], c = 1 or 3, and bit-identical to Pillow's
ImageOps or ImageEnhance, which both libraries call. Where a new value depends on the old value of
the same channel alone, it is looked up in a table of 256 entries, which is several times faster.

A grey image (c = 1) has no saturation and no hue: both leave it as it is.

Letters: h, w, c = height, width, channels.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFilter

from vit_jax.data.images.opencv import opencv

VALUES = np.arange(256)
FLOATS = VALUES.astype(np.float32)


def invert(image: np.ndarray) -> np.ndarray:
    """255 - value."""
    return 255 - image


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the `bits` highest bits of each value; all from 8 on.

    0 and less make the image black, as timm's levels ask for: Pillow 13 refuses that, which older
    ones did.
    """
    dropped = min(max(8 - bits, 0), 8)
    return image & np.uint8(256 - (1 << dropped))


def solarize(image: np.ndarray, threshold: float) -> np.ndarray:
    """Inverts the values at or above `threshold`."""
    return look_up(image, np.where(threshold > VALUES, VALUES, 255 - VALUES))


def solarize_add(image: np.ndarray, addition: int) -> np.ndarray:
    """Adds to the values below 128, up to 255; timm's and TensorFlow's alike."""
    return look_up(image, np.where(VALUES < 128, np.minimum(VALUES + addition, 255), VALUES))


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel so that its least value is 0 and its greatest 255."""

    def table(counts: np.ndarray) -> np.ndarray:
        low, high = np.flatnonzero(counts)[[0, -1]].tolist()
        if low == high:
            return VALUES
        scale = 255.0 / (high - low)
        return np.clip(np.trunc(VALUES * scale + -low * scale), 0, 255)

    return by_histogram(image, table)


def equalize(image: np.ndarray) -> np.ndarray:
    """Flattens each channel's histogram, in whole numbers; TensorFlow's rule is the same."""

    def table(counts: np.ndarray) -> np.ndarray:
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        if step == 0:
            return VALUES
        below = np.cumsum(counts) - counts
        return np.minimum((below + step // 2) // step, 255)

    return by_histogram(image, table)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from black: 0 is black, 1 the image."""
    return look_up(image, blended(np.float32(0), FLOATS, factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from one grey, the rounded mean of the luma: 0 is that grey, 1 the image."""
    counts = _histogram(luma(image))
    mean = int(float(counts @ VALUES) / counts.sum() + 0.5)
    return look_up(image, blended(np.float32(mean), FLOATS, factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from the luma: 0 is grey, 1 the image; ImageEnhance calls it Color."""
    if image.shape[2] == 1:
        return image
    return blend(three(luma(image)), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from a smoothed image: 0 is that, 1 the image, 2 sharper; borders stay."""
    # Pillow rounds thirteenths, which are never halves, so whole numbers do; eight times as fast.
    return blend(smoothed(image, rounding=6), image, factor)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Turns the hue by `shift` of a full turn, -0.5 to 0.5, in Pillow's HSV of 256 hues.

    The shift is cut to whole hues toward zero, as in torchvision.
    """
    if image.shape[2] == 1:
        return image
    hsv = np.array(to_pillow(image).convert("HSV"))
    hsv[..., 0] += np.uint8(int(shift * 255) % 256)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))


def grayscale(image: np.ndarray) -> np.ndarray:
    """The luma in each channel."""
    return image if image.shape[2] == 1 else three(luma(image))


def gaussian_blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Pillow's blur of standard deviation `radius` in pixels, an approximation by three boxes."""
    return to_array(to_pillow(image).filter(ImageFilter.GaussianBlur(radius)))


def luma(image: np.ndarray) -> np.ndarray:
    """uint8[h,w,c] -> uint8[h,w,1]: ITU-R BT.601 as in Pillow's mode 'L'; grey is itself."""
    if image.shape[2] == 1:
        return image
    return np.asarray(to_pillow(image).convert("L"))[..., None]


def look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """table[image]: a table of [256] serves every channel, one of [256, c] each its own."""
    table = np.ascontiguousarray(table, np.uint8).reshape(1, 256, -1)
    if table.shape[2] == 1:  # one long row, because cv2 looks up one channel fastest
        return opencv().LUT(np.ascontiguousarray(image).reshape(1, -1), table).reshape(image.shape)
    return opencv().LUT(image, table).reshape(image.shape)


def blended(start: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    """uint8 of start + factor * (end - start), float32 cut toward zero, limited to 0..255.

    Pillow and big_vision both cut where rounding would be expected.
    """
    factor = np.float32(factor)
    return np.clip(start + factor * (end - start), 0, 255).astype(np.uint8)


def smoothed(image: np.ndarray, *, rounding: int) -> np.ndarray:
    """(sum of the 3x3 neighbours, the middle five times, + rounding) // 13; borders stay."""
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32)
    total = (
        opencv().filter2D(np.ascontiguousarray(image), opencv().CV_16S, kernel).reshape(image.shape)
    )
    result = image.copy()
    result[1:-1, 1:-1] = (total[1:-1, 1:-1] + np.int16(rounding)) // np.int16(13)
    return result


def to_pillow(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)


def to_array(image: Image.Image) -> np.ndarray:
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def blend(start: np.ndarray, end: np.ndarray, factor: float) -> np.ndarray:
    """`blended` of two images uint8[h,w,c]."""
    return to_array(Image.blend(to_pillow(start), to_pillow(end), factor))


def three(plane: np.ndarray) -> np.ndarray:
    """uint8[h,w,1] -> uint8[h,w,3], in a tenth of the time of np.repeat."""
    return opencv().cvtColor(plane, opencv().COLOR_GRAY2RGB)


def by_histogram(image: np.ndarray, table: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Each channel through the table that its own histogram gives."""
    tables = [table(_histogram(image, k)) for k in range(image.shape[2])]
    return look_up(image, np.stack(tables, axis=-1))


def _histogram(image: np.ndarray, channel: int = 0) -> np.ndarray:
    """How often each value is in one channel, int64[256]."""
    # Counted in whole numbers, then handed out as float32, which is exact to 16 million pixels.
    counts = opencv().calcHist([image], [channel], None, [256], [0, 256])
    return counts.reshape(-1).astype(np.int64)
