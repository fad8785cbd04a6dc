"""JPEGs of the usual kinds by libjpeg-turbo, without what Pillow adds to its time.

Pillow stays the law. What is here returns None wherever it is not certain to give Pillow's
pixels bit for bit: for a file that is damaged in any way, or of a rare kind (CMYK, lossless,
arithmetic coding, 12 bits); Pillow then reads the file or says why not. A batch therefore does
not depend on which decoders are installed; experiments/input_pipeline measures what they save.

The format is that of ITU-T T.81; 'stored' and 'shown' as in `orientation.py`.
"""

import functools
import re
import struct
from types import ModuleType
from typing import NamedTuple

import numpy as np

from vit_jax.data.images import turbojpeg
from vit_jax.data.images.orientation import ORIENTATION_TAG, Box, cut
from vit_jax.errors import InputError

SCALES = (8, 4, 2)  # denominators at which libjpeg decodes without computing every pixel

_START = b"\xff\xd8\xff"
_APP1, _SCAN = 0xFFE1, 0xFFDA
_SEQUENTIAL, _PROGRESSIVE = (0xFFC0, 0xFFC1), 0xFFC2
_FRAMES = (*_SEQUENTIAL, _PROGRESSIVE)
# DHT, DQT, DRI, COM, APP0 to APP15: whatever else stands before the scan is left to Pillow.
_HARMLESS = frozenset((0xFFC4, 0xFFDB, 0xFFDD, 0xFFFE, *range(0xFFE0, 0xFFF0)))
_EXIF, _XMP_ORIENTATION = b"Exif\x00\x00", b"tiff:Orientation"
# Any marker but the restarts within a scan; 0xFF00 is a coded 0xFF, repeated 0xFF are filling.
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_END = 0xD9


class Header(NamedTuple):
    """What a JPEG says before its pixels.

    Attributes:
      size: (h, w) stored.
      channels: 1 or 3.
      orientation: 1 to 8; None where only Pillow knows how to read it.
      scan: where in the file the first scan begins.
      is_sequential: whether each row is complete before the next.
    """

    size: tuple[int, int]
    channels: int
    orientation: int | None
    scan: int
    is_sequential: bool


def read_header(data: bytes) -> Header | None:
    """None unless `data` begins as a JPEG of a usual kind. Takes about 5 us."""
    if not data.startswith(_START):
        return None
    try:
        return _read_header(data)
    except struct.error:  # it ends within the header
        return None


def _read_header(data: bytes) -> Header | None:
    frame, exif, orientation, at = None, None, 1, 2
    while True:
        marker, length = struct.unpack_from(">HH", data, at)
        if marker in _FRAMES and frame is None:
            frame = marker, *struct.unpack_from(">BHHB", data, at + 4)
        elif marker == _APP1:
            segment = data[at + 4 : at + 2 + length]
            if exif is None and segment.startswith(_EXIF):
                exif = segment[len(_EXIF) :]
            orientation = None if _XMP_ORIENTATION in segment else orientation
        elif marker == _SCAN:
            break
        elif marker not in _HARMLESS or length < 2:
            return None
        at += 2 + length
    if frame is None:
        return None
    kind, bits, height, width, channels = frame
    if bits != 8 or channels not in (1, 3) or not height or not width:
        return None
    if exif is not None:
        orientation = orientation and _exif_orientation(exif)
    return Header((height, width), channels, orientation, at, kind in _SEQUENTIAL)


def _exif_orientation(exif: bytes) -> int | None:
    """1 where the usual table has no orientation, None for a table that is in any way unusual.

    A table that the next segment would continue ends too early here: a struct.error.
    """
    if exif[:4] not in (b"II*\x00", b"MM\x00*"):
        return None
    order = "<" if exif.startswith(b"II") else ">"
    (start,) = struct.unpack_from(order + "I", exif, 4)
    (count,) = struct.unpack_from(order + "H", exif, start)
    found = [1]
    for at in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number, value = struct.unpack_from(order + "HHIH", exif, at)
        if tag == ORIENTATION_TAG:
            if (kind, number) != (3, 1) or not 1 <= value <= 8:
                return None
            found.append(value)
    return found[-1] if len(found) <= 2 else None


def decode(
    data: bytes,
    header: Header,
    box: Box | None = None,
    *,
    denominator: int = 1,
    fast_dct: bool = False,
) -> np.ndarray | None:
    """uint8[h,w,channels] as stored, or a box of it, as Pillow gives it; None: ask Pillow.

    Args:
      data: the file.
      header: what `read_header` says of it.
      box: in pixels of the image as stored, at the scale asked for.
      denominator: 1, 2, 4 or 8: at 1 / denominator of the size, sides rounded up.
      fast_dct: see `decode.Encoded`.
    """
    if box is not None and turbojpeg.is_available() and _ends_well(data, header):
        size = scaled_size(header.size, denominator)
        scale = dict(denominator=denominator, fast_dct=fast_dct)
        part = turbojpeg.decode(data, box, size, header.channels, **scale)
        if part is not None:
            return part
    whole = _decode_whole(data, header, denominator, fast_dct)
    return whole if whole is None or box is None else cut(whole, box)


def scaled_size(size: tuple[int, int], denominator: int) -> tuple[int, int]:
    """(h, w) of a decode at 1 / denominator."""
    return -(-size[0] // denominator), -(-size[1] // denominator)


def _decode_whole(
    data: bytes, header: Header, denominator: int, fast_dct: bool
) -> np.ndarray | None:
    simplejpeg = _simplejpeg()
    if simplejpeg is None:
        if fast_dct:  # Pillow has only the other one, and pixels must not depend on what is here
            raise InputError("JPEGs with the fast DCT, as big_vision has it, need simplejpeg.")
        return None
    return _by_simplejpeg(simplejpeg, data, header, denominator, fast_dct)


def decode_in_spite(data: bytes, header: Header, denominator: int) -> np.ndarray | None:
    """With the fast DCT, a file that libjpeg warns of and Pillow reads nevertheless."""
    return _by_simplejpeg(_simplejpeg(), data, header, denominator, True, strict=False)


def _by_simplejpeg(
    simplejpeg: ModuleType,
    data: bytes,
    header: Header,
    denominator: int,
    fast_dct: bool,
    *,
    strict: bool = True,
) -> np.ndarray | None:
    height, width = scaled_size(header.size, denominator)
    colours = "GRAY" if header.channels == 1 else "RGB"
    settings = dict(fastdct=fast_dct, strict=strict, min_factor=float(denominator))
    if denominator > 1:
        settings |= dict(min_height=height, min_width=width)
    try:
        image = simplejpeg.decode_jpeg(data, colours, **settings)
    except ValueError:  # if strict, it refuses warnings, too
        return None
    return image if image.shape == (height, width, header.channels) else None


def _ends_well(data: bytes, header: Header) -> bool:
    """Whether what a decoder of a part does not look at could make a whole one refuse the file.

    It could be cut off, or hold markers that are none. A progressive file is always read to its
    end.
    """
    if not header.is_sequential:
        return True
    coded = np.frombuffer(data, np.uint8, offset=header.scan + 2)
    # NumPy skips to the first marker in a third of the time that the expression takes.
    first = int(((coded[:-1] == 0xFF) & (coded[1:] != 0)).argmax()) if len(coded) > 1 else 0
    marker = _MARKER.search(data, header.scan + 2 + first)
    return marker is not None and data[marker.end() - 1] == _END


@functools.cache
def _simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
