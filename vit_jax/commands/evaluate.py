"""python -m vit_jax evaluate --workdir=DIR|--weights=SOURCE [--protocol=NAME] [--split=NAME] ...

Measures a checkpoint of a run, or published weights, by one protocol or several, which share their
passes where they read the same. A protocol's settings are --NAME.KEY=VALUE, e.g.
--calibration.bins=20.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from vit_jax import xla_flags
from vit_jax.commands import parsing, processes
from vit_jax.errors import InputError

LONGEST_SLUG = 60  # of a folder that is named after data
CONFIG = "config"  # in place of a protocol: what the run's config.evals name


def main(arguments: list[str]) -> int:
    settings, arguments = parsing.take_sections(arguments)
    values = define_flags()
    parsing.reject_positional(parsing.parse(values, "evaluate", arguments, doc=__doc__))
    check_flags(values)
    xla_flags.prefer_batches()
    with processes.connected(values):
        evaluate(values, settings)
    return 0


def define_flags() -> flags.FlagValues:
    values = flags.FlagValues()

    def text(name: str, told: str, default: str | None = None) -> None:
        flags.DEFINE_string(name, default, told, flag_values=values)

    text("workdir", "folder of a run")
    text("checkpoint", "last, best or a step, of a run", "last")
    text("weights", "in place of a run: a file, a folder, hf:owner/name or a URL")
    text("architecture", "timm's name, for weights whose file does not tell it")
    flags.DEFINE_integer(
        "image_size", None, "of the images, where the weights are to see another size than theirs",
        lower_bound=1, flag_values=values,
    )  # fmt: skip
    flags.DEFINE_multi_string(
        "protocol",
        [],
        "what is measured: task (the task's own metrics; the default), config (all that the run's "
        "config.evals name), or a protocol of vit_jax/evaluation",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "split", [], "split to score; by default those of the run's config", flag_values=values
    )
    text("training_split", "of the scored source, of which protocols learn; else the run's own")
    text("source", "another data source, e.g. folder:DIR")
    text("data_dir", "where TFDS data sets are")
    text("image_key", "the image's name there")
    text("label_key", "the label's name there")
    text(
        "labels",
        "other labels: classes, numbers, order, classes:TABLE or real:TABLE, see "
        "data/sources/remap.py",
    )
    flags.DEFINE_integer("batch_size", 256, "examples at a time", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("skip_bad_examples", False, "leave unreadable ones out", flag_values=values)
    text("reports", "folder for tables and pictures; by default a run's WORKDIR/evaluations")
    text("output", "JSON file for the metrics")
    processes.define_flags(values)
    return values


def check_flags(values: flags.FlagValues) -> None:
    """Raises `InputError` for flags that are missing or contradict each other."""
    if values.workdir is None and values.weights is None:
        raise InputError("--workdir is missing; allowed: it, or --weights.")
    if values.workdir is not None and values.weights is not None:
        raise InputError("--workdir and --weights are given; allowed: one of them.")
    needs = {"checkpoint": "workdir", "architecture": "weights", "image_size": "weights"}
    for name, other in needs.items():
        if values[name].present and values[other].value is None:
            raise InputError(f"--{name} is given; allowed: with --{other}.")
    if values.weights is not None and values.source is None:
        raise InputError("--source is missing: weights bring no data; allowed: e.g. folder:DIR.")
    if CONFIG in values.protocol:
        _check_configured(values)


def _check_configured(values: flags.FlagValues) -> None:
    """`config.evals` names its data itself."""
    if values.weights is not None:
        raise InputError("--protocol=config is of a run; allowed: with --workdir.")
    own = ("split", "source", "image_key", "label_key", "labels", "training_split")
    given = [name for name in own if values[name].present]
    if given and set(values.protocol) == {CONFIG}:
        raise InputError(
            f"--{given[0]} is given, but config.evals has its own; allowed: without it, or with "
            "another --protocol."
        )


def evaluate(values: flags.FlagValues, settings: dict[str, dict[str, Any]]) -> None:
    from rich.console import Console

    from vit_jax import evaluators
    from vit_jax.commands import entries, measured
    from vit_jax.train import agreement, hosts
    from vit_jax.workdir import check_writable

    votes, reports = agreement.Votes(), {}
    protocols = list(dict.fromkeys(values.protocol)) or [evaluators.TASK]
    with agreement.together():
        chosen = [name for name in protocols if name != CONFIG]
        entries.check_names(chosen, settings, also=(CONFIG,))
        settings = entries.with_training_split(chosen, settings, values.training_split)
        check_output(values)
        folder = report_folder(values)
        if folder is not None and set(protocols) - {evaluators.TASK}:
            check_writable(folder)
    restored = restore(values)
    folder = place_in(folder, values, protocols)

    def keep(name: str, report: Any) -> None:
        reports[name] = report
        if folder is not None:
            evaluators.write_report(folder, name, report)

    with measured.watching(Console(stderr=True, quiet=not hosts.is_first())) as watch:
        with agreement.together():
            builder = evaluators.Builder(
                restored.learner,
                splits_of(restored, values),
                votes,
                batch_size=values.batch_size,
                keep=keep,
                watch=watch,
            )
            wanted = entries_of(restored, values, protocols, settings)
            built = [builder.build(e.name, e.section, where=e.where) for e in wanted]
        metrics = evaluators.measure(built, restored.state, votes)
    if hosts.is_first():
        write_output(restored, values, metrics)
        measured.show(Console(), title(restored, values), metrics, reports)
        if reports and folder is not None:
            print(f"tables and pictures: {folder}")


def restore(values: flags.FlagValues) -> Any:
    from vit_jax import restoring

    if values.workdir is not None:
        return restoring.restore(values.workdir, checkpoint=values.checkpoint)
    return restoring.load(
        values.weights, architecture=values.architecture, image_size=values.image_size
    )


def splits_of(restored: Any, values: flags.FlagValues) -> Any:
    """What a model can be evaluated on: the run's own data, or of weights what the flags name."""
    from vit_jax import restoring
    from vit_jax.data import pipeline

    data = restored.config["data"]
    reading = dict(
        max_objects=data.get("max_objects"),
        skip_bad_examples=values.skip_bad_examples or data.get("skip_bad_examples", False),
    )
    if restored.origin is None:
        origin = pipeline.Origin(**data_flags(values))
    else:
        moved = {} if values.source else {"data_dir": values.data_dir}
        origin = restored.origin.changed(**moved)
    split = restored.training_split
    return restoring.splits(restored, origin=origin, training_split=split, **reading)


