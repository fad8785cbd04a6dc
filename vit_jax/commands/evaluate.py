"""python -m vit_jax evaluate --workdir=DIR [--checkpoint=last|best|STEP] [--split=test ...]"""

import json
from pathlib import Path

from absl import flags

from vit_jax import xla_flags
from vit_jax.commands import parsing, processes


def main(arguments: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_string("checkpoint", "last", "last, best or a step", flag_values=values)
    flags.DEFINE_multi_string(
        "split", [], "split to score; by default those of the run's config", flag_values=values
    )
    flags.DEFINE_string("source", None, "another data source, e.g. folder:DIR", flag_values=values)
    flags.DEFINE_string("data_dir", None, "where TFDS data sets are", flag_values=values)
    flags.DEFINE_string("image_key", None, "the image's name there", flag_values=values)
    flags.DEFINE_string("label_key", None, "the label's name there", flag_values=values)
    flags.DEFINE_string(
        "labels",
        None,
        "other labels: classes, numbers, classes:TABLE or real:TABLE, see data/sources/remap.py",
        flag_values=values,
    )
    flags.DEFINE_integer("batch_size", 256, "examples at a time", lower_bound=1, flag_values=values)
    flags.DEFINE_bool("skip_bad_examples", False, "leave unreadable ones out", flag_values=values)
    flags.DEFINE_string("output", None, "JSON file for the metrics", flag_values=values)
    processes.define_flags(values)
    parsing.reject_positional(parsing.parse(values, "evaluate", arguments, doc=__doc__))
    workdir = parsing.require(values, "workdir")

    xla_flags.prefer_batches()
    with processes.connected(values):
        _evaluate(workdir, values)
    return 0


def _evaluate(workdir: str, values: flags.FlagValues) -> None:
    from vit_jax import restoring
    from vit_jax.data import pipeline
    from vit_jax.train import agreement, hosts
    from vit_jax.train.console import evaluation_text
    from vit_jax.workdir import check_writable

    with agreement.together():
        if values.output:
            check_writable(Path(values.output).parent)
    restored = restoring.restore(workdir, checkpoint=values.checkpoint)
    config = restored.config
    origin = pipeline.Origin.of(config["data"]).changed(
        source=values.source,
        data_dir=values.data_dir,
        image_key=values.image_key,
        label_key=values.label_key,
        labels=labels_of(values.labels),
    )
    splits = values.split or [e["split"] for e in config["evals"].values()] or ["test"]
    metrics = {}
    for split in splits:
        metrics |= restoring.score(
            restored,
            origin=origin,
            split=split,
            batch_size=values.batch_size,
            max_objects=config["data"].get("max_objects"),
            skip_bad_examples=values.skip_bad_examples
            or config["data"].get("skip_bad_examples", False),
        )
    if not hosts.is_first():
        return
    print(f"step {int(restored.state.step)}: {evaluation_text(metrics)}")
    if values.output:
        text = json.dumps({"step": int(restored.state.step), "metrics": metrics}, indent=2)
        Path(values.output).write_text(text + "\n")


def labels_of(text: str | None) -> dict[str, str] | None:
    """'real:PATH' -> {'name': 'real', 'table': 'PATH'}."""
    if text is None:
        return None
    name, _, table = text.partition(":")
    return {"name": name, "table": table} if table else {"name": name}
