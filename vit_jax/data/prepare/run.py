"""Converts an input to sharded ArrayRecord; what was interrupted continues.

The examples keep the order of the input: whoever trains reads them at random anyway. Shard
boundaries depend on the input and the settings, and a shard's bytes on its examples, so the result
is the same for any number of workers and interruptions.
"""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from vit_jax import sections
from vit_jax.data.batching.workers import num_cores
from vit_jax.data.examples import UnreadableExample
from vit_jax.data.prepare import pool
from vit_jax.data.prepare.index import Index, Input
from vit_jax.data.prepare.kinds import open_input
from vit_jax.data.prepare.output import SUFFIX, Output, make_manifest
from vit_jax.data.prepare.pool import Done
from vit_jax.data.prepare.shards import Shard, read_report, write_shard
from vit_jax.data.prepare.shrink import DEFAULT_QUALITY, Shrink
from vit_jax.errors import InputError

DEFAULT_SHARD_MB = 256
MEBIBYTE = 1 << 20

# Called with what is done and with all there is, or zeros before that is known.
Progress = Callable[[Done, Done], None]


class Prepared(NamedTuple):
    """A data set on the disk.

    Attributes:
      manifest: see `output.make_manifest`.
      is_new: False where it had been there before.
    """

    manifest: dict[str, Any]
    is_new: bool


def prepare(
    spec: str,
    target: str,
    *,
    labels: str | None = None,
    split: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    shards: int | None = None,
    shard_mb: int | None = None,
    resize_small: int | None = None,
    quality: int | None = None,
    workers: int | None = None,
    strict: bool = False,
    on_progress: Progress = lambda done, total: None,
) -> Prepared:
    """Writes the examples of `spec` to the folder `target`.

    Args:
      spec: KIND:PATH, see `kinds.py`.
      labels: a file with one class name a line, see `tar.py` and `webdataset.py`.
      split, image_key, label_key: see `kinds.open_input`.
      shards: files a split.
      shard_mb: or MiB of images a file, as they were found; 256 by default.
      resize_small: make the shorter side of larger images this many pixels, see `shrink.py`.
      quality: of the JPEG files that these become; 95 by default.
      workers: processes; None is one a CPU core, 0 works in this one.
      strict: raise at the first unreadable image rather than leave it out.

    Raises:
      InputError: with what was found and what is allowed.
    """
    names = read_labels(labels) if labels else None
    settings = {
        "source": spec,
        "labels": names and hashlib.sha256("\n".join(names).encode()).hexdigest(),
        "split": split,
        "image_key": image_key,
        "label_key": label_key,
        **_shard_settings(shards, shard_mb),
        **_image_settings(resize_small, quality),
    }
    sections.check_ranges("prepare", workers=(workers, 0, math.inf))
    output = Output(target, settings)
    with output.claimed():
        manifest = output.finished()
        if manifest is not None:
            output.clear()
            return Prepared(manifest, is_new=False)
        on_progress(Done(0, 0), Done(0, 0))
        found = open_input(
            spec, labels=names, split=split, image_key=image_key, label_key=label_key
        )
        lost = [one for split in found.splits for one in found.lost[split]]
        if strict and lost:
            raise InputError(f"Cannot read {lost[0].name}: {lost[0].reason} (--strict).")
        output.begin(_digest(found))
        planned = _plan(found, output, settings, strict)
        reports = _write_all(planned, workers, on_progress)
        manifest = make_manifest(settings, found.class_names, reports, found.lost)
        output.finish(manifest)
    return Prepared(manifest, is_new=True)


def _shard_settings(shards: int | None, shard_mb: int | None) -> dict[str, int | None]:
    if shards is not None and shard_mb is not None:
        raise InputError("--shards and --shard_mb are both given; allowed: one of them.")
    most = 100_000  # five digits of a file's name
    sections.check_ranges("prepare", shards=(shards, 1, most), shard_mb=(shard_mb, 1, math.inf))
    return {"shards": shards, "shard_mb": shard_mb if shards else shard_mb or DEFAULT_SHARD_MB}