def entries_of(
    restored: Any,
    values: flags.FlagValues,
    protocols: Sequence[str],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Any]:
    """Each protocol on each split, and what the run's config names."""
    from vit_jax.commands import entries

    configured = restored.config.get("evals", {})
    of_run = [entry["split"] for entry in configured.values() if "source" not in entry]
    splits = values.split or of_run or ["test"]
    # Of a run other data is for these evaluations alone, with what their protocols learn from.
    data = {} if restored.origin is None else data_flags(values)
    chosen = [name for name in protocols if name != CONFIG]
    found = entries.entries(chosen, splits, settings=settings, common=data)
    if CONFIG in protocols:
        if not configured:
            raise InputError("--protocol=config: the run's config.evals is empty; allowed: others.")
        found += [entries.Entry.of_config(name, entry) for name, entry in configured.items()]
    return found


def data_flags(values: flags.FlagValues) -> dict[str, Any]:
    """Those that were given, as keys of an evaluation."""
    found = {name: values[name].value for name in ("source", "data_dir", "image_key", "label_key")}
    found["labels"] = labels_of(values.labels)
    return {name: value for name, value in found.items() if value is not None}


def report_folder(values: flags.FlagValues) -> Path | None:
    """Where tables and pictures go; None where weights are measured and no folder is named."""
    from vit_jax.workdir import existing

    if values.reports is not None:
        return Path(values.reports)
    return None if values.workdir is None else existing(values.workdir).evaluations


def place_in(
    folder: Path | None, values: flags.FlagValues, protocols: Sequence[str]
) -> Path | None:
    """Of a run other checkpoints and other data have folders of their own.

    So they are not taken for the last one on the run's data: evaluations/step10/digits-1a2b3c.
    """
    if folder is None or values.reports is not None:
        return folder
    if (name := values.checkpoint) != "last":
        folder /= f"step{name}" if name.isdecimal() else name
    if (data := data_flags(values)) and set(protocols) != {CONFIG}:
        whole = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        told = re.sub(r"[^A-Za-z0-9.+-]+", "_", data.get("source", "_".join(data)))
        folder /= f"{told[:LONGEST_SLUG]}-{whole[:6]}"
    return folder


def check_output(values: flags.FlagValues) -> None:
    """Raises `InputError` where the metrics could not be written in the end."""
    from vit_jax.workdir import check_writable

    if not values.output:
        return
    if Path(values.output).is_dir():
        raise InputError(f"--output is the folder {values.output}; allowed: a file.")
    check_writable(Path(values.output).parent)


def title(restored: Any, values: flags.FlagValues) -> str:
    if values.weights is not None:
        return values.weights
    return f"step {int(restored.state.step)} of {values.workdir}"


def write_output(restored: Any, values: flags.FlagValues, metrics: Mapping[str, float]) -> None:
    from vit_jax import evaluators

    if values.output:
        found = {"step": int(restored.state.step), "metrics": metrics}
        if values.weights is not None:
            found = {"weights": values.weights, "metrics": metrics}
        text = json.dumps(evaluators.plain(found), indent=2, allow_nan=False)
        Path(values.output).write_text(text + "\n")


def labels_of(text: str | None) -> dict[str, str] | None:
    """'real:PATH' -> {'name': 'real', 'table': 'PATH'}."""
    if text is None:
        return None
    name, _, table = text.partition(":")
    return {"name": name, "table": table} if table else {"name": name}
