"""From examples to the rows of a batch: arrays of one shape, whatever the example.

    image, ...  uint8, normalised later, on the device; also `video` and what multi-crop makes
    label       int32[]: position in the class names
    labels      f32[k]: 1 for each class that is present
    boxes       f32[m,4]: left, top, right, bottom in pixels; 0 where there is no object
    box_label   int32[m]; -1 where there is no object
    keypoints   f32[m,j,3], masks bool[m,h,w]: one a box; 0 where there is no object
    segmentation int32[h,w]
    mask        bool[]: False for padding, and for an unreadable example that was skipped
    index       int32[]: the example's position in its split; -1 for padding

A masked row is zero, apart from its index. A caption is text: who needs it tokenises it in the
transform.

Letters: k classes; m = objects that a row has room for; j keypoints of an object.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from vit_jax.data.batching.order import Order
from vit_jax.data.examples import Example, Source, Transform, UnreadableExample
from vit_jax.data.images.decode import Encoded
from vit_jax.data.videos.video import EncodedVideo
from vit_jax.errors import InputError

Batch = dict[str, np.ndarray]
Spec = Mapping[str, tuple[tuple[int, ...], str]]  # name -> shape of one row, dtype

SKIP_HINT = "set data.skip_bad_examples=True to go on without such examples"
PADDING = -1  # in place of a position: a row that stands for no example
# One entry an object, with what stands for none.
_OBJECTS = {"boxes": 0, "box_label": -1, "keypoints": 0, "masks": 0}


class BadExample(NamedTuple):
    where: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class RowMaker:
    """Makes rows; holds nothing that cannot be sent to a worker process.

    Attributes:
      source: the examples.
      transform: example and generator -> example at its final size.
      order: position -> example; None takes the position itself, and no random numbers.
      max_objects: m, for examples with boxes.
      skip_bad_examples: mask examples that cannot be decoded rather than raise.
      spec: shape and type of each array of a row.
    """

    source: Source
    transform: Transform
    order: Order | None = None
    max_objects: int | None = None
    skip_bad_examples: bool = False
    spec: Spec = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "spec", self._find_spec())

    @property
    def decodes(self) -> bool:
        """Whether pixels are still to be decoded, as far as the first example tells."""
        try:
            example = self.source[0]
        except UnreadableExample:  # only a file can be
            return True
        return isinstance(example.get("image", example.get("video")), Encoded | EncodedVideo)

    def empty(self, size: int) -> Batch:
        """A batch without content."""
        return {name: np.empty((size, *shape), dtype) for name, (shape, dtype) in self.spec.items()}

    def numbers(self, positions: np.ndarray) -> np.ndarray:
        """int64[b] positions -> int64[b] numbers of examples.

        For a whole batch at once: 16 positions take as long as 256, some 0.7 ms.
        """
        return positions if self.order is None else self.order(positions)

    def fill(self, positions: np.ndarray, numbers: np.ndarray, batch: Batch) -> list[BadExample]:
        """Writes the rows of int64[b] positions; returns what was skipped.

        Args:
          positions: which draw the random numbers.
          numbers: of the examples there, see above.
          batch: to be written.

        Raises:
          InputError: naming the example, if its row has another shape than the others'.
          UnreadableExample: unless such are skipped.
        """
        bad, rows_of = [], zip(positions.tolist(), numbers.tolist(), strict=True)
        for i, (position, number) in enumerate(rows_of):
            found = None if position == PADDING else self._row(position, number, bad)
            for name, rows in batch.items():
                rows[i] = 0 if found is None else found[name]
            if found is None:
                batch["index"][i] = PADDING if position == PADDING else number
        return bad

    def _row(self, position: int, i: int, bad: list[BadExample]) -> Example | None:
        """None where the example is unreadable and may be skipped."""
        try:
            row = self._made(position, i)
        except UnreadableExample as error:
            if not self.skip_bad_examples:
                raise hinted(error) from error
            bad.append(BadExample(self.source.describe(i), error.reason))
            return None
        for name, (shape, _) in self.spec.items():
            if name not in row or row[name].shape != shape:
                found = row[name].shape if name in row else "nothing"
                raise InputError(
                    f"{self.source.describe(i)}: its {name} became {found}, expected {shape}."
                )
        return row

    def _made(self, position: int, i: int) -> Example:
        example = self.source[i]
        generator = None if self.order is None else self.order.generator(position)
        try:
            made = self.transform(example, generator)
            return to_row(made, i, len(self.source.class_names), self.max_objects)
        except UnreadableExample:
            raise
        except InputError as error:
            raise InputError(f"{self.source.describe(i)}: {error}") from error

    def _find_spec(self) -> Spec:
        """Shapes and types of the first readable example's row."""
        for i in range(len(self.source)):
            try:
                row = self._made(0, i)
                return {name: (row[name].shape, row[name].dtype.name) for name in row}
            except UnreadableExample as error:
                if not self.skip_bad_examples:
                    raise hinted(error) from error
        raise InputError(
            f"{self.source.name} has no readable example among its {len(self.source)}."
        )


def hinted(error: UnreadableExample) -> UnreadableExample:
    """The same, and how to go on in spite of it."""
    return UnreadableExample(error.place, f"{error.reason}; {SKIP_HINT}")


def to_row(example: Example, i: int, num_classes: int, max_objects: int | None) -> Example:
    """The row of example i, see the top of this file."""
    row = {"mask": np.array(True), "index": np.array(i, np.int32)}
    for name, value in example.items():
        if name in ("label", "labels"):
            _check_labels(name, value, num_classes)
        if name == "label":
            row[name] = np.array(value, np.int32)
        elif name == "labels":
            row[name] = _several_hot(value, num_classes)
        elif name in _OBJECTS:
            row[name] = _padded(np.asarray(value), max_objects, _OBJECTS[name], name)
        elif name != "caption":
            row[name] = value
    return row


def _check_labels(name: str, value: int | Sequence[int], num_classes: int):
    """A source's promise: a label outside would be no target at all, and nobody would see it."""
    for label in value if name == "labels" else (value,):
        if not 0 <= label < num_classes:
            raise InputError(f"its {name} has {label}; allowed: 0 to {num_classes - 1}.")


def _several_hot(labels: Sequence[int], num_classes: int) -> np.ndarray:
    row = np.zeros(num_classes, np.float32)
    row[list(labels)] = 1
    return row


def _padded(objects: np.ndarray, size: int | None, filler: int, name: str) -> np.ndarray:
    if size is None:
        raise InputError(
            f"data.max_objects is missing; an example has {name}, so a row must have room for as "
            "many objects as any example may have."
        )
    if len(objects) > size:
        raise InputError(f"it has {len(objects)} {name}; data.max_objects allows {size}.")
    row = np.full((size, *objects.shape[1:]), filler, objects.dtype)
    row[: len(objects)] = objects
    return row