def _image_settings(resize_small: int | None, quality: int | None) -> dict[str, int | None]:
    if quality is not None and resize_small is None:
        raise InputError("--quality has no effect without --resize_small; leave it out.")
    sections.check_ranges(
        "prepare", resize_small=(resize_small, 1, math.inf), quality=(quality, 1, 101)
    )
    default = None if resize_small is None else DEFAULT_QUALITY
    return {"resize_small": resize_small, "quality": quality or default}


def read_labels(path: str) -> tuple[str, ...]:
    """The lines of a file, without spaces around them; a last line may be empty."""
    try:
        lines = Path(path).expanduser().read_text("utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read --labels={path}: {error}.") from error
    names = tuple(line.strip() for line in lines)
    if not names or not all(names):
        raise InputError(f"--labels={path} has an empty line; allowed: one class name a line.")
    return names


def _digest(found: Input) -> str:
    parts = [f"{split} {index.digest()}" for split, index in found.splits.items()]
    return hashlib.sha256("\n".join([*parts, repr(found.class_names)]).encode()).hexdigest()


def _plan(
    found: Input, output: Output, settings: dict[str, Any], strict: bool
) -> dict[str, list[Shard]]:
    """The shards of each split: runs of examples whose numbers differ by one at most."""
    planned, shrink = {}, None
    if settings["resize_small"]:
        shrink = Shrink(settings["resize_small"], settings["quality"])
    for split, index in found.splits.items():
        n, count = len(index), _num_shards(index, settings)
        planned[split] = []
        for k in range(count):
            stem = f"{split}-{k:05}-of-{count:05}"
            shard = Shard(
                target=str(output.path / f"{stem}{SUFFIX}"),
                report=str(output.progress / f"{stem}.json"),
                index=index.part(k * n // count, (k + 1) * n // count),
                read=found.read,
                class_names=found.class_names,
                strict=strict,
                shrink=shrink,
            )
            planned[split].append(shard)
    return planned


def _num_shards(index: Index, settings: dict[str, Any]) -> int:
    size = int(index.columns["size"].sum())
    wanted = settings["shards"] or math.ceil(size / (settings["shard_mb"] * MEBIBYTE))
    return max(1, min(wanted, len(index)))


def _write_all(
    planned: dict[str, list[Shard]], workers: int | None, on_progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Writes the shards that are missing; returns the reports of all."""
    shards = [shard for of_split in planned.values() for shard in of_split]
    reports = {Path(shard.target).name: read_report(shard) for shard in shards}
    missing = [shard for shard in shards if reports[Path(shard.target).name] is None]
    total, left = _sizes(shards), _sizes(missing)
    before = Done(total.images - left.images, total.bytes - left.bytes)

    def tell(done: Done) -> None:
        on_progress(Done(before.images + done.images, before.bytes + done.bytes), total)

    tell(Done(0, 0))
    workers = num_cores() if workers is None else workers
    for report in pool.run(write_shard, missing, workers=workers, on_progress=tell):
        reports[report["file"]] = report
    _refuse_unreadable(shards, reports)
    return {
        split: [reports[Path(shard.target).name] for shard in of_split]
        for split, of_split in planned.items()
    }


def _refuse_unreadable(shards: list[Shard], reports: dict[str, dict[str, Any]]) -> None:
    """Under `strict`, also for shards that were finished before it was given."""
    for shard in shards:
        bad = reports[Path(shard.target).name]["unreadable"]
        if shard.strict and bad:
            raise UnreadableExample(bad[0]["name"], bad[0]["reason"])


def _sizes(shards: list[Shard]) -> Done:
    return Done(
        sum(len(shard.index) for shard in shards),
        sum(int(shard.index.columns["size"].sum()) for shard in shards),
    )
