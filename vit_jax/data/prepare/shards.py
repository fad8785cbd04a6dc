"""One shard: a run of examples, each verified by decoding it, written as one ArrayRecord file.

A shard is the unit of work and of resuming. It is written to a temporary name, synced and renamed,
and its report is written after it, so a report speaks for a whole file. What is in the file depends
on the examples alone.
"""

import collections
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax.data import records
from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import Encoded
from vit_jax.data.prepare.index import Files, Index, Raw
from vit_jax.data.prepare.pool import Count
from vit_jax.data.prepare.shrink import Shrink
from vit_jax.data.sources.fields import MOST_NUMBERED
from vit_jax.errors import InputError

# One record a chunk, so that an example is read alone; image files are compressed already.
WRITER_OPTIONS = "group_size:1,uncompressed"
_HASHED = 1 << 20  # bytes at a time


class Shard(NamedTuple):
    """What a worker needs for a shard.

    Attributes:
      target: the file to write.
      report: the file that tells of it, written last.
      index: the examples.
      read: reads one of them.
      class_names: a label may be one of them; None: labels are numbers.
      strict: raise for an unreadable example instead of listing it.
      shrink: makes large images smaller; None leaves all as they are.
    """

    target: str
    report: str
    index: Index
    read: Callable[[Index, int, Files], Raw]
    class_names: tuple[str, ...] | None
    strict: bool
    shrink: Shrink | None = None


class _Report:
    """Counts of what was written; all of them can be added to those of other shards."""

    def __init__(self):
        self.examples = 0
        self.image_bytes = 0
        self.counts = {
            name: collections.Counter()
            for name in ("labels", "heights", "widths", "channels", "fields")
        }
        self.unreadable: list[dict[str, str]] = []

    def add(self, shape: tuple[int, int, int], fields: dict[str, Any], size: int) -> None:
        self.examples += 1
        self.image_bytes += size
        for name, value in zip(("heights", "widths", "channels"), shape, strict=True):
            self.counts[name][value] += 1
        if "label" in fields:
            self.counts["labels"][fields["label"]] += 1
        self.counts["labels"].update(set(fields.get("labels", ())))
        self.counts["fields"].update(["image", *fields])

    def as_json(self) -> dict[str, Any]:
        counts = {name: dict(sorted(count.items())) for name, count in self.counts.items()}
        return {
            "examples": self.examples,
            "image_bytes": self.image_bytes,
            **counts,
            "unreadable": self.unreadable,
        }


def write_shard(shard: Shard, count: Count) -> dict[str, Any]:
    """Writes a shard; returns its report, which is JSON.

    Raises:
      UnreadableExample: where `shard.strict` and an example cannot be read.
      InputError: where the file cannot be written.
    """
    target = Path(shard.target)
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    report = _Report()
    try:
        _write(temporary, _verified(shard, report, count))
        _check_whole(temporary, report.examples)
        told = {"file": target.name, "bytes": temporary.stat().st_size}
        told |= {"sha256": hash_file(temporary), **report.as_json()}
        sync(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    write_json(Path(shard.report), told)
    return json.loads(json.dumps(told))  # keys are strings, as they are in the file


def read_report(shard: Shard) -> dict[str, Any] | None:
    """The report of a shard that is finished, or None."""
    try:
        told = json.loads(Path(shard.report).read_text())
        is_whole = Path(shard.target).stat().st_size == told["bytes"]
    except (OSError, ValueError, KeyError):
        return None
    return told if is_whole else None


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_HASHED):
            digest.update(piece)
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Waits until a file is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Writes a file whole or not at all; `InputError` where that is impossible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")
        sync(temporary)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"Cannot write {path}: {error.strerror}.") from error


def _verified(shard: Shard, report: _Report, count: Count) -> Iterator[bytes]:
    """The records of the readable examples; the others go to the report."""
    with Files() as files:
        for i in range(len(shard.index)):
            try:
                raw = shard.read(shard.index, i, files)
                fields = {**_checked(raw.fields, shard, i), "name": shard.index.shown(i)}
                pixels = Encoded(raw.image, shard.index.shown(i)).decode()
                image, shape = raw.image, pixels.shape
                if shard.shrink is not None:
                    image, shape = shard.shrink.apply(pixels, image)
                yield records.pack(fields, image)
                report.add(shape, fields, len(image))
            except UnreadableExample as error:
                if shard.strict:
                    raise
                report.unreadable.append({"name": error.place, "reason": error.reason})
            count(1, int(shard.index.columns["size"][i]))


def _checked(fields: dict[str, Any], shard: Shard, i: int) -> dict[str, Any]:
    """The fields, with labels that are positions in the classes and a caption that is text."""
    name, found = shard.index.shown(i), dict(fields)
    if "label" in found:
        found["label"] = _position(found["label"], shard.class_names, name)
    if "labels" in found:
        if not isinstance(found["labels"], list):
            raise UnreadableExample(name, f"its labels {found['labels']!a} are no list")
        found["labels"] = [_position(one, shard.class_names, name) for one in found["labels"]]
    if "caption" in found and not _is_text(found["caption"]):
        raise UnreadableExample(name, f"its caption {found['caption']!a} is no text")
    return found


def _position(label: Any, names: tuple[str, ...] | None, place: str) -> int:
    """A label as a position in the class names; it may be one of them."""
    if isinstance(label, str) and names is not None and label in names:
        return names.index(label)
    if isinstance(label, bool) or not isinstance(label, int):
        hint = "" if names else "; names of classes need --labels"
        raise UnreadableExample(place, f"its label {label!a} is no number{hint}")
    limit = MOST_NUMBERED if names is None else len(names)
    if not 0 <= label < limit:
        raise UnreadableExample(place, f"its label {label} is not in 0 to {limit - 1}")
    return label


def _is_text(value: Any) -> bool:
    try:
        value.encode()
    except (AttributeError, UnicodeEncodeError):  # JSON can spell half a character
        return False
    return isinstance(value, str)


def _write(path: Path, packed: Iterator[bytes]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    try:
        writer = ArrayRecordWriter(str(path), WRITER_OPTIONS)
        try:
            for record in packed:
                writer.write(record)
        finally:
            writer.close()
    except RuntimeError as error:  # what ArrayRecord makes of any trouble with the disk
        raise InputError(f"Cannot write {path.parent}: {error}.") from error


def _check_whole(path: Path, examples: int) -> None:
    """A shard's report vouches for it, so look before."""
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(str(path))
    try:
        found = reader.num_records()
    except RuntimeError:
        found = 0
    finally:
        reader.close()
    if found != examples:
        raise InputError(f"{path.parent} took {found} of {examples} records of a shard.")
