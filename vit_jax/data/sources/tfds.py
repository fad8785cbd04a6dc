"""TFDS data sets prepared as ArrayRecord, read without TensorFlow.

Only the files are looked at: a data set's own code is never run, so nothing is downloaded
or prepared behind the user's back, and the version on disk is the version that is read.
"""

import difflib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from vit_jax.data.examples import Example, Source, UnreadableExample
from vit_jax.errors import InputError

IMAGE_KEY = "image"


class TfdsSource(Source):
    """One split of a TFDS data set."""

    def __init__(
        self, name: str, records: Sequence[Any], label_key: str, class_names: tuple[str, ...]
    ):
        self.name = name
        self.class_names = class_names
        self._records = records
        self._label_key = label_key

    def __len__(self) -> int:
        return len(self._records)

    def read(self, i: int) -> Example:
        try:
            record = self._records[i]
        except Exception as error:  # whatever the reader or the decoder met, name the example
            raise UnreadableExample(self.describe(i), _reason(error)) from error
        image, label = record[IMAGE_KEY], int(record[self._label_key])
        if not 0 <= label < len(self.class_names):
            raise InputError(
                f"{self.describe(i)} has {self._label_key} {label}, outside the "
                f"{len(self.class_names)} classes; a split without labels cannot be used here."
            )
        return {"image": image if image.ndim == 3 else image[..., None], "label": label}


def open_tfds(
    name: str, *, data_dir: str | None = None, label_key: str = "label"
) -> dict[str, Callable[[], Source]]:
    """The splits of data set `name` ('NAME', 'NAME/CONFIG', 'NAME:VERSION') in `data_dir`.

    Args:
      data_dir: folder of prepared data sets; None is TFDS's own default.
      label_key: which feature is the label; it must be a ClassLabel.

    Raises:
      InputError: where it is unknown, not prepared, or lacks the image or the label.
    """
    data_dir = os.path.expanduser(data_dir) if data_dir else None
    builder = _builder(name, data_dir)
    features = dict(builder.info.features)
    names = getattr(features.get(label_key), "names", None)
    if names is None or IMAGE_KEY not in features:
        listed = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
        raise InputError(
            f"tfds:{name} needs a feature {IMAGE_KEY!r} and a ClassLabel {label_key!r} "
            f"(data.label_key); its features: {listed}."
        )
    formats = {form.value for form in builder.info.available_file_formats()}
    if "array_record" not in formats:
        found = f"is prepared as {', '.join(sorted(formats))} in {builder.data_path}"
        raise InputError(_unprepared(name, data_dir, found))
    open_split = partial(_open_split, builder, name, label_key, tuple(names))
    return {split: partial(open_split, split) for split in builder.info.splits}


def _open_split(
    builder: Any, name: str, label_key: str, class_names: tuple[str, ...], split: str
) -> Source:
    records = builder.as_data_source(split=split, file_format="array_record")
    return TfdsSource(f"tfds:{name} {split}", records, label_key, class_names)


def _builder(name: str, data_dir: str | None) -> Any:
    try:
        import tensorflow_datasets as tfds
        from tensorflow_datasets.core import read_only_builder
    except ImportError as error:
        raise InputError(f"tfds:{name} needs the package tensorflow-datasets ({error}).") from error
    try:
        return read_only_builder.builder_from_files(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError:
        pass
    except (ValueError, AssertionError, OSError) as error:
        raise InputError(f"Cannot open tfds:{name}: {_reason(error)}.") from error
    known = tfds.list_builders(with_community_datasets=False)
    if name.partition("/")[0].partition(":")[0] not in known:
        close = difflib.get_close_matches(name, known)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise InputError(f"tfds:{name} is no TFDS data set and not in {_place(data_dir)}{hint}")
    raise InputError(_unprepared(name, data_dir, f"is not in {_place(data_dir)}"))


def _unprepared(name: str, data_dir: str | None, found: str) -> str:
    flag = f" --data_dir={data_dir}" if data_dir else ""
    return (
        f"tfds:{name} {found}; prepare it once as ArrayRecord, where TensorFlow is installed: "
        f"tfds build {name} --file_format=array_record{flag}"
    )


def _place(data_dir: str | None) -> str:
    return str(data_dir) if data_dir else "TFDS's default folder (TFDS_DATA_DIR)"


def _reason(error: Exception) -> str:
    """The first line: TFDS appends paragraphs of advice to its messages."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
