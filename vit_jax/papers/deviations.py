"""In what a table's runs differ from the paper's protocol: what its file says, and what is seen."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import workdir
from vit_jax.papers.loading import TableFile, needed_rows
from vit_jax.papers.table import Kind, Scale
from vit_jax.papers.trials import Cell, distinct
from vit_jax.sweeps.folder import Record, State
from vit_jax.sweeps.reports.deviations import differing
from vit_jax.sweeps.trials import Trial

FULL = "full"  # the scale that is the paper's own protocol
# Keys of a config that a protocol is told by.
PROTOCOL = (
    "task.model.name",
    "task.model.size",
    "task.model.width",
    "task.model.depth",
    "task.model.patch_size",
    "task.model.pool",
    "task.model.dropout_rate",
    "task.model.drop_path_rate",
    "task.label_smoothing",
    "task.mixing.mixup_alpha",
    "data.source",
    "data.train",
    "data.image_size",
    "data.batch_size",
    "data.augment.crop",
    "data.augment.policy.name",
    "optimizer.name",
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.clip_norm",
    "train.num_steps",
    "train.num_epochs",
)
MAX_VALUES = 4  # of a key that are listed


def deviations_of(
    file: TableFile, name: str, runs: Mapping[Cell, Trial], records: Mapping[str, Record]
) -> list[str]:
    """Sentences: those of the scale, then what its configs and its runs show."""
    scale = file.table.scales[name]
    return [
        *scale.deviations,
        *changed_settings(file, name),
        *missing_runs(scale, runs, records),
        *missing_values(scale, runs, records),
        *shared_beginnings(scale),
        *changed_since(runs, records),
        *mixed(list(records.values())),
    ]


def changed_settings(file: TableFile, name: str) -> list[str]:
    """Settings of the rows that are trained, where they are not the full scale's."""
    scales = file.table.scales
    if name == FULL or FULL not in scales:
        return []
    ours, theirs = (settings(file, scales[key]) for key in (name, FULL))
    return [
        f"{key}: {listed(ours[key])}; {FULL}: {listed(theirs[key])}"
        for key in PROTOCOL
        if ours[key] != theirs[key]
    ]


def settings(file: TableFile, scale: Scale) -> dict[str, list[str]]:
    """The values that each key of `PROTOCOL` has in some row."""
    found = [dict(workdir.leaves(file.config(row))) for row in scale.rows if row.is_shown]
    return {key: sorted({text(leaves.get(key)) for leaves in found}) for key in PROTOCOL}


def text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def listed(values: Sequence[str]) -> str:
    values = ["not set" if value == "null" else value for value in values]
    more = f" and {len(values) - MAX_VALUES} more" if len(values) > MAX_VALUES else ""
    return " | ".join(values[:MAX_VALUES]) + more


def missing_runs(
    scale: Scale, runs: Mapping[Cell, Trial], records: Mapping[str, Record]
) -> list[str]:
    """Rows that lack seeds, and why."""
    found = []
    for row in scale.rows:
        if row.kind != Kind.TRAINED:
            continue
        names = {seed: runs[row.name, seed].name for seed in row.seeds if (row.name, seed) in runs}
        states = {
            seed: records[trial].state if trial in records else State.WAITING
            for seed, trial in names.items()
        }
        missing = [f"{s} {state}" for s, state in states.items() if state != State.FINISHED]
        if missing:
            found.append(
                f"{row.name}: {len(missing)} of {len(names)} seeds are missing: "
                f"{', '.join(missing)}"
            )
    return found


def missing_values(
    scale: Scale, runs: Mapping[Cell, Trial], records: Mapping[str, Record]
) -> list[str]:
    """Finished runs that have no finite value of a column."""
    metrics = [column.metric for column in scale.columns if column.metric]
    shown = {row.name for row in scale.rows if row.is_shown}
    names = dict.fromkeys(trial.name for (row, _), trial in runs.items() if row in shown)
    found = []
    for record in (records[name] for name in names if name in records):
        for metric in metrics if record.state == State.FINISHED else ():
            value = record.metrics.get(metric)
            if value is None:
                found.append(f"{record.name} has no {metric}, but {', '.join(record.metrics)}")
            elif not math.isfinite(value):
                found.append(f"{record.name} has {value} as its {metric}, which does not count")
    return found


def shared_beginnings(scale: Scale) -> list[str]:
    """Rows all of whose seeds begin from one run, so that the spread lacks that run's part."""
    rows = {row.name: row for row in scale.rows}
    return [
        f"{row.name}: {len(row.seeds)} seeds begin from one run of {name}"
        for row in scale.rows
        for name in needed_rows(row.overrides)
        if len(rows[name].seeds) < len(row.seeds)
    ]


def changed_since(runs: Mapping[Cell, Trial], records: Mapping[str, Record]) -> list[str]:
    """Finished runs of another config than the table has now."""
    return [
        f"{trial.name} was run with another config: {'; '.join(different)}"
        for trial in distinct(dict(runs))
        if (record := records.get(trial.name)) and record.state == State.FINISHED
        if (different := differences(record))
    ]


def differences(record: Record) -> list[str]:
    """Between the config of the trial, and that of the run in its folder."""
    file = record.workdir.config
    return workdir.contradictions(workdir.read_json(file), record.config) if file.is_file() else []


def mixed(records: Sequence[Record]) -> list[str]:
    """Versions and devices, where not all runs had the same."""
    return [f"runs had different {what}: {' | '.join(told)}" for what, told in differing(records)]
