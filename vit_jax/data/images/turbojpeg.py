"""libjpeg-turbo's own decoder of a part of a JPEG, where version 3 of it is installed.

Only `tj3SetCroppingRegion` (3.0 and later) decodes a part; no maintained Python package offers
it, so the few C functions needed are declared here. The library comes from the system, or from
inside the Python package `turbojpeg`. Numbers and names are those of its turbojpeg.h.
"""

import ctypes
import functools
import threading
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

import numpy as np

from vit_jax.data.images.orientation import Box

# By the names the loader itself resolves: ctypes.util.find_library would run a compiler.
_SYSTEM_NAMES = ("libturbojpeg.so.0", "libturbojpeg.0.dylib", "libturbojpeg.dylib")
_DECOMPRESS = 1  # TJINIT_DECOMPRESS
_SUBSAMPLING = 4  # TJPARAM_SUBSAMP
_FAST_DCT = 10  # TJPARAM_FASTDCT
_PIXEL_FORMATS = {3: 0, 1: 6}  # channels -> TJPF_RGB, TJPF_GRAY
# TJSAMP_* -> width in pixels of a unit (MCU), tjMCUWidth: 4:4:4, 4:2:2, 4:2:0, grey, 4:4:0,
# 4:1:1, 4:4:1. Other samplings are unknown to it, and then it decodes no part.
_UNIT_WIDTHS = {0: 8, 1: 16, 2: 16, 3: 8, 4: 8, 5: 32, 6: 8}


class _Region(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in ("x", "y", "w", "h"))


class _Factor(ctypes.Structure):
    _fields_ = (("numerator", ctypes.c_int), ("denominator", ctypes.c_int))


class _Columns(NamedTuple):
    start: int
    stop: int


def is_available() -> bool:
    """Whether a libjpeg-turbo that decodes parts was found."""
    return _library() is not None


def decode(
    data: bytes,
    box: Box,
    size: tuple[int, int],
    channels: int,
    *,
    denominator: int = 1,
    fast_dct: bool = False,
) -> np.ndarray | None:
    """uint8[h,w,c] of a box of a JPEG, bit for bit what a decode of all of it gives there.

    Args:
      data: the file.
      box: the part, in pixels of the image at that scale.
      size: (h, w) of the whole image at that scale.
      channels: 1 or 3, what is stored.
      denominator: 1, 2, 4 or 8: at 1 / denominator of the size.
      fast_dct: see `decode.Encoded`.

    Returns:
      None where the file is damaged as far as it was read, or of a kind that it decodes whole
      only. What lies below the box is not looked at.
    """
    library, handle = _library(), _handle()
    if library.tj3DecompressHeader(handle, data, len(data)):
        return None
    unit = _UNIT_WIDTHS.get(library.tj3Get(handle, _SUBSAMPLING))
    if unit is None:
        return None
    columns = _columns(box, size[1], max(unit // denominator, 1))
    region = _Region(columns.start, box.top, columns.stop - columns.start, box.height)
    pixels = np.empty((box.height, region.w, channels), np.uint8)
    failed = (  # also where it merely warns
        library.tj3Set(handle, _FAST_DCT, int(fast_dct))
        or library.tj3SetScalingFactor(handle, _Factor(1, denominator))
        or library.tj3SetCroppingRegion(handle, region)
        or library.tj3Decompress8(
            handle, data, len(data), pixels.ctypes.data, 0, _PIXEL_FORMATS[channels]
        )
    )
    left = box.left - columns.start
    return None if failed else pixels[:, left : left + box.width]


def _columns(box: Box, width: int, unit: int) -> _Columns:
    """From the edge of a unit, and one unit more on each side.

    Colour is interpolated between neighbours; at the edge of a region these are missing, and
    its pixels came out up to 14 levels wrong.
    """
    start = max(box.left // unit - 1, 0) * unit
    return _Columns(start, min(box.left + box.width + unit, width))


@functools.cache
def _library() -> ctypes.CDLL | None:
    for path in _candidates():
        try:
            library = ctypes.CDLL(path)
        except OSError:
            continue
        if hasattr(library, "tj3SetCroppingRegion"):
            return _declared(library)
    return None


def _candidates() -> Iterator[str]:
    try:
        files = metadata.files("turbojpeg") or []
    except metadata.PackageNotFoundError:
        files = []
    yield from (str(file.locate()) for file in files if file.name.startswith("libturbojpeg"))
    yield from _SYSTEM_NAMES


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    handle, integer = ctypes.c_void_p, ctypes.c_int
    library.tj3Init.restype = handle
    library.tj3Init.argtypes = [integer]
    library.tj3Destroy.argtypes = [handle]
    library.tj3Get.argtypes = [handle, integer]
    library.tj3Set.argtypes = [handle, integer, integer]
    library.tj3DecompressHeader.argtypes = [handle, ctypes.c_char_p, ctypes.c_size_t]
    library.tj3SetScalingFactor.argtypes = [handle, _Factor]
    library.tj3SetCroppingRegion.argtypes = [handle, _Region]
    library.tj3Decompress8.argtypes = [
        *library.tj3DecompressHeader.argtypes,
        ctypes.c_void_p,
        integer,
        integer,
    ]
    return library


class _Handle:
    """The state of one decoder."""

    def __init__(self, library: ctypes.CDLL):
        self.pointer = library.tj3Init(_DECOMPRESS)
        self._destroy = library.tj3Destroy

    def __del__(self):
        self._destroy(self.pointer)


# One a thread, because two must not use one at once.
_local = threading.local()


def _handle() -> int:
    if not hasattr(_local, "handle"):
        _local.handle = _Handle(_library())
    return _local.handle.pointer
