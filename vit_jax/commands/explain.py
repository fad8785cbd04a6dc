"""python -m vit_jax explain --workdir=DIR [--images=FILE_OR_FOLDER ...] [--compare=WORKDIR]

Writes PNGs and a page that opens offline, index.html, to WORKDIR/explain: what a run's model, or
published weights (--weights=SOURCE), predicts, attends to and has learned. Without --images the
first images of the run's test split are shown.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags
from rich.console import Console

from vit_jax.commands import parsing, processes
from vit_jax.commands.progress import SectionProgress
from vit_jax.errors import InputError

FEWEST = 10  # images of which a map or a similarity says something
DEFAULT_COUNT = 8


def main(arguments: list[str]) -> int:
    values = define_flags()
    paths = parsing.parse(values, "explain", arguments, doc=__doc__) + values.images
    check_flags(values)
    processes.refuse("explain")

    from vit_jax.explain import contents, writing
    from vit_jax.workdir import check_writable

    names = contents.choose(values.only, values.without)
    output = Path(values.output or Path(values.workdir) / "explain")
    bad: list[str] = []
    check_writable(output)
    subject = open_subject(values, paths, bad.append, is_compared="comparison" in names)
    with SectionProgress(Console(stderr=True), len(names)) as progress:
        writing.write(
            subject,
            output,
            names,
            command=shlex.join(["python", "-m", "vit_jax", "explain", *arguments]),
            must_have=values.only,
            on_begin=progress.begin,
            on_end=lambda result: progress.end(result.left_out),
        )
    for message in dict.fromkeys(bad):  # each is read more than once
        print(f"error: {message}", file=sys.stderr)
    print(output / writing.PAGE)
    return 2 if bad else 0


def define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    for name, text in (
        ("workdir", "folder of the run"),
        ("weights", "published weights in place of a run, see weights/loading.py"),
        ("output", "folder for the page; by default WORKDIR/explain"),
        ("source", "another data source than the run's, e.g. folder:DIR"),
        ("data_dir", "where TFDS data sets are"),
        ("split", "of the data; by default the run's test split"),
        ("compare", "a second model, a workdir or published weights, whose layers to compare"),
        ("target", "class to explain, a name or number; by default each image's predicted one"),
    ):
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_string("checkpoint", "last", "last, best or a step", flag_values=values)
    flags.DEFINE_multi_string("images", [], "image file or folder", flag_values=values)
    flags.DEFINE_list("layers", None, "to show, e.g. 0,5,-1; by default six", flag_values=values)
    flags.DEFINE_list("only", [], "sections to make, and no others", flag_values=values)
    flags.DEFINE_list("without", [], "sections to leave out", flag_values=values)
    for name, default, text in (
        ("count", DEFAULT_COUNT, "images to show one by one, the first ones"),
        ("projected", 500, "images of the maps and similarities, spread over the split"),
        ("batch_size", 32, "images at a time"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
    text = "examples of each unbiased estimate of CKA; by default one biased estimate of all"
    flags.DEFINE_integer("minibatch", None, text, lower_bound=4, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of t-SNE and UMAP", flag_values=values)
    return values


def check_flags(values: flags.FlagValues) -> None:
    if (values.workdir is None) == (values.weights is None):
        raise InputError(
            f"--workdir is {values.workdir!r} and --weights {values.weights!r}; allowed: one of "
            "them."
        )
    if values.weights and not values.output:
        raise InputError("--output is missing; it may be left out with --workdir alone.")


def open_subject(values: flags.FlagValues, paths: Sequence[str], on_bad: Any, *, is_compared: bool):
    """The `Subject` that the flags describe."""
    from vit_jax.explain.subject import Subject

    if values.weights:
        restored, name = open_model(values.weights, weights=True), values.weights
    else:
        restored = open_model(values.workdir, checkpoint=values.checkpoint)
        name = Path(values.workdir).name
    examples, many = open_examples(values, restored, paths, on_bad)
    other = open_model(values.compare) if values.compare and is_compared else None
    subject = Subject(
        restored=restored,
        name=name,
        examples=examples,
        many=many,
        other=other,
        other_name=Path(values.compare or "").name,
        layers=layers_of(values.layers),
        target=target_of(values.target, restored.learner.info.class_names),
        batch_size=values.batch_size,
        minibatch=values.minibatch,
        seed=values.seed,
    )
    if values.layers:
        subject.chosen_layers  # noqa: B018 - a layer that is not there is told before the work
    return subject


def open_model(source: str, *, checkpoint: str = "last", weights: bool | None = None):
    """A workdir, or else published weights."""
    from vit_jax import restoring

    is_run = (Path(source) / "config.json").is_file() if weights is None else not weights
    if is_run:
        return restoring.restore(source, checkpoint=checkpoint)
    return restoring.load(source)


def open_examples(values: flags.FlagValues, restored: Any, paths: Sequence[str], on_bad: Any):
    """Those that are shown, and the many, or None where there are too few."""
    from vit_jax.data.pipeline import EvalSettings
    from vit_jax.evaluation.prediction import find_images
    from vit_jax.explain import examples

    files = find_images(paths) if paths else []
    shown = many = None
    if files:
        shown = examples.of_files(files[: values.count], on_bad=on_bad)
        if len(files) > values.count:
            print(f"{values.count} of {len(files)} images are shown one by one", file=sys.stderr)
        if len(files) >= FEWEST:
            many = examples.of_files(files[: values.projected], on_bad=on_bad)
    if restored.origin or values.source:
        entry = restored.config.get("evals", {}).get("test", {})
        split = values.split or entry.get("split", "test")
        settings = EvalSettings(split=split, source=values.source, data_dir=values.data_dir)
        if not files:
            shown = examples.of_split(restored, settings, count=values.count, is_spread=False)
        many = examples.of_split(restored, settings, count=values.projected, is_spread=True)
    if shown is None:
        raise InputError(
            "published weights bring no images; allowed: --images=FILE_OR_FOLDER, or "
            "--source=folder:DIR."
        )
    return shown, many if many is not None and many.count >= FEWEST else None


def layers_of(given: Sequence[str] | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    try:
        return tuple(map(int, given))
    except ValueError:
        found = ",".join(given)
        raise InputError(f"--layers is {found!r}; allowed: whole numbers, e.g. 0,5,-1.") from None


def target_of(given: str | None, class_names: Sequence[str]) -> int | None:
    """A class by its name, or by its number where no class has that name."""
    if given is None:
        return None
    if given in class_names:
        return class_names.index(given)
    if given.isdecimal() and int(given) < len(class_names):
        return int(given)
    from vit_jax.data.sources.fields import listed

    raise InputError(
        f"--target is {given!r}; allowed: {listed(class_names)}, or a number below "
        f"{len(class_names)}."
    )
