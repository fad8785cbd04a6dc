"""What an example is, and what a source of them promises.

A `Source` is a sequence of examples with random access, which is all that is needed to make a
batch a function of the step. An example is a dict with some of these fields:

    image         uint8[h,w,c], or `decode.Encoded`: a file's bytes, decoded where first needed
    video         uint8[t,h,w,c], or `video.EncodedVideo`
    label         int, a position in the source's class names
    labels        tuple of int: each class that is present; () where none is known
    caption       str
    boxes         f32[n,4]: left, top, right, bottom edge in pixels of the image
    box_label     int32[n]: class of each box
    segmentation  int32[h,w]: class of each pixel, -1 where it does not count
    masks         bool[n,h,w]: pixels of the object in each box
    keypoints     f32[n,k,3]: x, y in pixels, and 1 where visible or else 0

Pixel coordinates are continuous: pixel (row i, column j) covers the square from (j, i) to
(j + 1, i + 1), so the whole image is the box (0, 0, w, h).

Letters: h, w, c = height, width, channels; t frames; n objects; k keypoints of an object.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import InputError

Example = dict[str, Any]
# Makes a new example of one; evaluation has no random numbers to give.
Transform = Callable[[Example, np.random.Generator | None], Example]


class ExampleOutOfRange(InputError, IndexError):
    """An index outside a source; an IndexError too, so that `for example in source` ends."""


class Source:
    """A sequence of examples.

    Attributes:
      name: what was opened, for messages, e.g. 'digits:train'.
      class_names: one name a class; a label is a position in it.
      fields: the names of the fields that each of its examples has.
      present: the classes that can occur, ascending, where they are known to be a subset: that
        of ImageNet-A among ImageNet's; None is all.
    """

    name: str
    class_names: tuple[str, ...]
    fields: tuple[str, ...] = ("image", "label")
    present: tuple[int, ...] | None = None

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> Example:
        """Returns example i, see the top of this file for its fields.

        Raises:
          ExampleOutOfRange: unless 0 <= i < len(self).
          UnreadableExample: where example i cannot be read.
        """
        if not 0 <= i < len(self):
            raise ExampleOutOfRange(f"{self.name} has no example {i}: it holds {len(self)}.")
        return self.read(i)

    def read(self, i: int) -> Example:
        """`self[i]` for an index known to be in range."""
        raise NotImplementedError

    def ranges(self) -> "list[Range]":
        """Of what sources it is made; their examples stand one range after the other."""
        return [Range(self, 0, len(self))]

    def describe(self, i: int) -> str:
        """Where example i lives, for messages: a file, or the source and a position."""
        return f"{self.name} #{i}"

    def file_name(self, i: int) -> str:
        """The name, without folders, of the file that example i came as; '' where none is known."""
        return ""


class Range(NamedTuple):
    """The examples `range(start, stop)` of a source that is made of no others."""

    base: Source
    start: int
    stop: int


class UnreadableExample(InputError):
    """An image that exists but cannot be decoded.

    Attributes:
      place: the file, or the source and the position in it.
      reason: what the decoder said.
    """

    def __init__(self, place: str, reason: str):
        super().__init__(place, reason)  # both, so that the exception can be pickled
        self.place = place
        self.reason = reason

    def __str__(self) -> str:
        return f"Cannot read image {self.place}: {self.reason}."
