"""python -m vit_jax prepare --from=KIND:PATH --to=DIR [--shards=N | --shard_mb=256] [--strict] ...
python -m vit_jax prepare --audit=SOURCE [--split=train,test] [--out=DIR] [--json]
python -m vit_jax prepare --preview --config=FILE --out=DIR [--examples=24] [--config.KEY=VALUE]

The first turns images into sharded ArrayRecord with a manifest, which trains as array_record:DIR.
KIND:PATH is folder:PATH, tar:PATH (a tar, or a folder of one tar a split), webdataset:PATTERN
(e.g. 'train-{000000..000012}.tar') or tfrecord:PATH (a TFDS data set). Give a command that was
stopped again and it continues; the result is the same. Images keep their bytes, unless
--resize_small=N makes larger ones smaller; those that cannot be read are left out and listed in
manifest.json.

The second looks at every example of any data source: counts, damaged images, duplicates within and
across splits. Exit code 1 says that it found problems.

The third draws what the training of a config and its evaluations will see: DIR/train.png with
augmented examples, and one PNG for each entry of `config.evals`.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

from vit_jax.commands import parsing, preview
from vit_jax.errors import InputError

EXIT_FOUND_PROBLEMS = 1
# Which of the flags go with which of the two.
CONVERTING = ("from", "to", "labels", "shards", "shard_mb", "resize_small", "quality", "strict")
AUDITING = ("audit", "data_dir", "out", "json")
_SHOWN = 10  # unreadable images that are told of by name


class _Stopped(Exception):
    """SIGTERM came; what is finished is kept."""


def main(arguments: list[str]) -> int:
    if "--preview" in arguments:
        return preview.main([one for one in arguments if one != "--preview"], doc=__doc__)
    values = _flags()
    parsing.reject_positional(parsing.parse(values, "prepare", arguments, doc=__doc__))
    try:
        return _run(values)
    except _Stopped:
        from vit_jax.train.preemption import EXIT_PREEMPTED

        print("stopped by SIGTERM; the same command continues", file=sys.stderr)
        return EXIT_PREEMPTED


def _run(values: flags.FlagValues) -> int:
    if values["audit"].present:
        _refuse(values, CONVERTING, "--audit")
        return _audit(values)
    if not values["from"].present:
        raise InputError(
            "--from is missing; allowed: --from=KIND:PATH --to=DIR, --audit=SOURCE, or --preview "
            "--config=FILE --out=DIR."
        )
    _refuse(values, AUDITING, "--from")
    return _convert(values)


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    for name, text in (
        ("from", "images to convert, see above"),
        ("to", "folder to write"),
        ("labels", "file with one class name a line: of a flat tar's images in sorted order, or of "
         "WebDataset's label numbers"),
        ("image_key", "the image's name in TFDS"),
        ("label_key", "the label's name in TFDS"),
        ("split", "splits to audit; or what to call the split of one tar or of WebDataset shards"),
        ("audit", "data source to look at, e.g. folder:DIR or array_record:DIR"),
        ("data_dir", "where TFDS data sets are"),
        ("out", "folder for audit.json and class_histogram.png"),
    ):  # fmt: skip
        flags.DEFINE_string(name, None, text, flag_values=values)
    for name, text in (
        ("shards", "files a split"),
        ("shard_mb", "MiB of images a file; 256 by default"),
        ("resize_small", "pixels of the shorter side of larger images, which become JPEG files"),
        ("quality", "of these JPEG files, 1 to 100; 95 by default"),
    ):
        flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=values)
    text = "processes; by default one a CPU core, 0 is this one"
    flags.DEFINE_integer("workers", None, text, lower_bound=0, flag_values=values)
    flags.DEFINE_bool("strict", False, "stop at an unreadable image", flag_values=values)
    flags.DEFINE_bool("json", False, "one JSON object, no tables", flag_values=values)
    return values


def _refuse(values: flags.FlagValues, names: tuple[str, ...], given: str) -> None:
    for name in names:
        if values[name].present:
            raise InputError(f"--{name} has no effect with {given}; leave it out.")


def _convert(values: flags.FlagValues) -> int:
    target = parsing.require(values, "to")

    from vit_jax.data.prepare.run import prepare

    with _watched("written") as progress:
        prepared = prepare(
            values["from"].value,
            target,
            labels=values.labels,
            split=values.split,
            image_key=values.image_key,
            label_key=values.label_key,
            shards=values.shards,
            shard_mb=values.shard_mb,
            resize_small=values.resize_small,
            quality=values.quality,
            workers=values.workers,
            strict=values.strict,
            on_progress=progress,
        )
    if not prepared.is_new:
        print(f"{target} is prepared already, nothing is done")
    _tell(prepared.manifest)
    print(f"{target} can be trained on as array_record:{target}")
    return 0


@contextlib.contextmanager
def _watched(verb: str) -> Iterator[Callable]:
    """A callback that shows the progress, and raises `_Stopped` after SIGTERM."""
    from rich.console import Console

    from vit_jax.commands.progress import ImageProgress
    from vit_jax.train.preemption import on_sigterm

    with on_sigterm() as is_asked_to_stop, ImageProgress(Console(stderr=True), verb) as show:

        def on_progress(done: tuple[int, int], total: tuple[int, int]) -> None:
            show(done, total)
            if is_asked_to_stop():
                raise _Stopped

        yield on_progress


def _tell(manifest: dict[str, Any]) -> None:
    for name, split in manifest["splits"].items():
        print(
            f"{name}: {split['examples']:,} examples in {len(split['shards'])} shards, "
            f"{split['bytes'] / 1e6:,.1f} MB of images, {len(split['unreadable'])} unreadable"
        )
        for bad in split["unreadable"][:_SHOWN]:
            print(f"unreadable: {bad['name']}: {bad['reason']}", file=sys.stderr)
        for field, count in split["with_field"].items():
            if count < split["examples"]:
                print(
                    f"note: only {count:,} of {split['examples']:,} examples of {name} have a "
                    f"{field}; the data set is used without that field.",
                    file=sys.stderr,
                )


def _audit(values: flags.FlagValues) -> int:
    spec = parsing.require(values, "audit")

    from vit_jax.analysis import audits, figures
    from vit_jax.data.prepare.audit import audit
    from vit_jax.workdir import check_writable

    out = Path(values.out).expanduser() if values.out else None
    if out:
        check_writable(out)
    given = {name: values[name].value for name in ("data_dir", "image_key", "label_key")}
    with _watched("looked at") as progress:
        report = audit(
            spec,
            splits=[name.strip() for name in values.split.split(",")] if values.split else (),
            options={name: value for name, value in given.items() if value is not None},
            workers=values.workers,
            on_progress=progress,
        )
    if out:
        text = json.dumps(report, indent=1, ensure_ascii=False)
        (out / "audit.json").write_text(text + "\n", "utf-8")
        counts = {name: split["per_class"] for name, split in report["splits"].items()}
        figures.draw_class_histogram(counts, report["class_names"], out / "class_histogram.png")
    if values.json:
        print(json.dumps(report, indent=2))
    else:
        audits.print_audit(report)
    if out:
        print(f"wrote audit.json and class_histogram.png to {out}", file=sys.stderr)
    return EXIT_FOUND_PROBLEMS if report["problems"] else 0
