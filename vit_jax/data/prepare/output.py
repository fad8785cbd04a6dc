"""The folder that is written, and what is kept in it until it is whole.

manifest.json                      written last: its presence says that the data set is whole
SPLIT-00000-of-00004.array_record  the shards
.progress/settings.json            what was asked for, and the digest of what was found
.progress/SPLIT-00000-of-00004.json    the report of a finished shard
.progress/lock                     held by the process that writes here
"""

import bisect
import contextlib
import fcntl
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax.data.prepare.index import Lost
from vit_jax.data.prepare.shards import write_json
from vit_jax.data.sources.array_record import FORMAT, MANIFEST
from vit_jax.data.sources.fields import CONVERTERS
from vit_jax.errors import InputError

SUFFIX = ".array_record"


class Output:
    """A folder that becomes a data set.

    Args:
      path: the folder; made where it does not exist.
      settings: what decides on its content, as JSON.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]):
        self.path = Path(path).expanduser()
        self.progress = self.path / ".progress"
        self.settings = dict(settings)

    @contextlib.contextmanager
    def claimed(self) -> Iterator[None]:
        """For the duration of a `with` block nobody else may write here.

        Raises:
          InputError: if it cannot be written, is in use, or holds anything else.
        """
        try:
            if self.path.is_dir() and any(self.path.iterdir()) and not self._is_ours():
                raise InputError(f"{self.path} holds other files; allowed: a new or empty folder.")
            self.progress.mkdir(parents=True, exist_ok=True)
            lock = (self.progress / "lock").open("w")
        except OSError as error:
            raise InputError(f"Cannot write {self.path}: {error.strerror}.") from error
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise InputError(f"Another process is preparing {self.path}.") from error
            try:
                yield
            finally:
                if not (self.progress / "settings.json").is_file():  # nothing was begun
                    self.clear()

    def finished(self) -> dict[str, Any] | None:
        """The manifest, where the folder is whole and made of the same settings.

        Raises:
          InputError: where it is whole and made of other settings.
        """
        manifest = _read_json(self.path / MANIFEST)
        if manifest is not None:
            _expect(manifest.get("settings", {}), self.settings, self.path)
        return manifest

    def begin(self, digest: str) -> None:
        """Stores the settings, or compares them with those of the start that was interrupted.

        Raises:
          InputError: for other settings, and for an input that has changed since.
        """
        file = self.progress / "settings.json"
        started = _read_json(file)
        if started is None:
            write_json(file, {"settings": self.settings, "digest": digest})
            return
        _expect(started["settings"], self.settings, self.path)
        if started["digest"] != digest:
            raise InputError(
                f"{self.settings['source']} has changed since {self.path} was begun; remove that "
                f"folder or name another one."
            )
        for left in self.path.glob(f".*{SUFFIX}.*"):  # of a process that was killed
            left.unlink()

    def finish(self, manifest: Mapping[str, Any]) -> None:
        """Writes the manifest, which makes the data set whole."""
        write_json(self.path / MANIFEST, manifest)
        self.clear()

    def clear(self) -> None:
        """Removes what served only to continue."""
        shutil.rmtree(self.progress, ignore_errors=True)

    def _is_ours(self) -> bool:
        return self.progress.is_dir() or (self.path / MANIFEST).is_file()


def make_manifest(
    settings: Mapping[str, Any],
    class_names: Sequence[str] | None,
    reports: Mapping[str, Sequence[Mapping[str, Any]]],
    lost: Mapping[str, Sequence[Lost]],
) -> dict[str, Any]:
    """The manifest, from the reports of each split's shards in their order."""
    if class_names is None:
        seen = [int(label) for told in reports.values() for one in told for label in one["labels"]]
        class_names = [str(label) for label in range(max(seen, default=-1) + 1)]
    splits = {split: _split(told, lost[split], len(class_names)) for split, told in reports.items()}
    return {
        "format": FORMAT,
        "source": settings["source"],
        "settings": dict(settings),
        "class_names": list(class_names),
        "fields": [
            name
            for name in ("image", *CONVERTERS)
            if all(name in split["fields"] for split in splits.values())
        ],
        "splits": splits,
    }


def _split(
    reports: Sequence[Mapping[str, Any]], lost: Sequence[Lost], num_classes: int
) -> dict[str, Any]:
    counts = {name: _sum(reports, name) for name in ("labels", "heights", "widths", "channels")}
    with_field = _in_order(_added(reports, "fields"))
    examples = sum(one["examples"] for one in reports)
    return {
        "examples": examples,
        "bytes": sum(one["image_bytes"] for one in reports),
        "per_class": [counts["labels"].get(label, 0) for label in range(num_classes)],
        "sizes": {
            "height": summary(counts["heights"]),
            "width": summary(counts["widths"]),
            "channels": {str(key): count for key, count in sorted(counts["channels"].items())},
        },
        "fields": _complete(with_field, examples),
        "with_field": with_field,
        "unreadable": [one._asdict() for one in lost]
        + [bad for one in reports for bad in one["unreadable"]],
        "shards": [
            {key: one[key] for key in ("file", "examples", "sha256", "bytes")} for one in reports
        ],
    }


def _in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """How many examples have each field, in the order of `fields.CONVERTERS`."""
    return {name: counts[name] for name in ("image", *CONVERTERS) if counts.get(name)}


def _complete(with_field: Mapping[str, int], examples: int) -> list[str]:
    """The fields that every example has."""
    return [name for name, count in with_field.items() if count == examples]


def _sum(reports: Sequence[Mapping[str, Any]], name: str) -> Counter[int]:
    return Counter({int(k): count for k, count in _added(reports, name).items()})


def _added(reports: Sequence[Mapping[str, Any]], name: str) -> Counter[str]:
    found: Counter[str] = Counter()
    for one in reports:
        found.update(one[name])
    return found


def summary(counts: Counter[int]) -> dict[str, int]:
    """Least, lower median and greatest of the values that were counted."""
    if not counts:
        return {}
    values = sorted(counts)
    below = list(itertools.accumulate(counts[value] for value in values))
    median = values[bisect.bisect_left(below, (below[-1] + 1) // 2)]
    return {"min": values[0], "median": median, "max": values[-1]}


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"Cannot read {path}: {error}.") from error


def _expect(found: Mapping[str, Any], asked: Mapping[str, Any], path: Path) -> None:
    for key in asked:
        if found.get(key) != asked[key]:
            raise InputError(
                f"{path} was begun with {key}={found.get(key)!r}, now {key}={asked[key]!r} is "
                f"asked for; give the same settings or another --to."
            )
