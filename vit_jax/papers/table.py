"""What a paper's table is. A file under experiments/ has a function `get_table()` that returns one.

    def get_table() -> PaperTable:
        return PaperTable(
            name="table8", title=..., source="arXiv:2010.11929, Table 8", question=...,
            scales={"full": Scale(rows=..., columns=..., expected=...), "small": Scale(...)},
        )

A row is a run, repeated with several seeds, or a model that is only looked at. A column says how a
row is measured. A cell is one of each. A claim is a sentence of the paper about the order of rows,
which data at hand can test where the published values cannot be had.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FUNCTION = "get_table"  # that a table's file has


class Kind(enum.StrEnum):
    """What can be done about a row in public."""

    TRAINED = "trained"
    WEIGHTS_ONLY = "weights-only"  # not trained anew; its weights are published
    ANALYTIC_ONLY = "analytic-only"  # trained on private data; parameters and FLOPs can be counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One thing that a table compares.

    Attributes:
      name: as in the paper, e.g. 'ViT-B/16'.
      config: 'FILE[:ARG]' below the repository's root.
      overrides: keys of the config and their values, see `sweeps.trials`. A value 'row:NAME' is the
        workdir of that row's run with the same seed, e.g. of its pretraining.
      seeds: one run for each.
      data: (number of classes, number of examples) of data that is not at hand, for the cost.
      why: why a row is not trained.
      is_shown: False for a row that others only begin from.
    """

    name: str
    config: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    kind: Kind = Kind.TRAINED
    data: tuple[int, int] | None = None
    why: str = ""
    is_shown: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """How rows are measured: by exactly one of `metric`, `measure` and `analytic`.

    Attributes:
      metric: of the run's last evaluation, e.g. 'test/top1'.
      measure: of a finished run's workdir; a function with a name of its own.
      analytic: of a row's whole config and its `data`, without running anything.
      scale: what a measured value is multiplied by to be as in the paper: 100 for percent.
      digits: after the point.
      higher_is_better: None where neither is.
    """

    name: str
    metric: str | None = None
    measure: Callable[[Path], float] | None = None
    analytic: Callable[[Mapping[str, Any], tuple[int, int] | None], float] | None = None
    unit: str = ""
    scale: float = 1.0
    digits: int = 2
    higher_is_better: bool | None = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expected:
    """A published value, in the paper's unit.

    Attributes:
      tolerance: how far ours may be, in the same unit.
      source: where the number stands, if not in the table itself.
      why: the reason for the tolerance.
    """

    value: float
    tolerance: float
    source: str = ""
    why: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Better:
    """Each of the rows `first` beats each of `than` in a column."""

    text: str
    column: str
    first: Sequence[str]
    than: Sequence[str]

    @property
    def named_rows(self) -> tuple[str, ...]:
        return (*self.first, *self.than)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tie:
    """No two of the rows differ by more than `within`, in the column's unit."""

    text: str
    column: str
    rows: Sequence[str]
    within: float

    @property
    def named_rows(self) -> tuple[str, ...]:
        return tuple(self.rows)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """That of several rows which is best in the mean of a column, of held-out data as a rule.

    A claim may name it as if it were a row: e.g. each head with the best of its learning rates.

    Attributes:
      by: the column.
    """

    name: str
    rows: Sequence[str]
    by: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """A way to run the table.

    Attributes:
      choices: rows that are chosen among others, for claims.
      expected: (row's name, column's name) -> what the paper has there.
      claims: what the paper says of the order of rows.
      reference: (row's name, column's name) -> the paper's number by its own protocol, which is
        shown beside ours and compared with nothing.
      deviations: in what this differs from the paper's protocol, a sentence each.
      devices: what the runs are for, e.g. 'tpu-v3, 256'; the cost is told for it.
    """

    rows: Sequence[Row]
    columns: Sequence[Column]
    expected: Mapping[tuple[str, str], Expected] = dataclasses.field(default_factory=dict)
    reference: Mapping[tuple[str, str], float] = dataclasses.field(default_factory=dict)
    claims: Sequence[Better | Tie] = ()
    choices: Sequence[Choice] = ()
    deviations: Sequence[str] = ()
    devices: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperTable:
    """Attributes:
    name: of its files, e.g. 'table8'.
    source: paper and table.
    question: that it answers, in one sentence.
    pictures: functions of the folder of a finished sweep and of the folder to draw into.
    """

    name: str
    title: str
    source: str
    question: str
    scales: Mapping[str, Scale]
    pictures: Sequence[Callable[[Path, Path], None]] = ()
