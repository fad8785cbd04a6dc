"""Looks at every example of a data set: what is there, what is damaged, what is there twice.

Duplicates are exact: equal SHA-256 of the image file's bytes, or, where a source has only pixels,
of these and their shape. Nothing is said of images that merely look alike.

Letters: n = examples of all splits; m = examples of one unit of work.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax import sections
from vit_jax.data.batching.workers import num_cores
from vit_jax.data.examples import Example, Source, UnreadableExample
from vit_jax.data.images.decode import Encoded
from vit_jax.data.prepare import pool
from vit_jax.data.prepare.duplicates import find_duplicates
from vit_jax.data.prepare.output import summary
from vit_jax.data.prepare.pool import Count, Done
from vit_jax.data.prepare.run import Progress
from vit_jax.data.prepare.shards import hash_file
from vit_jax.data.sources import available, open_source
from vit_jax.data.sources.array_record import MANIFEST
from vit_jax.errors import InputError

UNIT = 256  # examples a worker is given at a time
DIGEST = 32  # bytes of a SHA-256


class _Unit(NamedTuple):
    """Examples start to stop of a split."""

    split: str
    start: int
    stop: int


class _Seen(NamedTuple):
    """What was found in a unit.

    Attributes:
      unit: which one.
      positions: int64[m]: the readable examples.
      digests: S32[m]: of their images.
      first_label: int64[m]: their label, or the first of their labels; -1 without any.
      shapes: int64[m,3]: height, width, channels.
      labels: label -> examples that have it.
      unreadable, wrong: (name, reason) of examples without an image, and with impossible labels.
    """

    unit: _Unit
    positions: np.ndarray
    digests: np.ndarray
    first_label: np.ndarray
    shapes: np.ndarray
    labels: Counter
    unreadable: list[dict[str, str]]
    wrong: list[dict[str, str]]


def audit(
    spec: str,
    *,
    splits: Sequence[str] = (),
    options: Mapping[str, Any] | None = None,
    workers: int | None = None,
    on_progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """The findings, as JSON: "problems" has a sentence for each kind that was found.

    Args:
      spec: any source, see `data/sources`.
      splits: which to look at; by default all that the source has.
      options: further settings of `open_source`.
      workers: processes; None is one a CPU core, 0 works in this one.

    Raises:
      InputError: where the source cannot be opened.
    """
    sections.check_ranges("prepare", workers=(workers, 0, float("inf")))
    options = dict(options or {})
    names = list(splits) or list(available(spec, **options))
    sources = {name: open_source(spec, name, **options) for name in names}
    workers = num_cores() if workers is None else workers
    seen = _look(sources, workers, on_progress)
    report = {
        "source": spec,
        "class_names": list(next(iter(sources.values())).class_names),
        "splits": {name: _split(sources[name], seen[name]) for name in names},
        "duplicates": _duplicates(sources, seen),
        "shards": check_shards(spec, workers),
    }
    return report | {"problems": list(_problems(report))}


def check_shards(spec: str, workers: int) -> list[dict[str, str]]:
    """The shards of a prepared data set that are not what its manifest says."""
    kind, _, path = spec.partition(":")
    manifest = Path(path).expanduser() / MANIFEST
    if kind != "array_record" or not manifest.is_file():
        return []
    told = json.loads(manifest.read_text("utf-8"))["splits"].values()
    shards = [shard for split in told for shard in split["shards"] if "sha256" in shard]
    tasks = [(str(manifest.parent / shard["file"]), shard["sha256"]) for shard in shards]
    found = pool.run(_check_shard, tasks, workers=workers, on_progress=lambda done: None)
    return sorted((one for one in found if one), key=lambda one: one["file"])


def _check_shard(task: tuple[str, str], count: Count) -> dict[str, str] | None:
    path, expected = Path(task[0]), task[1]
    found = hash_file(path) if path.is_file() else "(missing)"
    return None if found == expected else {"file": path.name, "sha256": found, "promised": expected}


def _look(
    sources: Mapping[str, Source], workers: int, on_progress: Progress
) -> dict[str, list[_Seen]]:
    """What was found in each split, its units in order."""
    units = [
        _Unit(split, start, min(start + UNIT, len(source)))
        for split, source in sources.items()
        for start in range(0, len(source), UNIT)
    ]
    total = Done(sum(map(len, sources.values())), 0)
    on_progress(Done(0, 0), total)
    found = pool.run(
        _look_at,
        units,
        workers=workers,
        on_progress=lambda done: on_progress(done, total),
        initializer=_take,
        initargs=(dict(sources),),
    )
    ordered = sorted(found, key=lambda seen: seen.unit.start)
    return {split: [seen for seen in ordered if seen.unit.split == split] for split in sources}


_sources: dict[str, Source] = {}  # of this process, set once when a worker starts


def _take(sources: dict[str, Source]) -> None:
    _sources.clear()
    _sources.update(sources)


def _look_at(unit: _Unit, count: Count) -> _Seen:
    source = _sources[unit.split]
    positions, digests, firsts, shapes = [], [], [], []
    labels: Counter[int] = Counter()
    unreadable, wrong = [], []
    for i in range(unit.start, unit.stop):
        size = 0
        try:
            example = source[i]
            digest, shape, size = _fingerprint(example, source)
            own = _labels(example)
            positions.append(i)
            digests.append(digest)
            shapes.append(shape)
            firsts.append(own[0] if own else -1)
            labels.update({label for label in own if 0 <= label < len(source.class_names)})
            outside = [label for label in own if not 0 <= label < len(source.class_names)]
            if outside:
                reason = f"label {outside[0]} is none of {len(source.class_names)} classes"
                wrong.append({"name": source.describe(i), "reason": reason})
        except UnreadableExample as error:
            unreadable.append({"name": error.place, "reason": error.reason})
        except InputError as error:  # the source's own words about a label
            wrong.append({"name": source.describe(i), "reason": str(error)})
        count(1, size)
    return _Seen(
        unit,
        np.array(positions, np.int64),
        np.array(digests, f"S{DIGEST}"),
        np.array(firsts, np.int64),
        np.array(shapes, np.int64).reshape(-1, 3),
        labels,
        unreadable,
        wrong,
    )


def _fingerprint(example: Example, source: Source) -> tuple[bytes, tuple[int, ...], int]:
    """SHA-256, shape and bytes of an example's image."""
    image = example.get("image")
    if image is None:
        raise InputError(f"{source.name} has no images; an audit needs them.")
    if isinstance(image, Encoded):
        shape = image.decode().shape
        return hashlib.sha256(image.data).digest(), shape, len(image.data)
    digest = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes())
    return digest.digest(), image.shape, image.nbytes


