"""Prepared data: a folder with manifest.json and ArrayRecord shards, see `data/records.py`.

    manifest.json   {"format": "vit_jax array_record 1", "class_names": [...], "fields": [...],
                     "splits": {"train": {"examples": n, "shards": [
                         {"file": "train-00000-of-00004.array_record", "examples": n}, ...]}}}

"fields" is optional, a split may have its own, and so are further keys. Files are opened where they
are first read, in each process for itself.
"""

import json
import os
import threading
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

from vit_jax.data import records
from vit_jax.data.examples import Example, Source, UnreadableExample
from vit_jax.data.images.decode import Encoded
from vit_jax.data.sources import fields
from vit_jax.errors import InputError

FORMAT = "vit_jax array_record 1"
MANIFEST = "manifest.json"
# What the library's own help advises for random access.
_READER = "readahead_buffer_size:0,max_parallelism:0"


class ArrayRecordSource(Source):
    """The records of a split's shards."""

    def __init__(
        self,
        name: str,
        files: list[str],
        lengths: list[int],
        class_names: tuple[str, ...],
        field_names: tuple[str, ...] | None,
    ):
        """Args:
        files, lengths: the shards, and how many records each holds.
        field_names: None looks at the first record.
        """
        self.name, self.class_names = name, class_names
        self._files, self._ends = files, list(accumulate(lengths))
        self._forget_readers()
        self.fields = self._fields_of_first() if field_names is None else field_names

    def __len__(self) -> int:
        return self._ends[-1]

    def read(self, i: int) -> Example:
        stated, image = self._record(i)
        place = self.describe(i)
        missing = [key for key in self.fields if key != "image" and key not in stated]
        if missing:
            raise InputError(f"{place} lacks {', '.join(missing)}.")
        name = f"{place} ({stated['name']})" if "name" in stated else place
        chosen = {key: stated[key] for key in self.fields if key != "image"}
        example = fields.convert(chosen, len(self.class_names), lambda: place)
        return {"image": Encoded(image, name), **example}

    def describe(self, i: int) -> str:
        k, position = self._locate(i)
        return f"{self._files[k]} #{position}"

    def file_name(self, i: int) -> str:
        return Path(self._record(i)[0].get("name", "")).name

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k not in ("_readers", "_opening")}

    def __setstate__(self, state: Mapping[str, Any]):
        vars(self).update(state)
        self._forget_readers()

    def _forget_readers(self):
        self._readers: list[Any] = [None] * len(self._files)
        self._opening = threading.Lock()
        self._process = os.getpid()

    def _locate(self, i: int) -> tuple[int, int]:
        """The shard of example i and the position in it."""
        k = bisect_right(self._ends, i)
        return k, i - (self._ends[k - 1] if k else 0)

    def _record(self, i: int) -> tuple[dict[str, Any], bytes]:
        k, position = self._locate(i)
        try:
            (record,) = self._reader(k).read([position])
            return records.unpack(record)
        except Exception as error:  # whatever the library met, name the example
            raise UnreadableExample(self.describe(i), _reason(error)) from error

    def _reader(self, k: int) -> Any:
        """Shard k, opened once in this process, not in the one that this was forked from."""
        if self._process != os.getpid():
            self._forget_readers()
        if self._readers[k] is None:
            with self._opening:
                if self._readers[k] is None:
                    self._readers[k] = self._open(k)
        return self._readers[k]

    def _open(self, k: int) -> Any:
        from array_record.python.array_record_module import ArrayRecordReader

        reader = ArrayRecordReader(self._files[k], _READER)
        if not reader.ok():
            reader.read([0])  # raises with the reason, which opening keeps to itself
        promised = self._ends[k] - (self._ends[k - 1] if k else 0)
        if reader.num_records() != promised:
            found = reader.num_records()
            raise InputError(f"the file has {found} records, the manifest promises {promised}")
        return reader

    def _fields_of_first(self) -> tuple[str, ...]:
        stated, _ = self._record(0)
        return ("image", *(key for key in fields.CONVERTERS if key in stated))


def open_array_record(path: str) -> dict[str, Callable[[], Source]]:
    """The splits that the manifest in folder `path` lists.

    Raises:
      InputError: without a manifest or a shard it names, or where it is of another format.
    """
    folder = Path(path).expanduser()
    file = folder / MANIFEST
    if not path or not file.is_file():
        raise InputError(
            f"Source 'array_record:{path}' needs a folder that holds {MANIFEST}: array_record:PATH."
        )
    try:
        manifest = json.loads(file.read_text("utf-8"))
        if manifest["format"] != FORMAT:
            found = manifest["format"]
            raise InputError(f"{file} is of format {found!r}; {FORMAT!r} can be read.")
        told = manifest["splits"]
        splits = {name: _shards(folder, split) for name, split in told.items()}
        names = tuple(manifest["class_names"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} cannot be read ({error!r}).") from error
    stated = {name: split.get("fields", manifest.get("fields")) for name, split in told.items()}
    return {
        name: partial(_open_split, f"array_record:{path} {name}", shards, names, stated[name])
        for name, shards in splits.items()
        if shards
    }


def _shards(folder: Path, split: Mapping[str, Any]) -> dict[str, int]:
    """{file: how many records}, without empty shards."""
    shards = {str(folder / shard["file"]): int(shard["examples"]) for shard in split["shards"]}
    return {file: n for file, n in shards.items() if n}


def _open_split(
    name: str, shards: Mapping[str, int], class_names: tuple[str, ...], stated: Sequence[str] | None
) -> Source:
    for file in shards:
        if not Path(file).is_file():
            raise InputError(f"{name} needs {file}, which does not exist.")
    files, lengths = list(shards), list(shards.values())
    return ArrayRecordSource(name, files, lengths, class_names, stated and tuple(stated))


def _reason(error: Exception) -> str:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return text[0].rstrip(".")
