"""The findings of an audit (see `vit_jax.data.prepare.audit`) as tables for a console."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from vit_jax.analysis.tables import PLAIN_WIDTH

LONGEST = 30  # rows of a table; the rest is counted


def print_audit(report: Mapping[str, Any], console: Console | None = None) -> None:
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    console.print(split_table(report), highlight=False)
    console.print()
    if report["class_names"]:
        console.print(class_table(report), highlight=False)
        console.print()
    for line in _details(report):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    for problem in report["problems"]:
        console.print(f"problem: {problem}", highlight=False, soft_wrap=True, markup=False)
    if not report["problems"]:
        console.print("no problems found", highlight=False)


def split_table(report: Mapping[str, Any]) -> Table:
    """One column a split."""
    table = _table("split", report["splits"])
    splits = report["splits"].values()
    table.add_row("examples", *(f"{split['examples']:,}" for split in splits))
    table.add_row("unreadable", *(f"{len(split['unreadable']):,}" for split in splits))
    table.add_row("impossible labels", *(f"{len(split['wrong']):,}" for split in splits))
    for side in ("height", "width"):
        title = f"{side}: least, median, greatest"
        table.add_row(title, *(_summary(split["sizes"][side]) for split in splits))
    table.add_row("channels", *(_channels(split["sizes"]["channels"]) for split in splits))
    return table


def class_table(report: Mapping[str, Any]) -> Table:
    """Examples of each class, in the order of the labels."""
    names, splits = report["class_names"], report["splits"]
    table = _table("class", splits)
    for label, name in enumerate(names[:LONGEST]):
        table.add_row(name, *(f"{split['per_class'][label]:,}" for split in splits.values()))
    if len(names) > LONGEST:
        table.add_row(f"and {len(names) - LONGEST:,} more")
    return table


def _details(report: Mapping[str, Any]) -> list[str]:
    lines = []
    for split in report["splits"].values():
        lines += [f"unreadable: {bad['name']}: {bad['reason']}" for bad in split["unreadable"]]
        lines += [f"impossible label: {bad['name']}: {bad['reason']}" for bad in split["wrong"]]
    for group in report["duplicates"]["groups"]:
        lines.append("duplicates: " + " = ".join(one["name"] for one in group))
    lines += [f"shard {one['file']}: SHA-256 {one['sha256']}" for one in report["shards"]]
    more = len(lines) - LONGEST
    return [*lines[:LONGEST], f"and {more:,} more: see --json or --out"] if more > 0 else lines


def _summary(values: Mapping[str, int]) -> str:
    return ", ".join(str(values[key]) for key in ("min", "median", "max")) if values else "n/a"


def _channels(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{key}: {count:,}" for key, count in counts.items()) or "n/a"


def _table(first: str, splits: Mapping[str, Any]) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="bold")
    for name in splits:
        table.add_column(name, justify="right")
    return table
