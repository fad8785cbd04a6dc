"""What is measured on finished runs beyond their own evaluation, each run and measure once."""

import logging
import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console

from vit_jax.papers.loading import TableFile
from vit_jax.papers.table import Choice, Column, Scale
from vit_jax.papers.trials import Cell
from vit_jax.sweeps.folder import Record, State, SweepFolder, TrialFolder
from vit_jax.sweeps.trials import Trial
from vit_jax.workdir import read_json, replace_json

logger = logging.getLogger(__name__)


def measure_runs(
    scale: Scale, runs: Mapping[Cell, Trial], sweep: SweepFolder, console: Console
) -> list[str]:
    """Measures every finished run of a row that is shown, for every column that measures.

    Returns what could not be measured and why, in sentences: one mistake costs no other column.
    """
    problems: list[str] = []
    shown = {row.name for row in scale.rows if row.is_shown}
    names = dict.fromkeys(trial.name for (row, _), trial in runs.items() if row in shown)
    for name in names:
        folder = sweep.trial(name)
        if folder.state() == State.FINISHED:
            problems += measure_run(folder, scale.columns, console)
    return problems


def measure_run(folder: TrialFolder, columns: Iterable[Column], console: Console) -> list[str]:
    """Adds what is not there yet to measured.json; after each measure, since they may take long."""
    problems = []
    for column in columns:
        known = read_json(folder.measured) if folder.measured.is_file() else {}
        if column.measure is None or column.measure.__name__ in known:
            continue
        console.print(f"{folder.name}: measuring {column.name}", highlight=False, markup=False)
        value, why = attempt(column.measure, folder.workdir.path)
        if why or not math.isfinite(value):
            problems.append(f"{folder.name}: {column.name} could not be measured: {why or value}")
        else:
            replace_json(folder.measured, {**known, column.measure.__name__: float(value)})
    return problems


def attempt(function: Callable[..., Any], *arguments: Any) -> tuple[Any, str]:
    """(what it returns, ''), or (None, what went wrong)."""
    try:
        return function(*arguments), ""
    except Exception as error:
        logger.exception("in %s", getattr(function, "__name__", function))
        return None, f"{type(error).__name__}: {error}"


def values_of(
    file: TableFile, scale: Scale, runs: Mapping[Cell, Trial], records: Mapping[str, Record]
) -> dict[tuple[str, str], dict[int, float]]:
    """(row, column) -> seed -> value in the paper's unit, where that is finite.

    What is computed stands at the row's first seed.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for row in [row for row in scale.rows if row.is_shown]:
        for column in scale.columns:
            if column.analytic:
                values = {row.seeds[0]: column.analytic(file.config(row), row.data)}
            else:
                cells = {seed: runs.get((row.name, seed)) for seed in row.seeds}
                values = {
                    seed: value_of(records[trial.name], column)
                    for seed, trial in cells.items()
                    if trial and trial.name in records
                }
            found[row.name, column.name] = {
                seed: value * column.scale
                for seed, value in values.items()
                if value is not None and math.isfinite(value)
            }
    return found


def values_of_choices(
    scale: Scale,
    rows: Mapping[str, str | None],
    values: Mapping[tuple[str, str], Mapping[int, float]],
) -> dict[tuple[str, str], Mapping[int, float]]:
    """(choice, column) -> those of the chosen row, or nothing; `rows`: choice -> row."""
    return {
        (name, column.name): values[row, column.name] if row else {}
        for name, row in rows.items()
        for column in scale.columns
    }


def chosen(
    choice: Choice, scale: Scale, values: Mapping[tuple[str, str], Mapping[int, float]]
) -> str | None:
    """The row that a choice falls on; None until each of its rows has all its seeds."""
    column = next(column for column in scale.columns if column.name == choice.by)
    seeds = {row.name: len(row.seeds) for row in scale.rows}
    found = {row: values[row, choice.by].values() for row in choice.rows}
    if any(len(found[row]) < (1 if column.analytic else seeds[row]) for row in choice.rows):
        return None
    best = max if column.higher_is_better else min
    return best(choice.rows, key=lambda row: statistics.fmean(found[row]))


def value_of(record: Record, column: Column) -> float | None:
    if column.metric is not None:
        return record.metrics.get(column.metric)
    return record.measured.get(column.measure.__name__)
