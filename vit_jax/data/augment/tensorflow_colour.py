"""Photometric operations as big_vision computes them with TensorFlow, to the bit.

The law is that of big_vision/pp/autoaugment.py, with which the AugReg models (arXiv:2106.10270)
were trained; it comes from TensorFlow's TPU models. Each is `f(image, setting) -> image` on
uint8[h,w,c], c = 1 or 3. What follows Pillow's rule exactly is not repeated here. Its mistakes are
kept, since weights were trained with them; each is named where it is made.

TensorFlow knows these only for c = 3. For c = 1 the luma is the image itself.

Letters: h, w, c = height, width, channels.
"""

import numpy as np

from vit_jax.data.augment.colour import FLOATS, VALUES, blend, blended, by_histogram, look_up, three
from vit_jax.data.images.opencv import opencv

# tf.image.rgb_to_grayscale: weights of BT.601 in four digits, on values in [0, 1].
_LUMA = np.outer(FLOATS * (np.float32(1) / np.float32(255)), np.ones(3, np.float32)) * np.array(
    (0.2989, 0.5870, 0.1140), np.float32
)


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Keeps the `bits` highest bits of each value, but at least one.

    2026-11: TensorFlow shifts a byte by 7 at most, so that 0 bits keep one; and it takes the
    shift as a byte, so that bits above 8 (levels above 20) also keep one.
    """
    shift = min((8 - bits) % 256, 7)
    return image & np.uint8(256 - (1 << shift))


def solarize(image: np.ndarray, threshold: int) -> np.ndarray:
    """Inverts the values at or above threshold modulo 256.

    2026-11: the threshold becomes a byte, see big_vision issue 110. The AugReg levels depend on
    it: magnitudes 0, 10 and 20 (0, 256, 512) invert all, magnitude 15 (384) those from 128.
    """
    return look_up(image, np.where(threshold % 256 > VALUES, VALUES, 255 - VALUES))


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Stretches each channel so that its least value is 0 and its greatest 255; in float32."""

    def table(counts: np.ndarray) -> np.ndarray:
        low, high = np.flatnonzero(counts)[[0, -1]].astype(np.float32)
        if low == high:
            return VALUES
        scale = np.float32(255) / (high - low)
        return np.clip(FLOATS * scale + -low * scale, 0, 255)

    return by_histogram(image, table)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from one grey that depends on the image's size alone: h * w / 256, up to 255.

    2026-11: it should be the mean of the luma, but the histogram's counts are summed without the
    values, see big_vision issue 109. For 224 x 224 pixels the grey is 196.
    """
    grey = np.float32(int(min(image.shape[0] * image.shape[1] / 256, 255)))
    return look_up(image, blended(grey, FLOATS, factor))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from the luma: 0 is grey, 1 the image; it is called Color there."""
    if image.shape[2] == 1:
        return image
    # Pillow's blend is TensorFlow's, too, and thrice as fast as NumPy's.
    return blend(three(luma(image)), image, factor)


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends from a smoothed image: 0 is that, 1 the image, 2 sharper; borders stay."""
    return blend(smoothed(image), image, factor)


def luma(image: np.ndarray) -> np.ndarray:
    """uint8[h,w,3] -> uint8[h,w,1] by tf.image.rgb_to_grayscale, equal for each of 2^24 colours."""
    planes = opencv().LUT(image, _LUMA[None])
    total = planes[..., :1] + planes[..., 1:2] + planes[..., 2:]  # in this order
    return (total * np.float32(255.5)).astype(np.uint8)


def smoothed(image: np.ndarray) -> np.ndarray:
    """The weighted mean of 3 x 3 pixels, the middle one five times, cut; borders stay.

    The thirteenths are float32 and cut, so in an even area the result is the value or one less.
    That hangs on rounding; cv2 adds in TensorFlow's order, with the same result to the bit where
    both have fused multiply-add (every x86 server since 2013).
    """
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / np.float32(13)
    mean = opencv().filter2D(image.astype(np.float32), opencv().CV_32F, kernel).reshape(image.shape)
    result = image.copy()
    result[1:-1, 1:-1] = mean[1:-1, 1:-1].astype(np.uint8)
    return result


def cutout(image: np.ndarray, half: int, centre: tuple[int, int], fill: int) -> np.ndarray:
    """Fills a square of side 2 * half around the pixel `centre`, cut at the border.

    arXiv:1708.04552, with a grey in place of black.
    """
    row, column = centre
    result = image.copy()
    result[max(row - half, 0) : row + half, max(column - half, 0) : column + half] = fill
    return result
