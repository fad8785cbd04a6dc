"""A sweep's report for programs: CSV with a line a trial, and JSON with everything.

A cell of the CSV is a value as JSON has it (1e-3, true, null, [1, 2]), or text as it is; text that
would read as another value, or has several lines, is quoted as in JSON. An empty cell is what is
not known. Columns with a dot are overrides, with a slash metrics; what was measured afterwards is
measured/NAME.
"""

import csv
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.sweeps.folder import Record
from vit_jax.sweeps.reports.costs import Cost, spent
from vit_jax.sweeps.reports.drawing import Drawn
from vit_jax.sweeps.reports.findings import Findings, Group, setting
from vit_jax.sweeps.reports.labels import text_of
from vit_jax.sweeps.reports.text import versions
from vit_jax.sweeps.statistics import difference

FIRST = ("name", "group", "state", "seed")
LAST = ("seconds", "attempts", "device_hours", "workdir", "reason")


def csv_text(findings: Findings) -> str:
    rows = [row(findings, group, r) for group in findings.groups for r in group.records]
    between = sorted({key for one in rows for key in one} - {*FIRST, *LAST}, key=_column_order)
    columns = [*FIRST, *between, *LAST]
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([[cell(one[c]) if c in one else "" for c in columns] for one in rows])
    return file.getvalue()


def row(findings: Findings, group: Group, record: Record) -> dict[str, Any]:
    """What is known of a trial, by column; its group is a rank."""
    cost = spent(record)
    known = {
        "name": record.name,
        "group": group.rank,
        "state": record.state.value,
        "seed": record.seed,
        **record.overrides,
        **record.metrics,
        **{f"measured/{name}": value for name, value in record.measured.items()},
        "attempts": cost.attempts,
        "workdir": record.workdir.path.relative_to(findings.folder.path).as_posix(),
    }
    last = {"seconds": cost.seconds, "device_hours": cost.device_hours, "reason": record.reason}
    return known | {name: value for name, value in last.items() if value is not None}


def cell(value: Any) -> str:
    if not isinstance(value, str):
        return json.dumps(value, sort_keys=True, default=str)
    return json.dumps(value) if len(value.splitlines()) != 1 or _reads_as_json(value) else value


def _reads_as_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def parse_cell(text: str) -> Any:
    """What `cell` was made of; None for an empty one as for null."""
    try:
        return json.loads(text) if text else None
    except ValueError:
        return text


def json_text(
    findings: Findings, *, cost: Cost, deviations: Sequence[str], pictures: Sequence[Drawn]
) -> str:
    metric = findings.metric
    told = {
        "metric": metric and metric.name,
        "direction": metric and ("max" if metric.is_higher_better else "min"),
        "command": findings.sweep.get("command"),
        "config": findings.sweep.get("config"),
        "versions": versions(findings),
        "cost": dataclasses.asdict(cost),
        "deviations": list(deviations),
        "swept": list(findings.swept),
        "groups": [group_json(findings, group) for group in findings.groups],
        "trials": [trial_json(findings, g, r) for g in findings.groups for r in g.records],
        "pictures": [dataclasses.asdict(picture) for picture in pictures],
    }
    return json.dumps(_finite(told), indent=2, default=str, allow_nan=False) + "\n"


def group_json(findings: Findings, group: Group) -> dict[str, Any]:
    """`minus_best` is Welch's interval of 95 % for this group's mean minus the first one's."""
    best = findings.groups[0].values
    interval = difference(group.values, best) if group.rank > 1 and group.values else None
    return {
        "rank": group.rank,
        "label": group.label,
        "overrides": dict(group.overrides),
        "swept": {key: _plain(setting(group.records[0], key)) for key in findings.swept},
        "trials": [record.name for record in group.records],
        "counted": [record.name for record in group.counted],
        "seeds": [record.seed for record in group.counted],
        "values": list(group.values),
        "summary": group.summary and dataclasses.asdict(group.summary),
        "minus_best": interval and dataclasses.asdict(interval),
    }


def trial_json(findings: Findings, group: Group, record: Record) -> dict[str, Any]:
    cost = spent(record)
    return {
        "name": record.name,
        "group": group.rank,
        "state": record.state.value,
        "is_counted": record in group.counted,
        "seed": record.seed,
        "overrides": dict(record.overrides),
        "metrics": dict(record.metrics),
        "measured": dict(record.measured),
        "step": record.step,
        "reason": record.reason,
        "cost": {**dataclasses.asdict(cost), "device_hours": cost.device_hours},
        "devices": record.card.get("devices"),
        "versions": record.card.get("versions"),
        "workdir": record.workdir.path.relative_to(findings.folder.path).as_posix(),
    }


def _plain(value: Any) -> Any:
    """JSON's own types; 'not set' as text."""
    is_json = value is None or isinstance(value, str | int | float | list | tuple | Mapping)
    return value if is_json else text_of(value)


def _finite(value: Any) -> Any:
    """The same without NaN and infinities, which JSON lacks: they become text."""
    if isinstance(value, Mapping):
        return {str(key): _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _column_order(name: str) -> tuple[int, str]:
    """Overrides, then metrics, then what was measured."""
    if "/" not in name:
        return (0, name)
    return (2 if name.startswith("measured/") else 1, name)
