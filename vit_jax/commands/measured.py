"""What `evaluate` shows: how far a pass is, and what was found."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vit_jax.commands.progress import ImageProgress
from vit_jax.train.console import coverage, value_text
from vit_jax.train.sinks import COUNTS


@contextlib.contextmanager
def watching(console: Console) -> Iterator[Callable[[Any, Iterator[Any]], Iterator[Any]]]:
    """Inside, batches of a split are passed on, and how many images that were is shown."""

    def watch(data: Any, batches: Iterator[Any]) -> Iterator[Any]:
        number = data.num_examples
        with ImageProgress(console, f"of {data.source.name} measured") as show:
            for k, batch in enumerate(batches):
                show((k * data.batch_size, 0), (number, 0))
                yield batch
            show((number, 0), (number, 0))

    yield watch


def show(
    console: Console, title: str, metrics: Mapping[str, float], reports: Mapping[str, Any]
) -> None:
    """A table on a terminal, else a line a number: with 95 % intervals, and what was covered.

    Args:
      metrics: 'EVALUATION/METRIC' -> number.
      reports: of the evaluations by protocols, whose intervals are known.
    """
    found: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        head, _, metric = name.rpartition("/")
        found.setdefault(head, {})[metric] = value
    intervals = {name: report.intervals for name, report in reports.items()}
    write = write_table if console.is_terminal else write_lines
    write(console, title, found, intervals)


def write_lines(console, title, found, intervals) -> None:
    write = functools.partial(console.print, highlight=False, soft_wrap=True, markup=False)
    write(title)
    for head, metrics in found.items():
        for metric, text, interval in rows_of(metrics, intervals.get(head, {})):
            between = f" ({interval})" if interval else ""
            write(f"{head}/{metric} {text}{between}")
        if covered := covered_by(metrics):
            write(f"{head}: {covered}")


def write_table(console, title, found, intervals) -> None:
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    for name in ("evaluation", "metric"):
        table.add_column(name)
    for name in ("value", "95 % interval"):
        table.add_column(name, justify="right")
    for head, metrics in found.items():
        for i, (metric, *texts) in enumerate(rows_of(metrics, intervals.get(head, {}))):
            table.add_row(Text(head if i == 0 else ""), Text(metric), *texts)
        if covered := covered_by(metrics):
            table.add_row("", covered, style="dim")
        table.add_section()
    console.print(table)


def rows_of(metrics: Mapping[str, float], intervals: Mapping[str, Any]) -> Iterator[tuple]:
    """(metric, its value, '97.2% to 99.7%' or '')."""
    for metric, value in metrics.items():
        if metric in COUNTS:
            continue
        ends = intervals.get(metric, ())
        yield metric, value_text(metric, value), " to ".join(value_text(metric, x) for x in ends)


def covered_by(metrics: Mapping[str, float]) -> str:
    counts = {name: round(metrics[name]) for name in COUNTS if name in metrics}
    return coverage(**counts) if counts else ""
