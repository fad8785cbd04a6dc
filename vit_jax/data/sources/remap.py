"""Other labels for a source's examples, so that it can be scored with a model's own classes.

    {'name': 'classes'}   classes of a subset, told by name: ImageNet-A, -R and -Sketch, whose 200
                          or 1,000 folders are the WordNet ids of ImageNet's classes; with 'table',
                          a JSON object {class of the source: class or index of the model}
    {'name': 'numbers'}   classes named by their index: the folders '0' to '999' of ImageNet-V2
                          (arXiv:1902.10811), which are sorted as text: 0, 1, 10, 100, ...
    {'name': 'order'}     as many classes as the model's, in the same order, whatever their names:
                          ImageNet's folders, sorted by WordNet id, for published weights
    {'name': 'real'}      ImageNet ReaL (arXiv:2006.07159): 'table' is its real.json, a list with
                          the labels of each validation image, in the order of the file names
                          ILSVRC2012_val_00000001 to 00050000; an image may have none

A task's accuracy is then among all classes of the model. Published figures of ImageNet-A and -R are
among their 200 alone, which `present` tells, and by which the protocol `classification` goes.

'class_names' of the model are a list, a .json list, or a .txt file of one name a line.

Letters: k = classes of the source; n = images that a table lists.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.data.examples import Example, Range, Source
from vit_jax.data.packed import Ragged
from vit_jax.data.sources import fields
from vit_jax.errors import InputError

_VALIDATION_IMAGE = re.compile(r"ILSVRC2012_val_(\d{8})")


class _Wrapped(Source):
    """A source of the same examples, with other labels."""

    def __init__(self, base: Source, class_names: tuple[str, ...]):
        self.name, self.class_names, self.fields = base.name, class_names, base.fields
        self._base = base

    def __len__(self) -> int:
        return len(self._base)

    def ranges(self) -> list[Range]:
        return self._base.ranges()

    def describe(self, i: int) -> str:
        return self._base.describe(i)

    def file_name(self, i: int) -> str:
        return self._base.file_name(i)


class Remapped(_Wrapped):
    """Each class of the base becomes another class."""

    def __init__(self, base: Source, class_names: tuple[str, ...], table: np.ndarray):
        """Args:
        class_names: the new ones.
        table: int32[k], the new label of each label of the base.
        """
        super().__init__(base, class_names)
        self.present = tuple(np.unique(table).tolist())
        self._table = table

    def read(self, i: int) -> Example:
        example = dict(self._base.read(i))
        for key in fields.OF_CLASSES:
            if key in example:
                new = self._table[np.asarray(example[key], np.int64)]
                example[key] = fields.CONVERTERS[key](new)
        return example


class Relabelled(_Wrapped):
    """Labels of a table, found by the number in the file's name, instead of the base's own."""

    def __init__(self, base: Source, class_names: tuple[str, ...], labels: Ragged):
        """Args:
        labels: n lists of labels; that of image number 1 first.
        """
        super().__init__(base, class_names)
        self.fields = (*(key for key in base.fields if key not in fields.OF_CLASSES), "labels")
        self.present = tuple(np.unique(labels.values).tolist())
        self._labels = labels

    def read(self, i: int) -> Example:
        labels = fields.as_labels(self._labels[self._position(i)])
        example = self._base.read(i)
        kept = {key: value for key, value in example.items() if key in self.fields}
        return {**kept, "labels": labels}

    def _position(self, i: int) -> int:
        name = self._base.file_name(i)
        match = _VALIDATION_IMAGE.search(name)
        if match is None or not 1 <= int(match[1]) <= len(self._labels):
            raise InputError(
                f"{self.describe(i)} has the file name {name!r}, which tells none of the "
                f"{len(self._labels)} images of the table; expected ILSVRC2012_val_ and 8 digits."
            )
        return int(match[1]) - 1


def remap(
    base: Source, labels: Mapping[str, Any], *, class_names: Sequence[str] | None = None
) -> Remapped | Relabelled:
    """Gives the examples of `base` the labels that a config's `labels` describe.

    Args:
      labels: 'name', a key of `REMAPS`, and the settings of that function.
      class_names: those of the model, unless `labels` has its own.

    Raises:
      InputError: where classes or examples of the source have no place, with how many.
    """
    where = "data.labels"
    rest = {key: value for key, value in labels.items() if key != "name"}
    builder = sections.choose(REMAPS, labels.get("name"), where=f"{where}.name")
    names = _read_names(rest.pop("class_names", class_names))
    return sections.call(builder, rest, where=where, base=base, class_names=names)


def by_class(*, base: Source, class_names: tuple[str, ...], table: str | None = None) -> Remapped:
    """Labels by the name of the class, or by what `table`, a JSON file, makes of that name."""
    _need_classes(base)
    found = dict(zip(base.class_names, base.class_names, strict=True))
    if table is not None:
        found = _read_json(table, dict, "an object {class of the source: class of the model}")
    number = {name: i for i, name in enumerate(class_names)}
    new = [_index(found.get(name), number) for name in base.class_names]
    lost = [name for name, label in zip(base.class_names, new, strict=True) if label is None]
    if lost:
        raise InputError(
            f"{base.name} has {len(base.class_names)} classes, {len(lost)} of them without a place "
            f"among the {len(class_names)} of the model: {fields.listed(lost)}."
        )
    return Remapped(base, class_names, np.array(new, np.int32))


def by_number(*, base: Source, class_names: tuple[str, ...]) -> Remapped:
    """Labels that are the name of the class, read as a number."""
    _need_classes(base)
    allowed = {str(i): i for i in range(len(class_names))}
    lost = [name for name in base.class_names if name not in allowed]
    if lost:
        raise InputError(
            f"{base.name} has {len(base.class_names)} classes, {len(lost)} of them no number from "
            f"0 to {len(class_names) - 1}: {fields.listed(lost)}."
        )
    table = [allowed[name] for name in base.class_names]
    return Remapped(base, class_names, np.array(table, np.int32))


def by_order(*, base: Source, class_names: tuple[str, ...]) -> Remapped:
    """The i-th class is the model's i-th."""
    _need_classes(base)
    if len(base.class_names) != len(class_names):
        raise InputError(
            f"{base.name} has {len(base.class_names)} classes, but the model {len(class_names)}; "
            "allowed with labels 'order': as many."
        )
    return Remapped(base, class_names, np.arange(len(class_names), dtype=np.int32))