def _labels(example: Example) -> list[int]:
    if "labels" in example:
        return [int(label) for label in example["labels"]]
    return [int(example["label"])] if "label" in example else []


def _split(source: Source, seen: Sequence[_Seen]) -> dict[str, Any]:
    labels: Counter[int] = sum((one.labels for one in seen), Counter())
    shapes = np.concatenate([one.shapes for one in seen])
    counts = [Counter(shapes[:, k].tolist()) for k in range(3)]
    per_class = [labels[label] for label in range(len(source.class_names))]
    has_labels = "label" in source.fields or "labels" in source.fields
    empty = [name for name, n in zip(source.class_names, per_class, strict=True) if not n]
    return {
        "examples": len(source),
        "readable": len(shapes),
        "per_class": per_class,
        "classes_without_examples": empty if has_labels else [],
        "sizes": {
            "height": summary(counts[0]),
            "width": summary(counts[1]),
            "channels": {str(key): n for key, n in sorted(counts[2].items())},
        },
        "unreadable": [bad for one in seen for bad in one.unreadable],
        "wrong": [bad for one in seen for bad in one.wrong],
    }


def _duplicates(
    sources: Mapping[str, Source], seen: Mapping[str, Sequence[_Seen]]
) -> dict[str, Any]:
    names = list(seen)
    units = [one for split in names for one in seen[split]]
    return find_duplicates(
        split=np.concatenate([np.full(len(u.positions), names.index(u.unit.split)) for u in units]),
        position=np.concatenate([unit.positions for unit in units]),
        digest=np.concatenate([unit.digests for unit in units]),
        label=np.concatenate([unit.first_label for unit in units]),
        split_names=names,
        describe=lambda split, i: sources[split].describe(i),
    )


def _problems(report: Mapping[str, Any]) -> Iterator[str]:
    for name, split in report["splits"].items():
        if split["unreadable"]:
            yield f"{name}: {len(split['unreadable'])} images cannot be read"
        if split["wrong"]:
            yield f"{name}: {len(split['wrong'])} examples have impossible labels"
        empty = split["classes_without_examples"]
        if empty:
            yield f"{name}: {len(empty)} of {len(split['per_class'])} classes are without examples"
    found = report["duplicates"]
    for name, count in found["within"].items():
        yield f"{name}: {count} images are there more than once"
    for pair, count in found["across"].items():
        yield f"{pair}: {count} images are in both"
    if found["conflicting"]:
        yield f"{found['conflicting']} images are there with different labels"
    if report["shards"]:
        yield f"{len(report['shards'])} shards are not what the manifest says"
