"""What a sweep has come to, for a person: a table of trials, lines as they end, the best trial."""

import collections
import datetime
import functools
import math
import operator
import shlex
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from vit_jax.config_files import OVERRIDE, literal
from vit_jax.errors import InputError
from vit_jax.sweeps import attempts
from vit_jax.sweeps.folder import FINAL, Record, State, SweepFolder, TrialFolder, read_lines
from vit_jax.workdir import read_json

REDRAW_SECONDS = 1.0
SPEED = "speed/images_per_second"
STYLES = {State.FAILED: "red", State.FINISHED: "green", State.RUNNING: "cyan"}
# The top of a table on a terminal, where it may not fit, is what changes.
ORDER = (
    State.RUNNING,
    State.FAILED,
    State.INTERRUPTED,
    State.FINISHED,
    State.PRUNED,
    State.WAITING,
)


class Row(NamedTuple):
    """A trial in the table; None where nothing is known."""

    name: str
    state: State
    step: int
    num_steps: int | None
    value: float | None
    seconds_left: float | None
    note: str | None


def row_of(record: Record, *, metric: str | None) -> Row:
    num_steps = record.card.get("num_steps")
    return Row(
        name=record.name,
        state=record.state,
        step=record.step,
        num_steps=num_steps,
        value=value_of(record, metric),
        seconds_left=seconds_left(record) if record.state == State.RUNNING else None,
        note=record.reason or job_of(record),
    )


def job_of(record: Record) -> str | None:
    """'job 12_3' of a trial that a cluster has; it may not have begun."""
    last = record.attempts[-1] if record.attempts else {}
    is_open = record.state not in FINAL and last.get("event") == "start"
    return f"job {last['job_id']}" if is_open and "job_id" in last else None


def value_of(record: Record, metric: str | None) -> float | None:
    """The metric of a finished trial, or the last that one under way has."""
    if record.state == State.FINISHED:
        return record.metrics.get(metric)
    return next((row[metric] for row in reversed(record.rows) if metric in row), None)


def seconds_left(record: Record) -> float | None:
    """By the speed of the last steps."""
    speed = next((row[SPEED] for row in reversed(record.rows) if SPEED in row), None)
    if not speed or "num_steps" not in record.card:
        return None
    return (record.card["num_steps"] - record.step) * record.config["data"]["batch_size"] / speed


def direction_of(metric: str) -> str:
    """'minimize' for losses, 'maximize' for all else, as `train.keep_best` has it."""
    return "minimize" if metric.endswith("loss") else "maximize"


def default_metric(config: Mapping[str, Any]) -> str | None:
    """Top-1 of the test, or else of the first evaluation; None where nothing is evaluated."""
    evals = config.get("evals", {})
    head = "test" if "test" in evals else next(iter(evals), None)
    return head and f"{head}/top1"


def check_metric(config: Mapping[str, Any], metric: str) -> None:
    """Raises `InputError` for a metric that no evaluation of the config will have."""
    head, evals = metric.rpartition("/")[0], config.get("evals", {})
    if head not in evals:
        raise InputError(
            f"--metric is {metric!r}; allowed: EVALUATION/METRIC with one of "
            f"{', '.join(evals) or '(config.evals is empty)'}."
        )


def number_text(metric: str | None, value: float | None) -> str:
    """'98.61%' for shares, four digits for all else."""
    if value is None or metric is None:
        return ""
    name = metric.rpartition("/")[2]
    is_share = name.startswith("top") or name == "accuracy"
    return f"{value:.2%}" if is_share else f"{value:.4g}"


def table_of(rows: Sequence[Row], *, metric: str | None) -> Table:
    table = Table(box=None)
    table.add_column("trial", overflow="fold")
    for heading in ("state", "step", Text(metric or ""), "ETA", ""):
        table.add_column(heading, overflow="fold")
    for row in rows:
        left = row.seconds_left
        table.add_row(
            Text(row.name),  # which has no markup, nor has what went wrong
            row.state,
            f"{row.step:,}/{row.num_steps:,}" if row.num_steps else "",
            number_text(metric, row.value),
            str(datetime.timedelta(seconds=round(left))) if left is not None else "",
            Text(row.note.splitlines()[-1] if row.note else ""),
            style=STYLES.get(row.state),
        )
    return table


def summary(states: Collection[State]) -> str:
    """'12 trials: 3 running, 9 finished'."""
    counts = collections.Counter(states)
    told = ", ".join(f"{counts[state]} {state}" for state in ORDER if counts[state])
    return f"{len(states)} {'trial' if len(states) == 1 else 'trials'}: {told or 'none'}"


def print_status(folder: SweepFolder, console: Console, *, metric: str | None = None) -> None:
    """With the sweep's own metric, if none is given."""
    own, records = existing(folder)["metric"], folder.records()
    if metric is not None:
        check_known(records, metric)
    metric = metric or own
    rows = [row_of(record, metric=metric) for record in records]
    console.print(table_of(rows, metric=metric))
    console.print(summary([row.state for row in rows]), highlight=False)


