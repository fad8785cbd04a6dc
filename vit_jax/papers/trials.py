"""The runs of a table: one for each row and seed, by the names of both."""

import json
import re
from typing import Any

from vit_jax.errors import InputError
from vit_jax.papers.loading import ROW, TableFile
from vit_jax.papers.table import Kind, Row, Scale
from vit_jax.sweeps.trials import NEEDS, SEED, Trial, check_trials, checked_name, find_needs

Cell = tuple[str, int]  # row's name, seed


def trials_of(file: TableFile, scale: Scale) -> dict[Cell, Trial]:
    """(row, seed) -> its run, in an order in which each comes after what it needs.

    Rows of equal configs share a run. A table whose columns are all analytic has none, nor has a
    row that is not trained.
    """
    found: dict[Cell, Trial] = {}
    is_run = any(row.kind == Kind.TRAINED for row in scale.rows)
    if not is_run or all(column.analytic for column in scale.columns):
        return found
    same: dict[str, Trial] = {}
    for row in scale.rows:
        for seed in row.seeds if row.kind == Kind.TRAINED else ():
            trial = make_trial(file, row, seed, found)
            whole = json.dumps(trial.config, sort_keys=True, default=list)
            found[row.name, seed] = same.setdefault(whole, trial)
    check_trials(distinct(found))  # rows of equal configs are one trial, those of equal names not
    check_evaluated(scale, found)
    check_pairs(scale, found)
    return found


def check_evaluated(scale: Scale, runs: dict[Cell, Trial]) -> None:
    """Raises `InputError` where a column is of a metric that a row's runs never evaluate."""
    metrics = [column.metric for column in scale.columns if column.metric]
    shown = {row.name for row in scale.rows if row.is_shown}
    for (row, _), trial in runs.items():
        names = trial.config["evals"]
        for metric in metrics if row in shown else ():
            if metric.partition("/")[0] not in names:
                raise InputError(
                    f"the row {row!r} is measured by {metric!r}, but its config evaluates "
                    f"{', '.join(names) or 'nothing'}; allowed: a metric of one of these."
                )


def check_pairs(scale: Scale, runs: dict[Cell, Trial]) -> None:
    """Raises `InputError` where a claim compares a run with itself."""
    choices = {choice.name: choice.rows for choice in scale.choices}
    analytic = {column.name for column in scale.columns if column.analytic}
    for claim in scale.claims:
        rows = [row for name in claim.named_rows for row in choices.get(name, [name])]
        names = [trial.name for (row, _), trial in runs.items() if row in rows]
        if len(set(names)) < len(names) and claim.column not in analytic:
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(
                f"the claim {claim.text!r} compares rows that share the run {twice!r}; allowed: "
                "rows of different configs."
            )


def make_trial(file: TableFile, row: Row, seed: int, before: dict[Cell, Trial]) -> Trial:
    config = with_trials(file.config(row, seed), seed, before)
    return Trial(
        name=trial_name(row, seed),
        config=config,
        overrides={"row": row.name, **with_trials(dict(row.overrides), seed, before), SEED: seed},
        needs=tuple(sorted(set(find_needs(config)))),
    )


def with_trials(value: Any, seed: int, before: dict[Cell, Trial]) -> Any:
    """'row:NAME' becomes 'trial:...', of that row's run with the same seed, or its only one."""
    if isinstance(value, dict):
        return {key: with_trials(inner, seed, before) for key, inner in value.items()}
    if not isinstance(value, str) or not value.startswith(ROW):
        return value
    runs = {s: trial for (name, s), trial in before.items() if name == value.removeprefix(ROW)}
    return NEEDS + runs.get(seed, next(iter(runs.values()))).name


def trial_name(row: Row, seed: int) -> str:
    """'ViT-B/16' with seed 1 -> 'ViT-B_16,seed=1'."""
    text = re.sub(r"[^A-Za-z0-9._=+\-]+", "_", row.name).lstrip("._=+-")
    return checked_name(f"{text},seed={seed}")


def distinct(runs: dict[Cell, Trial]) -> list[Trial]:
    """Each trial once, in their order."""
    return list({id(trial): trial for trial in runs.values()}.values())
