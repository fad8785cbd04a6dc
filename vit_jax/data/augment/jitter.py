"""Random changes of colour and sharpness, each done with a probability.

The law is torchvision's (ColorJitter, RandomGrayscale, GaussianBlur, RandomSolarize), which timm,
DINO (arXiv:2104.14294) and BYOL (arXiv:2006.07733) use. Every step is `step(example, rng) ->
example`, can be pickled, and treats all frames of a video alike.

Letters: h, w, c = height, width, channels.
"""

import dataclasses
import math

import numpy as np

from vit_jax import sections
from vit_jax.data.augment import colour, operations
from vit_jax.data.examples import Example
from vit_jax.data.images.opencv import opencv
from vit_jax.errors import InputError

MOST_RADIUS = 1000  # pixels; larger ones take long, and then overflow


def draw_jitter(
    rng: np.random.Generator, *, brightness: float, contrast: float, saturation: float, hue: float
) -> tuple[tuple[str, float], ...]:
    """Draws the steps of a colour jitter: (name of a function in `colour.py`, its setting).

    The order is uniform over all. A factor is uniform in (max(0, 1 - x), 1 + x), the hue's shift
    in (-x, x) turns; a strength x of 0 leaves its step out.
    """
    strengths = {
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "hue": hue,
    }
    drawn = []
    for name, strength in strengths.items():
        if strength > 0:
            is_hue = name == "hue"
            low, high = (-strength, strength) if is_hue else (max(0.0, 1 - strength), 1 + strength)
            drawn.append((name, rng.uniform(low, high)))
    return tuple(drawn[k] for k in rng.permutation(len(drawn)))


def apply_jitter(image: np.ndarray, steps: tuple[tuple[str, float], ...]) -> np.ndarray:
    """uint8[h,w,c] with the steps of `draw_jitter` done in their order."""
    for name, setting in steps:
        image = _JITTERS[name](image, setting)
    return image


def kernel_blur(image: np.ndarray, sigma: float, *, kernel_size: int) -> np.ndarray:
    """torchvision's blur: a Gaussian of `sigma` pixels cut to an odd kernel, edges mirrored."""
    places = np.arange(kernel_size) - (kernel_size - 1) / 2
    weights = np.exp(-0.5 * (places / sigma) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    border = opencv().BORDER_REFLECT_101
    blurred = opencv().sepFilter2D(
        image.astype(np.float32), -1, weights, weights, borderType=border
    )
    return np.rint(blurred).astype(np.uint8).reshape(image.shape)


_JITTERS = {
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "saturation": colour.saturation,
    "hue": colour.hue,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColorJitter:
    """See `build_color_jitter`."""

    brightness: float
    contrast: float
    saturation: float
    hue: float
    probability: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        strengths = dataclasses.asdict(self)
        del strengths["probability"]
        return operations.change_values(example, apply_jitter, draw_jitter(rng, **strengths))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grayscale:
    """See `build_grayscale`."""

    probability: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        return operations.change_values(example, colour.grayscale)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GaussianBlur:
    """See `build_gaussian_blur`."""

    probability: float
    min_radius: float
    max_radius: float
    kernel_size: int | None

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        radius = rng.uniform(self.min_radius, self.max_radius)
        if self.kernel_size is None:
            return operations.change_values(example, colour.gaussian_blur, radius)
        size = self.kernel_size
        return operations.change_values(
            example, lambda image: kernel_blur(image, radius, kernel_size=size)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Solarize:
    """See `build_solarize`."""

    probability: float
    threshold: float

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        return operations.change_values(example, colour.solarize, self.threshold)


def build_color_jitter(
    *,
    brightness: float = 0.0,
    contrast: float = 0.0,
    saturation: float = 0.0,
    hue: float = 0.0,
    probability: float = 1.0,
) -> ColorJitter:
    """Brightness, contrast, saturation and hue in random order.

    Args:
      brightness, contrast, saturation: x for a factor uniform in (max(0, 1 - x), 1 + x).
      hue: x for a shift uniform in (-x, x) turns, at most 0.5.
      probability: of doing any of it.

    DINO has 0.4, 0.4, 0.2, 0.1 with probability 0.8; timm and DeiT III 0.4 or 0.3 for the first
    three, always. A grey image has neither saturation nor hue: these change nothing there.

    Raises:
      InputError: for a value out of range, or where all four are 0.
    """
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in strengths.items():
        if not 0 <= value < math.inf:
            raise InputError(f"augment.color_jitter.{name} is {value}; allowed: 0 or more.")
    if not 0 <= hue <= 0.5:
        raise InputError(f"augment.color_jitter.hue is {hue}; allowed: 0 to 0.5 turns.")
    sections.check_probability("augment.color_jitter", probability)
    if not any((*strengths.values(), hue)):
        raise InputError(
            "augment.color_jitter changes nothing: brightness, contrast, saturation and hue are 0; "
            "leave the section out or set one of them."
        )
    return ColorJitter(**strengths, hue=hue, probability=probability)


def build_grayscale(*, probability: float = 0.2) -> Grayscale:
    """Grey with a probability, 0.2 in BYOL and DINO; the channels stay."""
    sections.check_probability("augment.grayscale", probability)
    return Grayscale(probability=probability)


def build_gaussian_blur(
    *,
    probability: float = 0.5,
    min_radius: float = 0.1,
    max_radius: float = 2.0,
    kernel_size: int | None = None,
) -> GaussianBlur:
    """Blur with a standard deviation uniform in (min_radius, max_radius) pixels.

    Args:
      kernel_size: None for Pillow's blur, as in DINO and DeiT III; an odd number for torchvision's
        Gaussian of so many pixels, 23 in BYOL.

    Raises:
      InputError: for a value out of range.
    """
    sections.check_probability("augment.gaussian_blur", probability)
    if not 0 < min_radius <= max_radius <= MOST_RADIUS:
        raise InputError(
            f"augment.gaussian_blur.min_radius and max_radius are {min_radius} and {max_radius}; "
            f"allowed: 0 < min_radius <= max_radius <= {MOST_RADIUS}, in pixels."
        )
    if kernel_size is not None and (kernel_size < 1 or kernel_size % 2 == 0):
        raise InputError(
            f"augment.gaussian_blur.kernel_size is {kernel_size}; allowed: an odd number."
        )
    return GaussianBlur(
        probability=probability,
        min_radius=min_radius,
        max_radius=max_radius,
        kernel_size=kernel_size,
    )


def build_solarize(*, probability: float = 0.2, threshold: float = 128) -> Solarize:
    """Inverts the values from `threshold` on with a probability; DINO's second view has 0.2."""
    sections.check_probability("augment.solarize", probability)
    if not 0 <= threshold <= 255:
        raise InputError(f"augment.solarize.threshold is {threshold}; allowed: 0 to 255.")
    return Solarize(probability=probability, threshold=threshold)
