"""Data sets of the Hugging Face library `datasets`, an optional package.

NAME_OR_PATH is a folder written by `save_to_disk`, a folder of Parquet or Arrow files (or of
anything else that `load_dataset` knows), or a name on the hub. The rows stay in Arrow files that
are mapped into memory; an image is taken as the bytes of its file and decoded where it is needed.
Row functions of `datasets` are not used, and neither is any tensor library.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.examples import Example, Source, UnreadableExample
from vit_jax.data.images.decode import Encoded, read_encoded
from vit_jax.data.sources import fields
from vit_jax.errors import InputError

IMAGE_KEY = "image"
LABEL_KEY = "label"
CAPTION_KEY = "caption"
_SAVED = ("dataset_dict.json", "state.json")  # what `save_to_disk` leaves


class HuggingFaceSource(Source):
    """One split of a data set."""

    def __init__(
        self,
        name: str,
        rows: Any,
        image_key: str,
        columns: Mapping[str, str],
        class_names: tuple[str, ...],
        number: Mapping[str, int] | None,
    ):
        """Args:
        rows: a `datasets.Dataset` whose image column is not decoded.
        columns: field -> the column that holds it.
        number: of each class, where labels are names.
        """
        self.name, self.class_names = name, class_names
        self.fields = ("image", *columns)
        self._rows, self._image_key, self._columns = rows, image_key, dict(columns)
        self._number = number

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, i: int) -> Example:
        place = self.describe(i)
        row = self._row(i)
        values = {field: row[column] for field, column in self._columns.items()}
        unknown = [field for field, value in values.items() if value is None]
        if unknown:
            raise InputError(f"{place} has no {', '.join(unknown)}.")
        if self._number is not None:
            values = {field: self._numbered(value, field) for field, value in values.items()}
        example = fields.convert(values, len(self.class_names), lambda: place)
        return {"image": _image(row[self._image_key], place), **example}

    def file_name(self, i: int) -> str:
        return Path((self._row(i)[self._image_key] or {}).get("path") or "").name

    def _numbered(self, value: Any, field: str) -> Any:
        if field == "label":
            return self._number[value]
        return [self._number[name] for name in value] if field == "labels" else value

    def _row(self, i: int) -> dict[str, Any]:
        try:
            return self._rows[i]
        except Exception as error:  # a damaged Arrow file raises nearly anything
            raise UnreadableExample(self.describe(i), str(error).rstrip(".")) from error


def open_hugging_face(
    path: str, *, image_key: str = IMAGE_KEY, label_key: str = LABEL_KEY
) -> dict[str, Callable[[], Source]]:
    """The splits of NAME_OR_PATH[:CONFIG]; what is on the hub is fetched, once.

    Args:
      image_key: which column is the image.
      label_key: which column is the label: a ClassLabel, a sequence of them, whole numbers or
        strings. Without it, a column 'caption' will do.

    Raises:
      InputError: without the package, for what cannot be opened, or lacks these columns.
    """
    if not path:
        raise InputError("Source 'hf:' needs a name or a folder: hf:NAME_OR_PATH[:CONFIG].")
    loaded = _load(path)
    first = next(iter(loaded.values()))
    columns = _columns(path, first.features, image_key, label_key)
    names = partial(_class_names, path, list(loaded.values()), label_key, list(columns))
    return {
        split: partial(_open_split, f"hf:{path} {split}", rows, image_key, columns, names)
        for split, rows in loaded.items()
    }


def _load(path: str) -> dict[str, Any]:
    """{split: its `datasets.Dataset`}."""
    try:
        import datasets
    except ImportError as error:
        raise InputError(f"hf:{path} needs the package datasets ({error}).") from error
    try:
        folder = Path(path).expanduser()
        if any((folder / file).is_file() for file in _SAVED):
            loaded = datasets.load_from_disk(str(folder))
        elif folder.is_dir():
            loaded = datasets.load_dataset(str(folder))
        else:
            name, _, config = path.partition(":")
            loaded = datasets.load_dataset(name, config or None)
    except Exception as error:  # of the file system, of Arrow, of the network
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(f"Cannot open hf:{path}: {reason}.") from error
    if isinstance(loaded, datasets.Dataset):
        return {str(loaded.split or "train"): loaded}
    return dict(loaded)


def _columns(path: str, features: Mapping[str, Any], image_key: str, label_key: str) -> dict:
    """{field: column}; InputError where there is no image, or nothing is known of it."""
    import datasets

    columns = {}
    if _has_classes(features.get(label_key)):
        columns["labels" if hasattr(features[label_key], "feature") else "label"] = label_key
    if _is_text(features.get(CAPTION_KEY)):
        columns["caption"] = CAPTION_KEY
    if not isinstance(features.get(image_key), datasets.Image) or not columns:
        listed = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
        raise InputError(
            f"hf:{path} needs an Image {image_key!r} (data.image_key) and a label {label_key!r} "
            f"(data.label_key) or a text {CAPTION_KEY!r}; its columns: {listed}."
        )
    return columns


def _has_classes(feature: Any) -> bool:
    """Is it a ClassLabel, whole numbers or strings, or a list of such?"""
    kind = getattr(feature, "feature", feature)
    dtype = str(getattr(kind, "dtype", None))  # a ClassLabel's is int64
    return _is_text(kind) or dtype.startswith(("int", "uint"))


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", None) in ("string", "large_string")


def _class_names(path: str, splits: list[Any], label_key: str, known: list[str]) -> tuple[str, ...]:
    """The names of the ClassLabel; else the strings, sorted, or the numbers, over all splits."""
    if "label" not in known and "labels" not in known:
        return ()
    kind = splits[0].features[label_key]
    kind = getattr(kind, "feature", kind)
    if hasattr(kind, "names"):
        return tuple(kind.names)
    values = set().union(*(_distinct(rows, label_key) for rows in splits)) - {None}
    if all(isinstance(value, int) for value in values):
        return fields.numbered([np.array(list(values), np.int64)], f"hf:{path} {label_key}")
    return tuple(sorted(values))


def _distinct(rows: Any, column: str) -> set[Any]:
    """The values that occur in a column, or in the lists of a column."""
    values = rows.select_columns([column]).with_format("arrow")[:].column(0)
    is_list = hasattr(rows.features[column], "feature")
    return set((values.combine_chunks().flatten() if is_list else values).unique().to_pylist())


def _open_split(
    name: str, rows: Any, image_key: str, columns: Mapping[str, str], names: Callable
) -> Source:
    import datasets

    wanted = [image_key, *columns.values()]
    rows = rows.select_columns(wanted).cast_column(image_key, datasets.Image(decode=False))
    class_names = names()
    kind = rows.features.get(columns.get("label") or columns.get("labels"))
    is_named = _is_text(getattr(kind, "feature", kind))
    number = {k: i for i, k in enumerate(class_names)} if is_named else None
    return HuggingFaceSource(name, rows, image_key, columns, class_names, number)


def _image(value: Mapping[str, Any] | None, place: str) -> Encoded:
    """An image column's value: the bytes, or else the path of a file."""
    data, path = (value or {}).get("bytes"), (value or {}).get("path")
    if data is None and path is None:
        raise UnreadableExample(place, "there is no image")
    if data is None:
        return read_encoded(path)
    return Encoded(data, f"{place} ({path})" if path else place)
