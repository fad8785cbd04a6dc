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

DEFAULT_COUNT = 8


def main(arguments: list[str]) -> int:
    values = define_flags()
    paths = parsing.parse(values, "explain", arguments, doc=__doc__) + values.images
    check_flags(values, paths)
    processes.refuse("explain")

    from vit_jax.explain import contents, examples, writing
    from vit_jax.workdir import check_writable

    names = contents.choose(values.only, values.without)
    check_used(values, names)
    output = Path(values.output or Path(values.workdir) / "explain")
    bad: list[str] = []
    check_writable(output)
    subject = open_subject(values, paths, bad.append)
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
        print(f"error: {examples.readable(message)}", file=sys.stderr)
    print(examples.readable(str(output / writing.PAGE)))
    return 2 if bad else 0


def define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    for name, text in (
        ("workdir", "folder of the run"),
        ("weights", "published weights in place of a run, see weights/loading.py"),
        ("architecture", "timm's name of the weights' model, where their file does not tell it"),
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
        ("image_size", None, "of the images, where weights are to see another size than theirs"),
    ):
        flags.DEFINE_integer(name, default, text, lower_bound=1, flag_values=values)
    text = "examples of each unbiased estimate of CKA; by default one biased estimate of all"
    flags.DEFINE_integer("minibatch", None, text, lower_bound=4, flag_values=values)
    text, most = "of t-SNE and UMAP", 2**32 - 1  # what NumPy's older generator takes
    flags.DEFINE_integer("seed", 0, text, lower_bound=0, upper_bound=most, flag_values=values)
    return values


def check_flags(values: flags.FlagValues, paths: Sequence[str]) -> None:
    if (values.workdir is None) == (values.weights is None):
        raise InputError(
            f"--workdir is {values.workdir!r} and --weights {values.weights!r}; allowed: one of "
            "them."
        )
    if values.weights and not values.output:
        raise InputError("--output is missing; it may be left out with --workdir alone.")
    needs = {"checkpoint": "workdir", "architecture": "weights", "image_size": "weights"}
    for name, other in needs.items():
        if values[name].present and values[other].value is None:
            raise InputError(f"--{name} is given; allowed: with --{other}.")
    if paths and values.weights and not values.source:
        for name in ("split", "data_dir"):
            if values[name].present:
                raise InputError(
                    f"--{name} is given, but all images are files; allowed: with --source."
                )


def check_used(values: flags.FlagValues, names: Sequence[str]) -> None:
    """Refuses flags of sections that are not made."""
    for flag, of in (("compare", ("comparison",)), ("minibatch", ("similarity", "comparison"))):
        if values[flag].present and not set(of) & set(names):
            raise InputError(f"--{flag} is given; allowed: with the section {' or '.join(of)}.")


def open_subject(values: flags.FlagValues, paths: Sequence[str], on_bad: Any) -> Any:
    """The `Subject` that the flags describe."""
    from vit_jax import restoring
    from vit_jax.explain import opening
    from vit_jax.explain.subject import Subject

    if values.weights:
        restored = restoring.load(
            values.weights, architecture=values.architecture, image_size=values.image_size
        )
    else:
        restored = restoring.restore(values.workdir, checkpoint=values.checkpoint)
    images = opening.open_images(
        restored,
        paths,
        data=opening.Data(values.split, values.source, values.data_dir),
        count=values.count,
        projected=values.projected,
        on_bad=on_bad,
    )
    if images.note:
        print(images.note, file=sys.stderr)
    subject = Subject(
        restored=restored,
        name=values.weights or Path(values.workdir).name,
        examples=images.shown,
        many=images.many,
        other=opening.open_model(values.compare) if values.compare else None,
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
