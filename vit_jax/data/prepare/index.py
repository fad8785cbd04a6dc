"""What there is to convert: the place of every example, found without reading its image.

An index of millions of examples is a few flat arrays, so a part of it is cheap to send to a worker
process and its digest tells whether the input changed between two runs.

Letters: n = examples.
"""

import dataclasses
import hashlib
import io
from array import array
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.packed import Strings

NONE = -1  # in a column: this example has no such thing


class Raw(NamedTuple):
    """An example as it was found: the bytes of its image file, and its other fields."""

    image: bytes
    fields: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Index:
    """Where n examples are.

    Attributes:
      root: folder that `files` are relative to.
      files: the files that `columns["file"]` counts.
      columns: int64[n] each: "file", "size" (bytes of the image, or of what holds it), and others
        that are a matter between an input's indexer and its reader.
      names: n names.
    """

    root: str
    files: tuple[str, ...]
    columns: Mapping[str, np.ndarray]
    names: Strings

    def __len__(self) -> int:
        return len(self.names)

    def name(self, i: int) -> str:
        return self.names[i]

    def shown(self, i: int) -> str:
        """The name, with what is no UTF-8 in it replaced: for records and messages."""
        return self.name(i).encode("utf-8", "surrogateescape").decode("utf-8", "replace")

    def path(self, i: int) -> str:
        """The file that holds example i."""
        return str(Path(self.root, self.files[self.columns["file"][i]]))

    def part(self, start: int, stop: int) -> "Index":
        """Examples start to stop."""
        columns = {name: column[start:stop] for name, column in self.columns.items()}
        used, columns["file"] = np.unique(columns["file"], return_inverse=True)
        return Index(
            self.root, tuple(self.files[k] for k in used), columns, self.names.part(start, stop)
        )

    def digest(self) -> str:
        """SHA-256 of everything but the root: the same for the same data in another place."""
        digest = hashlib.sha256("\0".join(self.files).encode("utf-8", "surrogateescape"))
        for name in sorted(self.columns):
            digest.update(name.encode() + np.ascontiguousarray(self.columns[name], "<i8").tobytes())
        digest.update(np.ascontiguousarray(self.names.ends, "<i8").tobytes())
        digest.update(self.names.blob.tobytes())
        return digest.hexdigest()


class Builder:
    """Collects the rows of an index."""

    def __init__(self, *columns: str):
        self._columns = {name: array("q") for name in ("file", "size", *columns)}  # int64
        self._text, self._ends = bytearray(), array("q", [0])

    def add(self, name: str, **values: int) -> None:
        self._text += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._text))
        for column, collected in self._columns.items():
            collected.append(values[column])

    def build(self, root: str, files: Sequence[str]) -> Index:
        columns = {name: np.array(values, np.int64) for name, values in self._columns.items()}
        blob, ends = np.frombuffer(bytes(self._text), np.uint8), np.array(self._ends, np.int64)
        return Index(root, tuple(files), columns, Strings(blob, ends))


class Lost(NamedTuple):
    """Something that could not even be indexed."""

    name: str
    reason: str


class Input(NamedTuple):
    """An input that was looked through.

    Attributes:
      class_names: one name a class; None where the labels alone tell how many there are.
      splits: the examples of each split, in the order in which they will be written.
      lost: of each split, what could not be indexed.
      read: reads example i of an index from the open files.
    """

    class_names: tuple[str, ...] | None
    splits: dict[str, Index]
    lost: dict[str, list[Lost]]
    read: Callable[[Index, int, "Files"], Raw]


class Files:
    """Reads pieces of files; keeps the last one open, since neighbours share it."""

    def __init__(self):
        self._path: str | None = None
        self._file: io.BufferedIOBase | None = None

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._file.close()
        self._path = self._file = None

    def read(self, path: str, offset: int, size: int | None, place: str) -> bytes:
        """`size` bytes from `offset`, or all that follow.

        Raises:
          UnreadableExample: naming `place`, where there are fewer.
        """
        try:
            if path != self._path:
                self.__exit__()
                self._file = open(path, "rb")  # noqa: SIM115 (closed by the next file, or at the end)
                self._path = path
            self._file.seek(offset)
            data = self._file.read(size)
        except OSError as error:
            raise UnreadableExample(place, error.strerror or str(error)) from error
        if size is not None and len(data) != size:
            raise UnreadableExample(place, f"its file ends after {len(data)} of {size} bytes")
        return data
