"""From the bytes of an image file to pixels.

Pillow defines what a file holds; where `jpeg.py` gives the same pixels sooner, that does the
work. Letters: h, w, c = height, width, channels.
"""

import contextlib
import functools
import io
import math
from collections.abc import Iterator
from os import PathLike
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images import jpeg, orientation
from vit_jax.data.images.orientation import ORIENTATION_TAG, Box, Edges, cut
from vit_jax.errors import InputError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
_GREY_MODES = ("1", "L", "LA", "La")
_GREY16_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
# What announces an orientation in a PNG, perhaps behind the pixels. Elsewhere it is told first.
_PNG_ORIENTATIONS = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")


class Scaled(NamedTuple):
    """A part of an image, perhaps at a smaller scale.

    Attributes:
      image: uint8[h,w,c].
      box: left, top, right, bottom edge of the part that was asked for, in pixels of `image`;
        less than all of it where the edges fall between its pixels.
    """

    image: np.ndarray
    box: Edges


class Encoded:
    """An image that is still in its file's bytes.

    Attributes:
      data: the file's content.
      place: where it is from, for messages.
      fast_dct: whether a JPEG's cosines are summed in 8 rather than 13 bits, as TensorFlow does
        where it is not told otherwise, and with it big_vision: other pixels, by 1.4 of 255 levels
        in the mean. Rare kinds of JPEG, which only Pillow reads, stay accurate.
    """

    def __init__(self, data: bytes, place: str, *, fast_dct: bool = False):
        self.data, self.place, self.fast_dct = data, place, fast_dct

    def with_fast_dct(self) -> "Encoded":
        return Encoded(self.data, self.place, fast_dct=True)

    @functools.cached_property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels, EXIF orientation applied, told from the header where possible.

        Raises:
          UnreadableExample: as `decode`, but damage behind the header is not seen.
        """
        with _naming(self.place):
            if self._header is not None:
                return orientation.shown_size(self._header.size, self._orientation)
            return _size(self.data)

    def decode(self, box: Box | None = None) -> np.ndarray:
        """uint8[h,w,1] where the file is grey, else uint8[h,w,3]; orientation applied.

        Of an animation, the first frame. Alpha is dropped, 16 bits are cut to the upper 8.

        Args:
          box: the part that is wanted; the result equals `decode()` cut to it, bit for bit.

        Raises:
          UnreadableExample: naming the place and the reason, also where it is merely truncated.
        """
        with _naming(self.place):
            if self._header is None:
                whole = _decode(self.data)
                return whole if box is None else cut(whole, box)
            stored = None if box is None else self._stored(box)
            image = jpeg.decode(self.data, self._header, stored, fast_dct=self.fast_dct)
            if image is None:
                image = self._stored_pixels()
                image = image if stored is None else cut(image, stored)
            return orientation.shown(image, self._orientation)

    def decode_scaled(self, box: Box | None, at_least: tuple[int, int]) -> Scaled:
        """A box at full size, 1/2, 1/4 or 1/8: the smallest with at_least = (H, W) pixels.

        JPEGs alone are scaled, which costs them less than their full size. The pixels differ
        from those of a full decode that is resized: they are means of blocks, as from
        antialiasing with a box.
        """
        with _naming(self.place):
            box = Box(0, 0, *self.size) if box is None else box
            denominator = 1 if self._header is None else _denominator(box, at_least)
            if denominator == 1:
                return Scaled(self.decode(box), (0.0, 0.0, float(box.width), float(box.height)))
            return self._decode_scaled(box, denominator)

    def _decode_scaled(self, box: Box, denominator: int) -> Scaled:
        stored = self._stored(box)
        around, inside = _scaled_box(stored, denominator)
        scale = dict(denominator=denominator, fast_dct=self.fast_dct)
        image = jpeg.decode(self.data, self._header, around, **scale)
        if image is None:
            image = cut(self._stored_pixels(denominator), around)
        edges = orientation.shown_edges(inside, image.shape[:2], self._orientation)
        return Scaled(orientation.shown(image, self._orientation), edges)

    def _stored_pixels(self, denominator: int = 1) -> np.ndarray:
        """By Pillow, which decides what can be read; in the fast DCT where that is asked for."""
        image, fast = _stored_pixels(self.data, denominator), None
        if self.fast_dct:
            fast = jpeg.decode_in_spite(self.data, self._header, denominator)
        return image if fast is None else fast

    def _stored(self, box: Box) -> Box:
        edges = (box.left, box.top, box.left + box.width, box.top + box.height)
        left, top, right, bottom = orientation.stored_edges(edges, self.size, self._orientation)
        return Box(top, left, bottom - top, right - left)

    @functools.cached_property
    def _header(self) -> jpeg.Header | None:
        header = jpeg.read_header(self.data)
        if header is not None:
            _refuse_bombs(header.size)
        return header

    @functools.cached_property
    def _orientation(self) -> int:
        if self._header.orientation is not None:
            return self._header.orientation
        with Image.open(io.BytesIO(self.data)) as image:
            return _orientation(image)


def size_of(image: np.ndarray | Encoded) -> tuple[int, int]:
    """(h, w) in pixels."""
    return image.size if isinstance(image, Encoded) else image.shape[:2]


def pixels(image: np.ndarray | Encoded, box: Box | None = None) -> np.ndarray:
    """The image, or a box of it, as uint8[h,w,c]."""
    if isinstance(image, Encoded):
        return image.decode(box)
    return image if box is None else cut(image, box)


def scaled(image: np.ndarray | Encoded, box: Box | None, at_least: tuple[int, int]) -> Scaled:
    """See `Encoded.decode_scaled`; an array is not scaled."""
    if isinstance(image, Encoded):
        return image.decode_scaled(box, at_least)
    part = pixels(image, box)
    return Scaled(part, (0.0, 0.0, float(part.shape[1]), float(part.shape[0])))


def read_encoded(path: str | PathLike[str]) -> Encoded:
    """A file, not yet decoded; UnreadableExample where it cannot be read."""
    try:
        with open(path, "rb") as file:  # a third of the time that pathlib takes
            return Encoded(file.read(), str(path))
    except OSError as error:
        raise UnreadableExample(str(path), _reason(error)) from error


def read_image(path: str | PathLike[str]) -> np.ndarray:
    """A file as pixels, see `Encoded.decode`."""
    return read_encoded(path).decode()


def _denominator(box: Box, at_least: tuple[int, int]) -> int:
    """The largest that leaves as many whole pixels as asked for."""
    height, width = at_least
    enough = (d for d in jpeg.SCALES if box.height >= d * height and box.width >= d * width)
    return next(enough, 1)


def _scaled_box(box: Box, denominator: int) -> tuple[Box, Edges]:
    """The pixels at 1 / denominator that cover a box, and where in them the box lies."""
    top, left = box.top // denominator, box.left // denominator
    bottom = math.ceil((box.top + box.height) / denominator)
    right = math.ceil((box.left + box.width) / denominator)
    inside_left, inside_top = box.left / denominator - left, box.top / denominator - top
    edges = (
        inside_left,
        inside_top,
        inside_left + box.width / denominator,
        inside_top + box.height / denominator,
    )
    return Box(top, left, bottom - top, right - left), edges


def _size(data: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG":
            if any(name in data for name in _PNG_ORIENTATIONS):
                return _decode(data).shape[:2]
            return image.size[::-1]
        return orientation.shown_size(image.size[::-1], _orientation(image))


def _decode(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        stored = _to_array(image)
        return orientation.shown(stored, _orientation(image))


def _stored_pixels(data: bytes, denominator: int = 1) -> np.ndarray:
    """As stored; a JPEG at 1 / denominator of its size, rounded up."""
    with Image.open(io.BytesIO(data)) as image:
        if denominator > 1:  # Pillow rounds what it is given to one of these scales
            image.draft(None, (image.width // denominator, image.height // denominator))
        return _to_array(image)


def _to_array(image: Image.Image) -> np.ndarray:
    if image.mode in _GREY16_MODES:  # convert('L') would clip at 255 instead of scaling
        return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)[..., None]
    if image.mode in _GREY_MODES:
        return np.asarray(image.convert("L"))[..., None]
    if image.mode == "F":
        raise ValueError("floating-point pixels have no defined range")
    return np.asarray(image.convert("RGB"))


def _orientation(image: Image.Image) -> int:
    """1 where the tags are damaged, too: the pixels may be whole."""
    try:
        return orientation.known(image.getexif().get(ORIENTATION_TAG))
    except Exception:  # as for decoders, there is no telling what
        return 1


def _refuse_bombs(size: tuple[int, int]):
    """Pillow's limit and its sentence, before any memory is asked for."""
    limit, found = Image.MAX_IMAGE_PIXELS, size[0] * size[1]
    if limit is not None and found > 2 * limit:
        raise Image.DecompressionBombError(
            f"Image size ({found} pixels) exceeds limit of {2 * limit} pixels"
        )


@contextlib.contextmanager
def _naming(place: str) -> Iterator[None]:
    """What goes wrong within is the example's fault."""
    try:
        yield
    except InputError:  # has its own words
        raise
    except Exception as error:  # decoders of broken files raise nearly anything
        raise UnreadableExample(place, _reason(error)) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its words have an address, new each time
        return "no image format that is known"
    text = (getattr(error, "strerror", None) or str(error) or "damaged file").rstrip(".")
    return text if isinstance(error, OSError) else f"{type(error).__name__}: {text}"
