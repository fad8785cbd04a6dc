"""Noise: electronic, of few photons, of broken pixels, and the kind that grows with brightness.

Letters: h, w, c = height, width, channels. For the form of all see the top of `__init__.py`.
"""

import numpy as np


def gaussian_noise(image: np.ndarray, rng: np.random.Generator, *, deviation: float) -> np.ndarray:
    """Added to each value; a deviation of 1 is that of black to white."""
    return image + 255 * rng.normal(scale=deviation, size=image.shape)


def shot_noise(image: np.ndarray, rng: np.random.Generator, *, photons: float) -> np.ndarray:
    """Each value is counted; white is so many photons on average."""
    return 255 * rng.poisson(image / 255 * photons) / photons


def impulse_noise(image: np.ndarray, rng: np.random.Generator, *, share: float) -> np.ndarray:
    """A share of the values becomes 0 or 255, either as often."""
    is_broken, is_white = rng.random(image.shape) <= share, rng.random(image.shape) <= 0.5
    return np.where(is_broken, 255.0 * is_white, image)


def speckle_noise(image: np.ndarray, rng: np.random.Generator, *, deviation: float) -> np.ndarray:
    """Added in proportion to each value."""
    return image * (1 + rng.normal(scale=deviation, size=image.shape))
