"""Blur: out of focus, through frosted glass, of motion, of zooming in, and Gaussian.

Letters: h, w, c = height, width, channels. For the form of all see the top of `__init__.py`.
"""

import itertools

import numpy as np

from vit_jax.data.corruptions.resampling import blur_along, smooth, zoom
from vit_jax.data.images.opencv import opencv

_SMALL_DISK = 8  # pixels of radius; the kernel is no smaller, and blurred less


def gaussian_blur(image: np.ndarray, rng: np.random.Generator, *, sigma: float) -> np.ndarray:
    del rng
    return 255 * smooth(image / 255, sigma)


def defocus_blur(
    image: np.ndarray, rng: np.random.Generator, *, radius: float, soft: float
) -> np.ndarray:
    """Each point becomes a disk, whose border is softened by a Gaussian of `soft` pixels."""
    del rng
    cv2 = opencv()
    reach = np.arange(-max(_SMALL_DISK, radius), max(_SMALL_DISK, radius) + 1)
    disk = (reach**2 + reach[:, None] ** 2 <= radius**2).astype(np.float32)
    side = 3 if radius <= _SMALL_DISK else 5
    kernel = cv2.GaussianBlur(disk / disk.sum(), ksize=(side, side), sigmaX=soft)
    return 255 * cv2.filter2D(image / 255, -1, kernel).reshape(image.shape)


def glass_blur(
    image: np.ndarray, rng: np.random.Generator, *, sigma: float, reach: int, rounds: int
) -> np.ndarray:
    """Pixels take the colours of neighbours, between two Gaussian blurs.

    Row by row from below, each pixel takes what a random one up to `reach` pixels away has by
    then. (The published program means to exchange the two, but both names stand for the same
    memory when the second is written.)
    """
    height, width, channels = image.shape
    blurred = (255 * smooth(image / 255, sigma)).astype(np.uint8)
    rows, columns = range(height - reach, reach, -1), range(width - reach, reach, -1)
    places = [i * width + j for i, j in itertools.product(rows, columns)]
    taken = list(range(height * width))  # of a list, since NumPy is slow with single numbers
    for _ in range(rounds):
        right, down = rng.integers(-reach, reach, size=(len(places), 2)).T
        for place, step in zip(places, (down * width + right).tolist(), strict=True):
            taken[place] = taken[place + step]
    shuffled = blurred.reshape(-1, channels)[taken].reshape(image.shape)
    return 255 * smooth(shuffled / 255, sigma)


def motion_blur(
    image: np.ndarray, rng: np.random.Generator, *, radius: int, sigma: float
) -> np.ndarray:
    """Along a random direction within 45 degrees of the horizontal."""
    return blur_along(image, radius=radius, sigma=sigma, angle=rng.uniform(-45, 45))


def zoom_blur(
    image: np.ndarray, rng: np.random.Generator, *, stop: float, step: float
) -> np.ndarray:
    """The mean of the image and of itself enlarged 1, 1 + step, ... times, to below `stop`."""
    del rng
    pixels = image.astype(np.float32)
    factors = np.arange(1, stop, step)
    return (pixels + sum(zoom(pixels, factor) for factor in factors)) / (len(factors) + 1)
