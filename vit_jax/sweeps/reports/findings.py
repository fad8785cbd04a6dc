"""What a sweep has found so far: its metric, and its trials in groups that share all but the seed.

Two trials are of one group if their whole configs are the same but for `train.seed`, and but for
which of another group's trials they begin from. Only finished trials count, and of one seed only
one: the same run twice says nothing new about the noise.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax.sweeps.folder import Record, State, SweepFolder
from vit_jax.sweeps.reports import labels
from vit_jax.sweeps.statistics import Summary
from vit_jax.sweeps.trials import SEED, short_keys
from vit_jax.workdir import read_json


class NotSet:
    """What a trial has for a key that its config lacks, as in a search with branches."""

    def __repr__(self) -> str:
        return "not set"


NOT_SET = NotSet()


@dataclasses.dataclass(frozen=True)
class Metric:
    """What trials are compared by. `is_given` is False where the sweep does not say it."""

    name: str
    is_higher_better: bool
    is_given: bool = True

    def of(self, record: Record) -> float | None:
        """Of a finished trial's last evaluation, or measured on it; None where there is none."""
        if record.state != State.FINISHED:
            return None
        value = record.metrics.get(self.name, record.measured.get(self.name))
        return float(value) if value is not None and math.isfinite(value) else None

    @property
    def order(self) -> str:
        return "higher is better" if self.is_higher_better else "lower is better"

    def cost_of(self, value: float) -> float:
        """What sorts the best value first."""
        return -value if self.is_higher_better else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
    """Trials that differ by the seed alone.

    Attributes:
      rank: 1 for the best mean; groups without a mean come last.
      name: that its trials were given; None where they are named after what they change.
      settings: short name of each swept key -> the group's value, as text.
      overrides: what its first trial changes in the sweep's config, without the seed.
      records: all its trials, in the order of seeds.
      counted: those that are in the mean, and `values` their metric.
      summary: None where no trial counts.
    """

    rank: int
    name: str | None
    settings: Mapping[str, str]
    overrides: Mapping[str, Any]
    records: tuple[Record, ...]
    counted: tuple[Record, ...]
    values: tuple[float, ...]
    summary: Summary | None

    @property
    def label(self) -> str:
        return self.short_label(None)

    def short_label(self, limit: int | None) -> str:
        """At most `limit` characters."""
        text = self.name or labels.told(self.settings, limit=limit)
        text = text or labels.stem(self.records[0].name)  # of a sweep that varies nothing
        return text if limit is None else labels.shorten(text, limit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Findings:
    """Attributes:
    sweep: sweep.json; empty where there is none.
    metric: None where none is named and no trial has logged one.
    records: in the order of names.
    groups: the best first.
    swept: keys whose values differ between groups; `short` has a short name for each.
    """

    folder: SweepFolder
    sweep: Mapping[str, Any]
    metric: Metric | None
    records: tuple[Record, ...]
    groups: tuple[Group, ...]
    swept: tuple[str, ...]
    short: Mapping[str, str]

    def value(self, record: Record) -> float | None:
        return self.metric.of(record) if self.metric else None

    @property
    def counted(self) -> list[Record]:
        return [record for group in self.groups for record in group.counted]

    @property
    def measured_groups(self) -> list[Group]:
        return [group for group in self.groups if group.summary]


def gather(folder: SweepFolder, *, metric: str | None = None) -> Findings:
    """Reads all trials of the sweep; by `metric` in place of its own one, if it is given."""
    records = tuple(sorted(folder.records(), key=lambda record: record.name))
    sweep = read_json(folder.sweep) if folder.sweep.is_file() else {}
    found = read_metric({"metric": metric} if metric else sweep, records)
    members = split(records)
    changed = sorted({key for record in records for key in record.overrides} - {SEED})
    swept = tuple(key for key in changed if _differs(key, members))
    short = short_keys(swept)
    drafts = [_draft(group, found, short) for group in members]
    drafts.sort(key=lambda draft: _order(draft, found))
    groups = tuple(dataclasses.replace(draft, rank=i + 1) for i, draft in enumerate(drafts))
    return Findings(
        folder=folder,
        sweep=sweep,
        metric=found,
        records=records,
        groups=groups,
        swept=swept,
        short=short,
    )


def read_metric(sweep: Mapping[str, Any], records: Sequence[Record]) -> Metric | None:
    """The sweep's metric; else the first accuracy, else the first loss, of an evaluation."""
    if name := sweep.get("metric"):
        default = "min" if name.endswith("loss") else "max"
        return Metric(name, (sweep.get("direction") or default).startswith("max"))
    known = {name for record in records for name in record.metrics}
    known = known or {name for record in records for row in record.rows for name in row}
    known = {name for name in known if not name.startswith("train/")}
    for ending, is_higher_better in (("/top1", True), ("/loss", False)):
        if found := sorted(name for name in known if name.endswith(ending)):
            return Metric(found[0], is_higher_better, is_given=False)
    return None


def split(records: Sequence[Record]) -> list[list[Record]]:
    """The records of each group, in the order of seeds and names."""
    by_name = {record.name: record for record in records}
    groups: dict[str, list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.seed, record.name)):
        groups.setdefault(identity(record, by_name), []).append(record)
    return list(groups.values())


def identity(record: Record, by_name: Mapping[str, Record]) -> str:
    """The config without its seed, where another trial's workdir stands for that one's identity."""

    def canonical(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: canonical(inner) for key, inner in value.items()}
        needed = _needed(value, by_name)
        return ["trial", identity(needed, by_name)] if needed else value

    config = {key: dict(section) for key, section in record.config.items()}
    config.get("train", {}).pop("seed", None)
    return json.dumps(canonical(config), sort_keys=True)


def _needed(value: Any, by_name: Mapping[str, Record]) -> Record | None:
    """The trial whose workdir this is, wherever the sweep's folder lies by now."""
    if isinstance(value, str) and "/" in value and Path(value).parent.name == "trials":
        return by_name.get(Path(value).name)
    return None


def setting(record: Record, key: str) -> Any:
    """What the trial has for a key: its override, else its config's value, else `NOT_SET`."""
    if key in record.overrides:
        return labels.without_seed_of_needs(record.overrides[key])
    value: Any = record.config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return NOT_SET
        value = value[part]
    return value


def _differs(key: str, groups: Sequence[Sequence[Record]]) -> bool:
    return len({_identity_of(setting(group[0], key)) for group in groups}) > 1


def _identity_of(value: Any) -> str:
    """The same for 1 and 1.0, and for no two values that are written otherwise."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return json.dumps(float(value) if is_number else value, sort_keys=True, default=str)


def _draft(records: Sequence[Record], metric: Metric | None, short: Mapping[str, str]) -> Group:
    found = {record.name: metric.of(record) if metric else None for record in records}
    counted = tuple(_one_a_seed(r for r in records if found[r.name] is not None))
    values = tuple(found[record.name] for record in counted)
    return Group(
        rank=0,
        name=labels.own_name(records),
        settings={name: labels.text_of(setting(records[0], k)) for k, name in short.items()},
        overrides={key: v for key, v in records[0].overrides.items() if key != SEED},
        records=tuple(records),
        counted=counted,
        values=values,
        summary=Summary.of(values) if values else None,
    )


def _one_a_seed(records: Iterator[Record]) -> Iterator[Record]:
    seen = set()
    for record in records:
        if record.seed not in seen:
            seen.add(record.seed)
            yield record


def _order(group: Group, metric: Metric | None) -> tuple:
    if metric is None or group.summary is None:
        return (1, 0.0, group.label)
    return (0, metric.cost_of(group.summary.mean), group.label)