def existing(folder: SweepFolder) -> dict[str, Any]:
    """sweep.json; raises `InputError` where there is no sweep."""
    if not folder.sweep.is_file():
        raise InputError(
            f"{folder.path} holds no sweep: there is no sweep.json in it; allowed: the workdir of "
            "a sweep."
        )
    found = read_json(folder.sweep)
    if not isinstance(found, dict) or not {"metric", "config"} <= found.keys():
        raise InputError(f"{folder.sweep} is no sweep's; allowed: the workdir of a sweep.")
    return found


def check_known(records: Sequence[Record], metric: str) -> None:
    """Raises `InputError` for a metric that no trial has logged or had measured."""
    logged = {name for one in records for row in one.rows for name in row if "/" in name}
    known = logged | {name for one in records for name in (*one.metrics, *one.measured)}
    if metric not in known:
        raise InputError(
            f"--metric is {metric!r}, which no trial has; allowed: "
            f"{', '.join(sorted(known)) or '(none is known yet)'}."
        )


def best(folder: SweepFolder, metric: str) -> Record:
    """The finished trial with the best metric that is a number; of equal ones the first by name."""
    existing(folder)
    finished = [record for record in folder.records() if record.state == State.FINISHED]
    if not finished:
        raise InputError(f"no trial in {folder.path} is finished; allowed: to wait for one.")
    known = [record for record in finished if math.isfinite(record.metrics.get(metric, math.nan))]
    if not known:
        raise InputError(
            f"--metric is {metric!r}, of which no finished trial has a finite value; allowed: "
            f"{', '.join(finished[0].metrics)}."
        )
    sign = -1 if direction_of(metric) == "maximize" else 1
    return min(known, key=lambda record: sign * record.metrics[metric])


def print_best(folder: SweepFolder, console: Console, *, metric: str | None = None) -> None:
    """Of the sweep's own metric, if none is given."""
    metric = metric or existing(folder)["metric"]
    if metric is None:
        raise InputError(f"the sweep in {folder.path} has no metric; allowed: --metric=NAME.")
    found = best(folder, metric)
    lines = [f"{found.name}: {metric} {number_text(metric, found.metrics[metric])}"]
    lines += [f"  {key} = {value!r}" for key, value in found.overrides.items()]
    lines.append(f"workdir: {found.workdir.path}")
    if (command := command_of(existing(folder), found)) is not None:
        lines.append(f"alone: {command}")
    console.print("\n".join(lines), highlight=False, soft_wrap=True, markup=False)


def command_of(sweep: Mapping[str, Any], record: Record) -> str | None:
    """`train` with what the trial changes; None where the sweep is of several configs.

    Values are those of the trial's own config, in which workdirs stand for the trials it needs.
    """
    if sweep["config"] is None:
        return None
    given = [f"--config={sweep['config']}", *sweep["arguments"]]
    for key in record.overrides:
        value = functools.reduce(operator.getitem, key.split("."), record.config)
        given.append(f"{OVERRIDE}{key}={argument(value)}")
    words = ["python", "-m", "vit_jax", "train", *given, "--workdir=NEW"]
    return shlex.join(words)


def argument(value: Any) -> str:
    """As the command line has it: text that would be read as a literal is quoted."""
    is_plain = isinstance(value, str) and literal(value) == value
    return value if is_plain else repr(value)


class Progress:
    """Tells how a sweep goes: a table on a terminal, a line for each start and end elsewhere."""

    def __init__(self, folder: SweepFolder, console: Console, *, metric: str | None):
        self._folder, self._console, self._metric = folder, console, metric
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._final: dict[str, Row] = {}  # read once: these change no more
        self._looked = 0.0

    def __enter__(self) -> "Progress":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.update(self._table(), refresh=True)
            self._live.stop()
        states = [folder.state() for folder in self._folder.known()]
        self._print(f"{summary(states)} | {self._folder.path}")

    def waits(self, folder: TrialFolder) -> None:
        begun = [line for line in read_lines(folder.attempts) if line["event"] == "start"]
        process = begun[-1].get("pid", "another") if begun else "another"
        self._print(f"{folder.name}: process {process} of an earlier command still runs it")

    def began(self, folder: TrialFolder) -> None:
        number = attempts.starts(folder)
        again = f" (attempt {number}, from step {attempts.saved_step(folder)})"
        self._line(f"{folder.name}: begins{again if number > 1 else ''}")

    def ended(self, folder: TrialFolder) -> None:
        row = row_of(folder.record(), metric=self._metric)
        text = f"{folder.name}: {row.state}"
        if row.value is not None:
            text += f", {self._metric} {number_text(self._metric, row.value)}"
        if row.note:
            text += f": {row.note.splitlines()[-1]}"
        self._line(text)

    def look(self, running: Collection[TrialFolder]) -> None:
        if self._live and time.monotonic() - self._looked > REDRAW_SECONDS:
            self._live.update(self._table(), refresh=True)
            self._looked = time.monotonic()

    def _table(self) -> RenderableType:
        rows = sorted(self._rows(), key=lambda row: ORDER.index(row.state))
        return table_of(rows, metric=self._metric)

    def _rows(self) -> Iterator[Row]:
        for folder in self._folder.known():
            if folder.name not in self._final:
                row = row_of(folder.record(), metric=self._metric)
                if row.state not in FINAL:
                    yield row
                    continue
                self._final[folder.name] = row
            yield self._final[folder.name]

    def _line(self, text: str) -> None:
        if not self._live:
            self._print(text)

    def _print(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)
