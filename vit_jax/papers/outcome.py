"""A table with its answer as plain data, which is what table.json holds; `markdown` and `drawing`
show it. Values are in the paper's unit; times are seconds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.papers import deviations, measuring, pricing, verdicts
from vit_jax.papers.loading import TableFile
from vit_jax.papers.table import Better, Column, Row, Scale
from vit_jax.papers.trials import Cell, distinct
from vit_jax.sweeps.folder import Record, State, SweepFolder
from vit_jax.sweeps.reports import costs
from vit_jax.sweeps.statistics import Summary
from vit_jax.sweeps.trials import Trial


def outcome_of(
    file: TableFile, name: str, runs: Mapping[Cell, Trial], sweep: SweepFolder
) -> dict[str, Any]:
    """What is known of a scale of a table, from the folder of its sweep."""
    table, scale = file.table, file.scale(name)
    records = records_of(runs, sweep)
    values = measuring.values_of(file, scale, runs, records)
    chosen = {choice.name: measuring.chosen(choice, scale, values) for choice in scale.choices}
    values |= measuring.values_of_choices(scale, chosen, values)
    return {
        "table": table.name,
        "title": table.title,
        "source": table.source,
        "question": table.question,
        "scale": name,
        "command": pricing.launch_command(file, name),
        **hardware(records),
        "runs": {
            "trials": len(distinct(dict(runs))),
            "finished": sum(record.state == State.FINISHED for record in records.values()),
            "seconds": costs.total(list(records.values())).seconds,
        },
        "claims": [describe_claim(claim, values, scale) for claim in scale.claims],
        "choices": [
            {**dataclasses.asdict(choice), "chosen": chosen[choice.name]}
            for choice in scale.choices
        ],
        "columns": [
            {
                "name": column.name,
                "unit": column.unit,
                "digits": column.digits,
                "cells": [
                    describe_cell(file, name, row, column, values[row.name, column.name])
                    for row in scale.rows
                    if row.is_shown
                ],
            }
            for column in scale.columns
        ],
        "rows": [describe_row(row) for row in scale.rows],
        "deviations": deviations.deviations_of(file, name, runs, records),
    }


def records_of(runs: Mapping[Cell, Trial], sweep: SweepFolder) -> dict[str, Record]:
    """By the trial's name; those that have a folder."""
    folders = {trial.name: sweep.trial(trial.name) for trial in distinct(dict(runs))}
    return {name: f.record() for name, f in folders.items() if f.trial.is_file()}


def hardware(records: Mapping[str, Record]) -> dict[str, Any]:
    """Of the runs; those that differ are named among the deviations."""
    cards = [record.card for record in records.values() if record.card]
    card = cards[0] if cards else {}
    return {"devices": card.get("devices"), "versions": card.get("versions", {})}


def describe_row(row: Row) -> dict[str, Any]:
    return {
        "name": row.name,
        "kind": str(row.kind),
        "why": row.why,
        "config": row.config,
        "overrides": {key: plain(value) for key, value in row.overrides.items()},
        "seeds": list(row.seeds),
        "is_shown": row.is_shown,
    }


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def describe_cell(
    file: TableFile, scale: str, row: Row, column: Column, values: Mapping[int, float]
) -> dict[str, Any]:
    """A cell; where this scale has no number that ours should be, the paper's for reference."""
    key = (row.name, column.name)
    expected = file.table.scales[scale].expected.get(key)
    reference = expected.value if expected else file.table.scales[scale].reference.get(key)
    seen, exact = list(values.values()), column.analytic is not None
    summary = Summary.of(seen) if seen else None
    verdict = verdicts.judge_value(seen, expected, exact=exact)
    is_told = summary and expected
    return {
        "row": row.name,
        "kind": str(row.kind),
        "paper": reference,
        "is_same_protocol": expected is not None,
        "tolerance": expected and expected.tolerance,
        "expected_from": (expected and (expected.source or file.table.source)) or None,
        "values": {str(seed): value for seed, value in values.items()},
        "n": len(seen),
        "mean": summary and summary.mean,
        "std": summary and summary.std,
        "is_exact": exact,
        "difference": summary.mean - expected.value if is_told else None,
        "verdict": str(verdict),
    }


def describe_claim(
    claim: Any, values: Mapping[tuple[str, str], Mapping[int, float]], scale: Scale
) -> dict[str, Any]:
    column = next(column for column in scale.columns if column.name == claim.column)
    by_row = {row: list(values[row, column.name].values()) for row in claim.named_rows}
    seeds = {row.name: len(row.seeds) for row in scale.rows}
    seeds |= {choice.name: seeds[choice.rows[0]] for choice in scale.choices}
    found = verdicts.judge_claim(claim, by_row, column, seeds=seeds)
    is_order = isinstance(claim, Better)
    return {
        "text": claim.text,
        "kind": "better" if is_order else "tie",
        "column": claim.column,
        "within": None if is_order else claim.within,
        "verdict": str(found.verdict),
        "pairs": [
            {
                "first": pair.first,
                "second": pair.second,
                "n": list(pair.n),
                "interval": pair.interval and dataclasses.asdict(pair.interval),
                "verdict": str(pair.verdict),
            }
            for pair in found.pairs
        ],
    }
