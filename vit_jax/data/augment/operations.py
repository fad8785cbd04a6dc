"""The operations of the policies, by name, as each of three dialects computes them.

`perform` does one of them to an example: what changes values alone changes the image (or each
frame of a video), what moves pixels moves boxes, masks and keypoints with them. The amounts are
those of `levels.py`. Pixels equal the library's to the bit.

    Cutout       half the side in pixels
    Rotate, Shear*, Translate*          see `matrices.py`
    all others   see `colour.py`, and `tensorflow_colour.py` for big_vision
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.augment import colour, geometry, matrices, tensorflow_colour
from vit_jax.data.examples import Example
from vit_jax.data.images import decode
from vit_jax.errors import InputError

PILLOW_VALUES = {
    "Invert": colour.invert,
    "Posterize": colour.posterize,
    "Solarize": colour.solarize,
    "SolarizeAdd": colour.solarize_add,
    "AutoContrast": colour.autocontrast,
    "Equalize": colour.equalize,
    "Brightness": colour.brightness,
    "Contrast": colour.contrast,
    "Color": colour.saturation,
    "Sharpness": colour.sharpness,
}
TENSORFLOW_VALUES = {
    "Invert": colour.invert,
    "Posterize": tensorflow_colour.posterize,
    "Solarize": tensorflow_colour.solarize,
    "SolarizeAdd": colour.solarize_add,
    "AutoContrast": tensorflow_colour.autocontrast,
    "Equalize": colour.equalize,
    "Brightness": colour.brightness,
    "Contrast": tensorflow_colour.contrast,
    "Color": tensorflow_colour.saturation,
    "Sharpness": tensorflow_colour.sharpness,
}
TIMM_MATRICES = {
    "ShearX": matrices.shear_x,
    "ShearY": matrices.shear_y,
    "TranslateX": matrices.translate_x,
    "TranslateY": matrices.translate_y,
    "Rotate": matrices.rotate,
}
TORCHVISION_MATRICES = {
    "ShearX": matrices.torchvision_shear_x,
    "ShearY": matrices.torchvision_shear_y,
    "TranslateX": matrices.torchvision_translate_x,
    "TranslateY": matrices.torchvision_translate_y,
    "Rotate": matrices.rotate,
}
BIG_VISION_MATRICES = TIMM_MATRICES | {"Rotate": matrices.tensorflow_rotate}


class Dialect(NamedTuple):
    """How a library computes operations.

    Attributes:
      values: name -> f(image, *amount) -> image.
      matrices: name -> f(amount, size) -> f64[2,3].
      law: of `geometry.affine`: 'pillow' or 'tensorflow'.
    """

    values: Mapping[str, Callable[..., np.ndarray]]
    matrices: Mapping[str, Callable[[float, tuple[int, int]], np.ndarray]]
    law: str


DIALECTS = {
    "big_vision": Dialect(TENSORFLOW_VALUES, BIG_VISION_MATRICES, "tensorflow"),
    "torchvision": Dialect(PILLOW_VALUES, TORCHVISION_MATRICES, "pillow"),
    "timm": Dialect(PILLOW_VALUES, TIMM_MATRICES, "pillow"),
}


def perform(
    example: Example,
    rng: np.random.Generator,
    operation: str,
    amount: float | None,
    *,
    dialect: str,
    resample: str,
    fill: int | tuple[int, ...],
) -> Example:
    """One operation on an example.

    Args:
      operation: a name of the tables above, 'Cutout' or 'Identity'.
      amount: see the top of this file; None where there is nothing to choose.
      dialect: a name of `DIALECTS`.
      resample, fill: of what moves pixels, see `geometry.affine`; `fill` also of Cutout.
    """
    found = DIALECTS[dialect]
    if operation == "Identity":
        return example
    if operation in found.matrices:
        matrix = found.matrices[operation](amount, geometry.example_size(example))
        return geometry.affine(example, matrix, law=found.law, resample=resample, fill=fill)
    if operation == "Cutout":
        centre = tuple(int(rng.integers(side)) for side in geometry.example_size(example))
        return change_values(example, tensorflow_colour.cutout, amount, centre, fill)
    arguments = () if amount is None else (amount,)
    return change_values(example, found.values[operation], *arguments)


def change_values(
    example: Example, function: Callable[..., np.ndarray], *arguments: Any
) -> Example:
    """The example with f(image, *arguments) in place of its image, or of each frame.

    Raises:
      InputError: unless there are 1 or 3 channels; colours have no meaning for others.
    """
    changed = dict(example)
    if "image" in example:
        changed["image"] = _change(decode.pixels(example["image"]), function, *arguments)
    if "video" in example:
        frames = [_change(frame, function, *arguments) for frame in example["video"]]
        changed["video"] = np.stack(frames)
    return changed


def _change(image: np.ndarray, function: Callable[..., np.ndarray], *arguments: Any) -> np.ndarray:
    if image.shape[2] not in (1, 3):
        raise InputError(
            f"an image has {image.shape[2]} channels; augmentations of colour allow 1 or 3."
        )
    return function(image, *arguments)
