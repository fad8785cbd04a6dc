"""Weather: snow, frost, fog, brightness, and splashes of water or mud.

Letters: h, w, c = height, width, channels. For the form of all see the top of `__init__.py`.
"""

import numpy as np

from vit_jax.data.corruptions.resampling import blur_along, smooth, zoom
from vit_jax.data.corruptions.textures import cloud, frost_texture
from vit_jax.data.images.opencv import opencv

_LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue (ITU-R BT.601)
_WATER = np.array([175, 238, 238]) / 255  # pale turquoise
_MUD = np.array([63, 42, 20]) / 255  # brown
_RIDGES = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])  # lit from the upper left


def snow(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    mean: float,
    deviation: float,
    enlarged: float,
    threshold: float,
    radius: int,
    sigma: float,
    kept: float,
) -> np.ndarray:
    """Flakes that fall, over an image that is whitened to the share 1 - kept.

    The flakes are the Gaussian noise above a threshold, enlarged, then blurred along a direction
    within 45 degrees of the vertical; they are added once upright and once upside down.
    """
    pixels = image / 255
    noise = rng.normal(mean, deviation, size=image.shape[:2])[..., None]
    flakes = zoom(noise, enlarged)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    fallen = blur_along(flakes, radius=radius, sigma=sigma, angle=rng.uniform(-135, -45))
    fallen = np.round(fallen * 255) / 255
    whitened = np.maximum(pixels, _grey(pixels) * 1.5 + 0.5)
    return 255 * (kept * pixels + (1 - kept) * whitened + fallen + np.rot90(fallen, 2))


def frost(image: np.ndarray, rng: np.random.Generator, *, kept: float, added: float) -> np.ndarray:
    """A texture of frost is added; not one of the published ones, see `textures.frost_texture`."""
    return kept * image + added * frost_texture(*image.shape, rng)


def fog(image: np.ndarray, rng: np.random.Generator, *, added: float, decay: float) -> np.ndarray:
    """A cloud is added, and the whole made as dark again as the image was."""
    brightest = image.max() / 255
    fogged = image / 255 + added * cloud(*image.shape[:2], rng, decay=decay)[..., None]
    return 255 * fogged * brightest / (brightest + added)


def brightness(image: np.ndarray, rng: np.random.Generator, *, added: float) -> np.ndarray:
    """The V of HSV, a pixel's largest channel, grows; hue and saturation stay."""
    del rng
    value = image.max(axis=2, keepdims=True) / 255
    grown = np.clip(value + added, 0, 1)
    return np.where(value > 0, image * (grown / np.where(value > 0, value, 1)), 255 * grown)


def spatter(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    mean: float,
    deviation: float,
    sigma: float,
    threshold: float,
    strength: float,
    is_mud: bool,
) -> np.ndarray:
    """Drops of water that shine, or of mud that hides what is below.

    They are where smoothed Gaussian noise is above a threshold.
    """
    noise = rng.normal(mean, deviation, size=image.shape[:2])
    liquid = smooth(noise, sigma)
    liquid = np.where(liquid < threshold, 0, liquid)
    pixels = image / 255
    if is_mud:
        cover = smooth((liquid > threshold).astype(np.float32), strength)[..., None]
        cover = np.where(cover < 0.8, 0, cover)
        return 255 * (pixels * (1 - cover) + cover * _as_channels(_MUD, image))
    return 255 * (pixels + strength * _shine(liquid)[..., None] * _as_channels(_WATER, image))


def _shine(liquid: np.ndarray) -> np.ndarray:
    """f64[h, w] in 0..1: how much light the drops throw, most along their lower right edges."""
    cv2, levels = opencv(), (liquid * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(levels, 50, 150), cv2.DIST_L2, 5)
    near = cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8)
    relief = cv2.filter2D(cv2.equalizeHist(near), cv2.CV_8U, _RIDGES)
    light = levels * cv2.blur(relief, (3, 3)).astype(np.float64)
    return light / max(light.max(), 1)


def _grey(pixels: np.ndarray) -> np.ndarray:
    """[h, w, 1]"""
    return pixels if pixels.shape[2] == 1 else (pixels @ _LUMA)[..., None]


def _as_channels(colour: np.ndarray, image: np.ndarray) -> np.ndarray:
    """A colour, or its luma for a grey image."""
    return colour if image.shape[2] == 3 else np.array([colour @ _LUMA])
