"""Random augmentations of one uint8[h,w,c] image, each `f(image, rng, *, ...) -> image`.

Every draw comes from the generator passed in, which the pipeline derives from the
example's global index; so an augmented example depends on nothing else.

Letters: h, w, c = height, width, channels.
"""

import math
from collections.abc import Callable

import numpy as np

from vit_jax import sections
from vit_jax.data.decode import Encoded, pixels
from vit_jax.data.image import Preprocessing, number, resize, to_channels
from vit_jax.errors import InputError

Augment = Callable[[np.ndarray, np.random.Generator], np.ndarray]

CROPS = ("none", "resized", "shift")
PADDING_MODES = ("constant", "reflect")
ASPECT_RATIOS = (3 / 4, 4 / 3)  # width / height; arXiv:1409.4842, section 6
CROP_TRIES = 10  # as torchvision's RandomResizedCrop
_LOG_RATIOS = (math.log(ASPECT_RATIOS[0]), math.log(ASPECT_RATIOS[1]))


def build_augment(
    *,
    preprocessing: Preprocessing,
    crop: str = "none",
    min_area: float = 0.08,
    max_area: float = 1.0,
    padding: int = 0,
    padding_mode: str = "constant",
    flip_probability: float = 0.0,
) -> Augment:
    """Returns `augment(image, rng)`: uint8[h,w,c] -> preprocessing.image_shape.

    Args:
      preprocessing: what evaluation does; gives the size, channels and interpolation.
      crop: 'none' preprocesses as in evaluation; 'resized' cuts a random box and resizes it;
        'shift' preprocesses, pads and cuts the size back out.
      min_area, max_area: for 'resized': the box's share of the image area.
      padding: for 'shift': pixels on each side.
      padding_mode: for 'shift': 'constant' (zeros) or 'reflect'.
      flip_probability: of mirroring left and right; 0.5 is usual, 0 for text and digits.

    Raises:
      InputError: for a value out of range, or one that the chosen crop does not use.
    """
    sections.choose(dict.fromkeys(CROPS), crop, where="augment.crop")
    sections.choose(dict.fromkeys(PADDING_MODES), padding_mode, where="augment.padding_mode")
    resized_only = {"min_area": min_area != 0.08, "max_area": max_area != 1.0}
    shift_only = {"padding": padding != 0, "padding_mode": padding_mode != "constant"}
    _refuse_unused(crop, resized=resized_only, shift=shift_only)
    _check_areas(min_area, max_area)
    if not 0 <= number(flip_probability, "augment.flip_probability") <= 1:
        raise InputError(f"augment.flip_probability is {flip_probability}; allowed: 0 to 1.")
    if crop == "shift":
        _check_padding(padding, padding_mode, preprocessing.image_size)

    def resized(image: np.ndarray | Encoded, rng: np.random.Generator) -> np.ndarray:
        image = pixels(image)
        if preprocessing.channels < image.shape[2]:
            image = to_channels(image, preprocessing.channels)
        image = random_resized_crop(
            image,
            rng,
            size=preprocessing.image_size,
            min_area=min_area,
            max_area=max_area,
            interpolation=preprocessing.interpolation,
        )
        return to_channels(image, preprocessing.channels)

    def shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return pad_and_shift(preprocessing(image), rng, padding=padding, mode=padding_mode)

    def unmoved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return preprocessing(image)

    cut = {"none": unmoved, "resized": resized, "shift": shifted}[crop]

    def augment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return random_flip(cut(image, rng), rng, probability=flip_probability)

    return augment if flip_probability else cut


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    size: tuple[int, int],
    min_area: float = 0.08,
    max_area: float = 1.0,
    interpolation: str = "bilinear",
) -> np.ndarray:
    """Cuts a random box and resizes it to size = (height, width).

    The law of Inception (arXiv:1409.4842, section 6), as torchvision has it: area uniform in
    (min_area, max_area) of the image, logarithm of the aspect ratio uniform between those of
    3/4 and 4/3, position uniform. The ratio is that of the box in the image, also where
    `size` is no square.
    """
    top, left, height, width = crop_box(image.shape[:2], rng, min_area, max_area)
    return resize(image[top : top + height, left : left + width], size, interpolation)


