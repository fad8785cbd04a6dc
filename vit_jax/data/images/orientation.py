"""Rectangles of pixels, and how a camera's orientation moves them.

Cameras store an image as the sensor saw it and note in EXIF how to turn it for the viewer; the
eight values are those of the tag 'Orientation' (0x0112) of the EXIF standard, CIPA DC-008.
'Stored' is the image in the file, 'shown' the image turned.

Letters: h, w, c = height, width, channels. Edges are (left, top, right, bottom).
"""

from typing import NamedTuple

import numpy as np

ORIENTATION_TAG = 0x0112
# Orientation -> (swap rows and columns, then flip the rows, flip the columns).
_MOVES = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}

Edges = tuple[float, float, float, float]


class Box(NamedTuple):
    """A rectangle of whole pixels: rows top to top + height, columns left to left + width."""

    top: int
    left: int
    height: int
    width: int


def cut(image: np.ndarray, box: Box) -> np.ndarray:
    """A box of an array whose first axes are rows and columns; a view."""
    return image[box.top : box.top + box.height, box.left : box.left + box.width]


def known(orientation: object) -> int:
    """A value found in a file as one of 1 to 8; 1, which moves nothing, for any other."""
    return orientation if isinstance(orientation, int) and orientation in _MOVES else 1


def shown(image: np.ndarray, orientation: int) -> np.ndarray:
    """Stored [h,w,c] as the viewer shall see it; a copy unless nothing moves."""
    if orientation == 1:
        return image
    swap, flip_rows, flip_columns = _MOVES[orientation]
    image = image.transpose(1, 0, 2) if swap else image
    # Contiguous, because what resizes it would copy it otherwise, perhaps more than once.
    return np.ascontiguousarray(image[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1])


def shown_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(h, w) stored to (h, w) shown, and back."""
    return (size[1], size[0]) if _MOVES[orientation][0] else size


def shown_edges(edges: Edges, size: tuple[int, int], orientation: int) -> Edges:
    """A rectangle of the stored image of (h, w) = size, in pixels of the shown one."""
    left, top, right, bottom = edges
    if _MOVES[orientation][0]:
        left, top, right, bottom = top, left, bottom, right
    return _flipped((left, top, right, bottom), shown_size(size, orientation), orientation)


def stored_edges(edges: Edges, size: tuple[int, int], orientation: int) -> Edges:
    """A rectangle of the shown image of (h, w) = size, in pixels of the stored one."""
    left, top, right, bottom = _flipped(edges, size, orientation)
    return (top, left, bottom, right) if _MOVES[orientation][0] else (left, top, right, bottom)


def _flipped(edges: Edges, size: tuple[int, int], orientation: int) -> Edges:
    (left, top, right, bottom), (h, w) = edges, size
    _, flip_rows, flip_columns = _MOVES[orientation]
    if flip_rows:
        top, bottom = h - bottom, h - top
    if flip_columns:
        left, right = w - right, w - left
    return left, top, right, bottom
