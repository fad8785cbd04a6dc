"""TFDS data sets prepared as ArrayRecord, read without TensorFlow.

Only the files are looked at: a data set's own code is never run, so nothing is downloaded
or prepared behind the user's back, and the version on disk is the version that is read.
"""

import difflib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from vit_jax.data.examples import Example, Source, UnreadableExample
from vit_jax.data.images.decode import Encoded
from vit_jax.data.sources import fields
from vit_jax.errors import InputError

IMAGE_KEY = "image"
LABEL_KEY = "label"
_FILE_NAMES = ("file_name", "image/filename", "filename", "name")  # features that may hold it


class TfdsSource(Source):
    """One split of a TFDS data set."""

    def __init__(
        self,
        name: str,
        records: Sequence[Any],
        image_key: str,
        label_key: str,
        label_field: str,
        class_names: tuple[str, ...],
    ):
        """Args:
        records: a TFDS data source, its images as bytes or as arrays.
        label_field: "label", or "labels" where there are several.
        """
        self.name = name
        self.class_names = class_names
        self.fields = ("image", label_field)
        self._records = records
        self._image_key, self._label_key = image_key, label_key

    def __len__(self) -> int:
        return len(self._records)

    def read(self, i: int) -> Example:
        record = self._record(i)
        image = record[self._image_key]
        if isinstance(image, bytes):
            image = Encoded(image, self.describe(i))
        elif image.ndim == 2:
            image = image[..., None]
        values = {self.fields[1]: record[self._label_key]}
        place = partial(self.describe, i)
        return {"image": image, **fields.convert(values, len(self.class_names), place)}

    def file_name(self, i: int) -> str:
        record = self._record(i)
        name = next((record[key] for key in _FILE_NAMES if key in record), b"")
        return os.path.basename(os.fsdecode(name))

    def _record(self, i: int) -> dict[str, Any]:
        try:
            return self._records[i]
        except Exception as error:  # whatever the reader or the decoder met, name the example
            raise UnreadableExample(self.describe(i), _reason(error)) from error


def open_tfds(
    name: str,
    *,
    data_dir: str | None = None,
    image_key: str = IMAGE_KEY,
    label_key: str = LABEL_KEY,
) -> dict[str, Callable[[], Source]]:
    """The splits of data set `name` ('NAME', 'NAME/CONFIG', 'NAME:VERSION') in `data_dir`.

    Args:
      data_dir: folder of prepared data sets; None is TFDS's own default.
      image_key: which feature is the image.
      label_key: which feature is the label; it must be a ClassLabel, or a sequence of them.

    Raises:
      InputError: where it is unknown, not prepared, or lacks the image or the label.
    """
    data_dir = os.path.expanduser(data_dir) if data_dir else None
    builder = _builder(name, data_dir)
    features = dict(builder.info.features)
    kind = features.get(label_key)
    several = getattr(kind, "feature", None)  # of a Sequence
    names = getattr(several or kind, "names", None)
    if names is None or image_key not in features:
        listed = ", ".join(f"{key} ({type(value).__name__})" for key, value in features.items())
        raise InputError(
            f"tfds:{name} needs a feature {image_key!r} (data.image_key) and a ClassLabel "
            f"{label_key!r} (data.label_key); its features: {listed}."
        )
    formats = {form.value for form in builder.info.available_file_formats()}
    if "array_record" not in formats:
        found = f"is prepared as {', '.join(sorted(formats))} in {builder.data_path}"
        raise InputError(_unprepared(name, data_dir, found))
    settings = (image_key, label_key, "labels" if several else "label", tuple(names))
    open_split = partial(_open_split, builder, name, settings)
    return {split: partial(open_split, split) for split in builder.info.splits}


def _open_split(builder: Any, name: str, settings: tuple[Any, ...], split: str) -> Source:
    image_key = settings[0]
    decoders = _keep_encoded(builder.info.features[image_key], image_key)
    records = builder.as_data_source(split=split, file_format="array_record", decoders=decoders)
    return TfdsSource(f"tfds:{name} {split}", records, *settings)


def _keep_encoded(feature: Any, image_key: str) -> dict[str, Any] | None:
    """Decoders that leave an image in its file's bytes, so that a crop decodes only its part."""
    import tensorflow_datasets as tfds

    is_file = isinstance(feature, tfds.features.Image) and feature.np_dtype == np.uint8
    is_file = is_file and feature.shape[-1] != 4  # the files' decoder has no alpha
    return {image_key: tfds.decode.SkipDecoding()} if is_file else None


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