def crop_box(
    size: tuple[int, int], rng: np.random.Generator, min_area: float, max_area: float
) -> tuple[int, int, int, int]:
    """Draws the (top, left, height, width) of `random_resized_crop`, in pixels."""
    h, w = size
    for _ in range(CROP_TRIES):
        area = rng.uniform(min_area, max_area) * h * w
        ratio = math.exp(rng.uniform(*_LOG_RATIOS))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= h and 0 < width <= w:
            return (
                int(rng.integers(h - height + 1)),
                int(rng.integers(w - width + 1)),
                height,
                width,
            )
    # The largest centred box of an allowed ratio.
    height, width = min(h, round(w / ASPECT_RATIOS[0])), min(w, round(h * ASPECT_RATIOS[1]))
    return (h - height) // 2, (w - width) // 2, max(height, 1), max(width, 1)


def random_flip(
    image: np.ndarray, rng: np.random.Generator, *, probability: float = 0.5
) -> np.ndarray:
    """Mirrors left and right with the given probability."""
    return image[:, ::-1] if rng.random() < probability else image


def pad_and_shift(
    image: np.ndarray, rng: np.random.Generator, *, padding: int, mode: str = "constant"
) -> np.ndarray:
    """Pads each side by `padding` pixels and cuts the size back out at a uniform offset.

    The CIFAR augmentation of ResNet (arXiv:1512.03385, section 4.2), there with zeros.
    """
    down, right = (rng.integers(-padding, padding + 1, size=2)).tolist()
    if mode == "reflect":
        rows, columns = _reflected(image.shape[0], down), _reflected(image.shape[1], right)
        return image[rows[:, None], columns]
    # The same pixels as padding and cropping, without building the padded image: 5 us, not 40.
    (to_y, from_y), (to_x, from_x) = _overlap(image.shape[0], down), _overlap(image.shape[1], right)
    shifted = np.zeros_like(image)
    shifted[to_y, to_x] = image[from_y, from_x]
    return shifted


def _overlap(n: int, by: int) -> tuple[slice, slice]:
    """Where the pixels of a side of n that moves by `by` land, and where they come from."""
    kept = max(n - abs(by), 0)
    target, origin = max(by, 0), max(-by, 0)
    return slice(target, target + kept), slice(origin, origin + kept)


def _reflected(n: int, by: int) -> np.ndarray:
    """Source positions of a side of n moved by `by`, mirrored at the edge pixels."""
    position = np.abs(np.arange(n) - by)
    return (n - 1) - np.abs((n - 1) - position)


def _refuse_unused(crop: str, **groups: dict[str, bool]):
    for used_by, changed in groups.items():
        unused = [name for name, is_set in changed.items() if is_set]
        if unused and crop != used_by:
            raise InputError(
                f"augment.{', augment.'.join(unused)} has no effect with crop={crop!r}; "
                f"leave it out or set crop={used_by!r}."
            )


def _check_areas(min_area: float, max_area: float):
    low, high = number(min_area, "augment.min_area"), number(max_area, "augment.max_area")
    if not 0 < low <= high <= 1:
        raise InputError(
            f"augment.min_area and max_area are {min_area} and {max_area}; they are shares of "
            "the image area with 0 < min_area <= max_area <= 1."
        )


def _check_padding(padding: int, mode: str, size: tuple[int, int]):
    whole = isinstance(padding, int) and not isinstance(padding, bool)
    # A reflection cannot be wider than what is reflected.
    limit = min(size) - 1 if mode == "reflect" else min(size)
    if not whole or not 1 <= padding <= limit:
        raise InputError(
            f"augment.padding is {padding!r}; crop='shift' needs 1 to {limit} pixels for images "
            f"of {size[0]}x{size[1]} and padding_mode={mode!r}."
        )
