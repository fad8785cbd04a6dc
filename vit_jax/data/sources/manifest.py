"""A list of images with what is known of each: a .csv file with a header, or .jsonl.

    path       the image, relative to the file's folder or absolute
    split      optional; without it all rows are the split 'train'
    label      a class name, or a number
    labels     several of them: a list; in CSV separated by ';', empty for none
    caption    a sentence
    boxes      [[left, top, right, bottom], ...] in pixels; in CSV the same text
    box_label  as many class names or numbers as boxes; a list, in CSV separated by ';'

Classes that have names are the sorted ones over all splits. Classes that are numbers are called
'0' to the largest; in CSV, where all is text, that is when each is written as a whole number.

Letters: n = rows of a split.
"""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.examples import Example, Source
from vit_jax.data.images.decode import read_encoded
from vit_jax.data.packed import Ragged, Strings
from vit_jax.data.sources import fields, rows
from vit_jax.errors import InputError

_Column = np.ndarray | Ragged | Strings


class ManifestSource(Source):
    """Image files and one column a field."""

    def __init__(
        self,
        name: str,
        folder: str,
        paths: Strings,
        columns: Mapping[str, _Column],
        class_names: tuple[str, ...],
    ):
        """Args:
        folder: what `paths` are relative to.
        columns: field -> n values.
        """
        self.name, self.class_names = name, class_names
        self.fields = ("image", *columns)
        self._folder, self._paths, self._columns = folder, paths, dict(columns)

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, i: int) -> Example:
        values = {key: fields.CONVERTERS[key](column[i]) for key, column in self._columns.items()}
        return {"image": read_encoded(self.describe(i)), **values}

    def describe(self, i: int) -> str:
        return os.path.join(self._folder, self._paths[i])

    def file_name(self, i: int) -> str:
        return os.path.basename(self._paths[i])


def open_manifest(path: str) -> dict[str, Callable[[], Source]]:
    """The splits of the manifest `path`; whether the images exist is seen when they are read.

    Raises:
      InputError: naming file and line, where a row cannot be understood.
    """
    file = Path(path).expanduser()
    parse = rows.PARSERS.get(file.suffix.lower())
    if parse is None or not file.is_file():
        raise InputError(
            f"Source 'manifest:{path}' needs an existing file that ends in "
            f"{' or '.join(rows.PARSERS)}: manifest:PATH."
        )
    table = rows.collect(file, parse(file))
    names = _class_names(file, table)
    return {
        split: partial(_open_split, file, f"manifest:{path} {split}", table, where, names)
        for split, where in _splits(table).items()
    }


def _splits(table: rows.Table) -> dict[str, np.ndarray]:
    """{split: positions of its rows}, in the order in which splits appear."""
    if "split" not in table.columns:
        return {"train": np.arange(len(table.lines))}
    values = np.array(table.columns["split"])
    return {split: np.flatnonzero(values == split) for split in dict.fromkeys(values.tolist())}


def _open_split(
    file: Path, name: str, table: rows.Table, where: np.ndarray, class_names: tuple[str, ...]
) -> Source:
    columns = {key: [column[i] for i in where] for key, column in table.columns.items()}
    number = None if table.is_numbered else {k: i for i, k in enumerate(class_names)}
    packed = {key: _pack(key, columns[key], number) for key in fields.CONVERTERS if key in columns}
    paths = Strings.pack(columns["path"])
    return ManifestSource(name, str(file.parent), paths, packed, class_names)


def _pack(key: str, column: list[Any], number: Mapping[str, int] | None) -> _Column:
    if key == "caption":
        return Strings.pack(column)
    if key == "boxes":
        return Ragged.pack(column, np.float32, (4,))
    if number is not None:
        is_one = key == "label"
        column = [number[k] if is_one else [number[name] for name in k] for k in column]
    return np.array(column, np.int32) if key == "label" else Ragged.pack(column, np.int32)


def _class_names(file: Path, table: rows.Table) -> tuple[str, ...]:
    labels = list(_labels(table.columns))
    if not table.is_numbered:
        return tuple(sorted(set(labels)))
    return fields.numbered([np.array(labels, np.int64)], str(file))


def _labels(columns: Mapping[str, Sequence[Any]]) -> Iterable[Any]:
    for key in fields.OF_CLASSES:
        for value in columns.get(key, ()):
            yield from (value,) if key == "label" else value
