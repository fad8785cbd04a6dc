"""One corruption of an image: the same for the same pixels, wherever and whenever it is made.

Random numbers come from a hash of the image's bytes, the corruption's name and its severity, so
that neither hosts nor workers nor the order of examples matter. (The published data sets were
drawn once, and those of ImageNet stored as JPEGs of quality 85; here nothing is stored or
compressed.)

Letters: h, w, c = height, width, channels.
"""

import dataclasses
import hashlib
from collections.abc import Callable

import numpy as np

from vit_jax import sections
from vit_jax.data.corruptions import blur, digital, noise, weather
from vit_jax.data.corruptions.settings import SEVERITIES, settings_of
from vit_jax.data.examples import Example
from vit_jax.errors import InputError

COMMON: dict[str, Callable[..., np.ndarray]] = {
    "gaussian_noise": noise.gaussian_noise,
    "shot_noise": noise.shot_noise,
    "impulse_noise": noise.impulse_noise,
    "defocus_blur": blur.defocus_blur,
    "glass_blur": blur.glass_blur,
    "motion_blur": blur.motion_blur,
    "zoom_blur": blur.zoom_blur,
    "snow": weather.snow,
    "frost": weather.frost,
    "fog": weather.fog,
    "brightness": weather.brightness,
    "contrast": digital.contrast,
    "elastic_transform": digital.elastic_transform,
    "pixelate": digital.pixelate,
    "jpeg_compression": digital.jpeg_compression,
}
# Which the paper holds back to choose settings by.
EXTRA: dict[str, Callable[..., np.ndarray]] = {
    "speckle_noise": noise.speckle_noise,
    "gaussian_blur": blur.gaussian_blur,
    "spatter": weather.spatter,
    "saturate": digital.saturate,
}
CORRUPTIONS = COMMON | EXTRA


@dataclasses.dataclass(frozen=True)
class Corruption:
    """A transform of preprocessed examples, see `corrupt`."""

    name: str
    severity: int

    def __post_init__(self):
        check(self.name, self.severity)

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        if "image" not in example:
            raise InputError(
                f"{self.name} found an example with {', '.join(example)}; allowed: an image."
            )
        return {**example, "image": corrupt(example["image"], self.name, severity=self.severity)}


def corrupt(
    image: np.ndarray, name: str, *, severity: int, rng: np.random.Generator | None = None
) -> np.ndarray:
    """uint8[h, w, c] of any size, c 1 or 3, corrupted.

    Tested against imagecorruptions 1.1.2 at the settings for 224 pixels: to one grey level with the
    same random numbers, but frost, which is synthetic here, by mean and deviation alone, and
    elastic_transform not at all. Settings for 32 and 64 pixels are transcribed from the published
    generators.

    Args:
      name: of `CORRUPTIONS`.
      severity: 1 to 5; its settings are those of the published size nearest to the image's.
      rng: in place of the numbers that follow from the image.
    """
    make = check(name, severity)
    _check_image(image, name)
    rng = generator(image, name, severity) if rng is None else rng
    height, width = image.shape[:2]
    found = make(image, rng, **settings_of(name, severity, height=height, width=width))
    return np.clip(found, 0, 255).astype(np.uint8)  # cut off, not rounded, as published


def generator(image: np.ndarray, name: str, severity: int) -> np.random.Generator:
    """The random numbers of one image's corruption."""
    key = f"{name} {severity} {image.shape}".encode()
    digest = hashlib.blake2b(np.ascontiguousarray(image).tobytes(), key=key, digest_size=16)
    return np.random.default_rng(int.from_bytes(digest.digest(), "big"))


def check(name: str, severity: int) -> Callable[..., np.ndarray]:
    """The corruption of this name; raises `InputError` where there is no such."""
    is_whole = isinstance(severity, int | np.integer)  # 1.0 is among them, but no place in a list
    if not is_whole or severity not in SEVERITIES:
        raise InputError(f"severity is {severity!r}; allowed: 1 to 5.")
    return sections.choose(CORRUPTIONS, name, where="corruption")


def _check_image(image: np.ndarray, name: str) -> None:
    allowed = "allowed: uint8[h, w, 1 or 3] of one pixel or more."
    if not isinstance(image, np.ndarray):
        raise InputError(f"{name} found a {type(image).__name__}; {allowed}")
    is_image = image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] in (1, 3)
    if not is_image or not image.size:
        raise InputError(f"{name} found an image {image.dtype}{list(image.shape)}; {allowed}")
