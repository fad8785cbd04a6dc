"""Random height maps that look like clouds, and like frost.

Letters: h, w = height, width; s side.
"""

import numpy as np

_AMPLITUDE = 100.0  # of the first step; heights are brought to 0..1 at the end
# Of the five photographs that the published generator draws from (see `frost_texture`), as shares
# of white: the range of their means, their mean standard deviation, and each channel by the mean.
_LEVELS = (0.45, 0.82)
_DEVIATION = 0.11
_TINT = (0.90, 1.02, 1.08)


def cloud(height: int, width: int, rng: np.random.Generator, *, decay: float) -> np.ndarray:
    """Fractal heights f64[h, w] in 0..1 by diamonds and squares (Fournier et al. 1982).

    On a torus whose side is the next power of two, squares of s pixels get a height in their
    middle, the mean of their corners and a random number; then so do the edges between. s is
    halved, the numbers become `decay` times smaller, and so on; the smaller the decay, the rougher.
    The random part goes with the square of the amplitude, as it does in the published generator.
    """
    side = 1 << max(1, (max(height, width) - 1).bit_length())
    heights, step, amplitude = np.zeros((side, side)), side, _AMPLITUDE

    def between(total):
        return total / 4 + amplitude * rng.uniform(-amplitude, amplitude, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[::step, ::step]
        pairs = corners + np.roll(corners, -1, axis=0)
        heights[half::step, half::step] = between(pairs + np.roll(pairs, -1, axis=1))
        middles = heights[half::step, half::step]
        upper = corners + np.roll(corners, -1, axis=1) + middles + np.roll(middles, 1, axis=0)
        left = corners + np.roll(corners, -1, axis=0) + middles + np.roll(middles, 1, axis=1)
        heights[::step, half::step] = between(upper)
        heights[half::step, ::step] = between(left)
        step, amplitude = half, amplitude / decay
    heights -= heights.min()
    return (heights / heights.max())[:height, :width]


def frost_texture(height: int, width: int, channels: int, rng: np.random.Generator) -> np.ndarray:
    """Bluish white crystals, f64[h, w, c] in 0..255.

    Not the published ones: those are crops of five photographs, which are no part of this project.
    Crests of fractal heights stand for the crystals; overall brightness, contrast and tint are
    drawn like those of the photographs.
    """
    crests = (1 - abs(2 * cloud(height, width, rng, decay=1.3) - 1)) ** 2
    crests = (crests - crests.mean()) / max(crests.std(), np.finfo(np.float64).eps)
    grey = rng.uniform(*_LEVELS) + _DEVIATION * crests
    tint = np.ones(1) if channels == 1 else np.array(_TINT)
    return np.clip(255 * grey[..., None] * tint, 0, 255)
