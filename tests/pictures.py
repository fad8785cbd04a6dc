"""Small images on which operations can go wrong in different ways."""

import numpy as np


def images(channels=3):
    """Noise, an even image, few values in a narrow range, a smooth one of odd sides."""
    rng = np.random.default_rng(0)
    smooth = np.linspace(3, 240, 41 * 57).reshape(41, 57, 1) * np.linspace(0.4, 1, channels)
    return {
        "noise": rng.integers(0, 256, (32, 48, channels), np.uint8),
        "even": np.full((9, 7, channels), 77, np.uint8),
        "narrow": rng.integers(100, 104, (20, 20, channels), np.uint8),
        "smooth": smooth.astype(np.uint8),
        "tiny": rng.integers(0, 256, (2, 1, channels), np.uint8),
    }
