"""From the bytes of an image file to pixels.

Letters: h, w, c = height, width, channels.
"""

import functools
import io
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from vit_jax.data.examples import UnreadableExample

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_GREY_MODES = ("1", "L", "LA", "La")
_GREY16_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class Box(NamedTuple):
    """A rectangle of whole pixels: rows top to top + height, columns left to left + width."""

    top: int
    left: int
    height: int
    width: int


class Encoded:
    """An image that is still in its file's bytes.

    Attributes:
      data: the file's content.
      place: where it is from, for messages.
    """

    def __init__(self, data: bytes, place: str):
        self.data, self.place = data, place

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels, EXIF orientation applied, told from the header where possible."""
        return self.decode().shape[:2]

    def decode(self, box: Box | None = None) -> np.ndarray:
        """uint8[h,w,1] where the file is grey, else uint8[h,w,3]; orientation applied.

        Args:
          box: the part that is wanted; the result equals `decode()` cut to it, bit for bit.

        Raises:
          UnreadableExample: naming the place and the reason, also where it is merely truncated.
        """
        try:
            with Image.open(io.BytesIO(self.data)) as image:
                whole = _decode(image)
        except Exception as error:  # decoders of broken files raise nearly anything
            raise UnreadableExample(self.place, _reason(error)) from error
        return whole if box is None else cut(whole, box)


def size_of(image: np.ndarray | Encoded) -> tuple[int, int]:
    """(h, w) in pixels."""
    return image.size if isinstance(image, Encoded) else image.shape[:2]


def pixels(image: np.ndarray | Encoded, box: Box | None = None) -> np.ndarray:
    """The image, or a box of it, as uint8[h,w,c]."""
    if isinstance(image, Encoded):
        return image.decode(box)
    return image if box is None else cut(image, box)


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """A box of an array whose first axes are rows and columns; a view."""
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def read_encoded(path: str | PathLike[str]) -> Encoded:
    """A file, not yet decoded; UnreadableExample where it cannot be read."""
    try:
        return Encoded(Path(path).read_bytes(), str(path))
    except OSError as error:
        raise UnreadableExample(str(path), _reason(error)) from error


def read_image(path: str | PathLike[str]) -> np.ndarray:
    """A file as pixels, see `Encoded.decode`."""
    return read_encoded(path).decode()


def _decode(image: Image.Image) -> np.ndarray:
    ImageOps.exif_transpose(image, in_place=True)
    if image.mode in _GREY16_MODES:  # convert('L') would clip at 255 instead of scaling
        return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[..., None]
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[..., None]
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    return np.asarray(image.convert("RGB"))


def _reason(error: Exception) -> str:
    text = (getattr(error, "strerror", None) or str(error) or "damaged file").rstrip(".")
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
