"""Reads the rows of a manifest, see `manifest.py`, and says on which line a mistake is."""

import csv
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.data.sources import fields
from vit_jax.errors import InputError

COLUMNS = ("path", "split", *fields.CONVERTERS)
_Rows = Iterator[tuple[int, dict[str, Any]]]  # line, column -> value


class Table(NamedTuple):
    """The rows of a file, checked.

    Attributes:
      lines: where each row stands in the file, from 1.
      columns: column -> one value a row, labels as names or numbers.
      is_numbered: labels are numbers.
    """

    lines: list[int]
    columns: dict[str, list[Any]]
    is_numbered: bool


def collect(file: Path, found: _Rows) -> Table:
    """All rows of `file`.

    Raises:
      InputError: naming file and line, for columns that differ or are unknown, and for values
        that are not of their column.
    """
    lines, columns = [], {}
    for line, row in found:
        columns = columns if lines else {key: [] for key in _checked_columns(file, line, row)}
        if row.keys() != columns.keys():
            raise InputError(
                f"{file} line {line} has {', '.join(row)}; the first row has {', '.join(columns)}."
            )
        for key, value in row.items():
            if not _IS_RIGHT[key](value):
                raise InputError(
                    f"{file} line {line} has {key} {value!r}; allowed: {_ALLOWED[key]}."
                )
            columns[key].append(value)
        _check_boxes(file, line, row)
        lines.append(line)
    if not lines:
        raise InputError(f"{file} has no rows.")
    return Table(lines, *_typed(file, lines, columns))


def _checked_columns(file: Path, line: int, row: dict[str, Any]) -> list[str]:
    unknown = [str(key) for key in row if key not in COLUMNS]
    if unknown or "path" not in row:
        problem = f"has column {', '.join(unknown)}" if unknown else "lacks path"
        raise InputError(f"{file} line {line} {problem}; allowed columns: {', '.join(COLUMNS)}.")
    if "box_label" in row and "boxes" not in row:
        raise InputError(f"{file} line {line} has box_label without boxes.")
    return list(row)


def _check_boxes(file: Path, line: int, row: dict[str, Any]):
    if "box_label" in row and len(row["box_label"]) != len(row["boxes"]):
        raise InputError(
            f"{file} line {line} has {len(row['boxes'])} boxes and {len(row['box_label'])} "
            "values of box_label."
        )


def _typed(
    file: Path, lines: list[int], columns: dict[str, list[Any]]
) -> tuple[dict[str, list[Any]], bool]:
    """CSV's texts as numbers where each label is one; refuses names and numbers mixed."""
    of_classes = {key: columns[key] for key in fields.OF_CLASSES if key in columns}
    is_csv = file.suffix.lower() == ".csv"
    seen = {True: 0, False: 0}  # is a number -> the line that showed it first
    for key, column in of_classes.items():
        for line, value in zip(lines, column, strict=True):
            for label in (value,) if key == "label" else value:
                is_number = _is_number(label) if is_csv else isinstance(label, int)
                seen[is_number] = seen[is_number] or line
    if all(seen.values()) and not is_csv:
        raise InputError(
            f"{file} has a class number on line {seen[True]} and a class name on line "
            f"{seen[False]}; allowed: one kind."
        )
    is_numbered = bool(of_classes) and not seen[False]
    if is_numbered and is_csv:
        for key, column in of_classes.items():
            columns[key] = [
                int(value) if key == "label" else [int(label) for label in value]
                for value in column
            ]
    return columns, is_numbered


def _is_number(text: str) -> bool:
    """Is it written as 0, 1, 2, ...? '007' is a name, and so is what fits no int32."""
    return len(text) < 10 and text.isascii() and text.isdigit() and str(int(text)) == text


def _csv_rows(file: Path) -> _Rows:
    with open(file, encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, restkey="a column without a name", restval=None)
        try:
            if len(set(reader.fieldnames or ())) < len(reader.fieldnames or ()):
                raise InputError(f"{file} line 1 names a column twice.")
            for row in reader:
                yield reader.line_num, {key: _from_text(key, value) for key, value in row.items()}
        except (csv.Error, UnicodeDecodeError) as error:
            raise InputError(f"{file} line {reader.line_num + 1}: {error}.") from error


def _from_text(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if key in ("labels", "box_label"):
        return [label.strip() for label in value.split(";")] if value.strip() else []
    if key == "boxes":
        try:
            return json.loads(value) if value.strip() else []
        except ValueError:
            return value
    return value


def _json_rows(file: Path) -> _Rows:
    with open(file, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:  # also bytes that are no UTF-8
                raise InputError(f"{file} line {number} is no JSON: {error}.") from error
            if not isinstance(row, dict):
                raise InputError(f"{file} line {number} is {row!r}; allowed: a JSON object.")
            yield number, row


PARSERS: dict[str, Callable[[Path], _Rows]] = {".csv": _csv_rows, ".jsonl": _json_rows}


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_label(value: Any) -> bool:
    is_int = isinstance(value, int) and not isinstance(value, bool)
    is_negative = isinstance(value, str) and value[:1] == "-" and value[1:].isdigit()
    return (_is_text(value) and not is_negative) or (is_int and 0 <= value < 2**31)


def _are_labels(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_label, value))


def _are_boxes(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_box, value))


def _is_box(value: Any) -> bool:
    is_list = isinstance(value, list) and len(value) == 4
    if not is_list or not all(type(v) in (int, float) and math.isfinite(v) for v in value):
        return False
    left, top, right, bottom = value
    return left <= right and top <= bottom


_LABEL = "a class name, or a whole number from 0"
_IS_RIGHT: dict[str, Callable[[Any], bool]] = {
    "path": lambda value: _is_text(value) and "\0" not in value,
    "split": _is_text,
    "label": _is_label,
    "labels": _are_labels,
    "caption": lambda value: isinstance(value, str),
    "boxes": _are_boxes,
    "box_label": _are_labels,
}
_ALLOWED = {
    "path": "a file's path",
    "split": "a split's name",
    "label": _LABEL,
    "labels": f"a list, each {_LABEL}",
    "caption": "a text",
    "boxes": "[[left, top, right, bottom], ...] with left <= right and top <= bottom",
    "box_label": f"a list, each {_LABEL}",
}
