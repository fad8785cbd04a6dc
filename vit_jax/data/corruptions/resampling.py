"""Smoothing, zooming and moving of images, as the published corruptions do them.

Letters: h, w, c = height, width, channels.
"""

import math

import numpy as np

_CUT = 4.0  # standard deviations after which a Gaussian is cut off


def smooth(
    image: np.ndarray, sigma: float, *, border: str = "nearest", truncate: float = _CUT
) -> np.ndarray:
    """Gaussian blur along both axes of [h, w] or [h, w, c]: scikit-image's `filters.gaussian`."""
    from scipy import ndimage  # slow to import

    sigmas = (sigma, sigma, 0)[: image.ndim]
    return ndimage.gaussian_filter(image, sigmas, mode=border, truncate=truncate)


def zoom(image: np.ndarray, factor: float) -> np.ndarray:
    """The middle of [h, w, c], linearly enlarged to the size of the whole."""
    from scipy import ndimage

    height, width = image.shape[:2]
    rows, columns = math.ceil(height / factor), math.ceil(width / factor)
    top, left = (height - rows) // 2, (width - columns) // 2
    part = image[top : top + rows, left : left + columns]
    # To the nearest pixel, which may be one too few: what lies beyond is the edge.
    large = ndimage.zoom(part, (factor, factor, 1), order=1)
    missing = [(0, max(0, height - large.shape[0])), (0, max(0, width - large.shape[1])), (0, 0)]
    large = np.pad(large, missing, mode="edge")
    top, left = (large.shape[0] - height) // 2, (large.shape[1] - width) // 2
    return large[top : top + height, left : left + width]


def blur_along(image: np.ndarray, *, radius: int, sigma: float, angle: float) -> np.ndarray:
    """What is seen of [h, w, c] while it moves: ImageMagick's `MotionBlurImage`.

    The weights are one half of a Gaussian over 2 * radius + 1 steps; step i reads the pixel that
    lies i pixels away in the direction of `angle`, in degrees, and the edge goes on beyond the
    image.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    down = np.ceil(steps * math.sin(math.radians(angle)) - 0.5).astype(int)
    right = np.ceil(steps * math.cos(math.radians(angle)) - 0.5).astype(int)
    reach, (height, width) = len(steps), image.shape[:2]
    padded = np.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    blurred = np.zeros(image.shape, np.float64)
    for weight, i, j in zip(weights, down + reach, right + reach, strict=True):
        blurred += weight * padded[i : i + height, j : j + width]
    return blurred
