"""Grey, colour and alpha.

Letters: h, w, c = height, width, channels.
"""

import numpy as np
from PIL import Image

from vit_jax.errors import InputError


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8[h,w,c] -> uint8[h,w,channels]: 1 to 3 repeats, 4 drops alpha, 3 to 1 is luma.

    Luma is that of ITU-R BT.601, as Pillow computes it for its mode 'L'.

    Raises:
      InputError: for any other pair.
    """
    found = image.shape[2]
    if found == channels:
        return image
    if found == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if found == 4 and channels in (1, 3):
        return to_channels(image[..., :3], channels)
    if found == 3 and channels == 1:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    raise InputError(
        f"Cannot turn an image of {found} channels into {channels}; possible: 1 to 3, "
        "3 to 1, 4 to 3 or 1, and any number to itself."
    )


def fewer_channels(image: np.ndarray, channels: int | None) -> np.ndarray:
    """`to_channels` where that drops some: before resizing what would be thrown away."""
    if channels is None or channels >= image.shape[2]:
        return image
    return to_channels(image, channels)