def real(*, base: Source, class_names: tuple[str, ...], table: str) -> Relabelled:
    """The reassessed labels of ImageNet's validation images."""
    shape = "a list with a list of labels for each image"
    lists = _read_json(table, list, shape)
    is_right = all(
        isinstance(labels, list) and all(type(label) is int for label in labels) for labels in lists
    )
    if not lists or not is_right:
        raise InputError(f"{table} must hold {shape}.")
    labels = Ragged.pack(lists, np.int32)
    outside = int(((labels.values < 0) | (labels.values >= len(class_names))).sum())
    if outside:
        raise InputError(
            f"{table} has {len(labels.values)} labels, {outside} of them outside the "
            f"{len(class_names)} classes of the model."
        )
    if len(base) > len(lists):
        raise InputError(f"{base.name} has {len(base)} examples, {table} labels {len(lists)}.")
    relabelled = Relabelled(base, class_names, labels)
    relabelled.read(0)  # other file names are told now rather than in the midst of an evaluation
    return relabelled


REMAPS = {"classes": by_class, "numbers": by_number, "order": by_order, "real": real}


def _need_classes(base: Source):
    if not base.class_names:
        raise InputError(f"{base.name} has no labels that could be mapped.")


def _index(found: Any, number: Mapping[str, int]) -> int | None:
    if isinstance(found, str):
        return number.get(found)
    is_index = isinstance(found, int) and not isinstance(found, bool)
    return found if is_index and 0 <= found < len(number) else None


def _read_names(names: str | Sequence[str] | None) -> tuple[str, ...]:
    """Class names given, or listed in a file."""
    if isinstance(names, str):
        if names.endswith(".txt"):
            names = [line for line in _read_text(names).splitlines() if line.strip()]
        else:
            names = _read_json(names, list, "a list of class names")
    is_list = isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    if not is_list or not names:
        raise InputError("data.labels lacks class_names, those of the model: a list or a file.")
    if len(set(names)) < len(names):
        raise InputError(f"data.labels.class_names has {len(names) - len(set(names))} repetitions.")
    return tuple(names)


def _read_json(file: str, kind: type, shape: str) -> Any:
    try:
        value = json.loads(_read_text(file))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} is no JSON: {error}.") from error
    if not isinstance(value, kind):
        raise InputError(f"{file} must hold {shape}.")
    return value


def _read_text(file: str) -> str:
    try:
        return Path(file).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {file}: {error}.") from error
