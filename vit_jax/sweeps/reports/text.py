"""A sweep's report as Markdown for a phone: narrow tables, pictures below one another.

Rows of tables are groups, whose members differ by the seed alone; report.csv has every trial.
"""

import collections
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vit_jax.sweeps.folder import State
from vit_jax.sweeps.reports.costs import Cost
from vit_jax.sweeps.reports.drawing import Drawn
from vit_jax.sweeps.reports.findings import Findings, Group
from vit_jax.sweeps.reports.labels import duration, number, plural, shorten, spread, text_of
from vit_jax.sweeps.statistics import difference

MOST_ROWS = 30  # of a table
MOST_SECTIONS = 12  # groups up to which each has a section of its own
BEST_SECTIONS = 5  # of more groups
MOST_REASONS = 20
COMPARED = 5  # groups that the best one is held against
LONGEST = 64  # characters of a label in a table


def markdown(
    findings: Findings,
    *,
    cost: Cost,
    deviations: Sequence[str],
    pictures: Sequence[Drawn],
) -> str:
    parts = [
        heading(findings),
        groups_table(findings),
        order(findings),
        pictures_text(pictures),
        sections(findings),
        listing("Deviations from protocol", deviations, none="None that can be seen."),
        without_result(findings),
        listing("Cost", cost_lines(findings, cost)),
        how(findings, cost),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def heading(findings: Findings) -> str:
    counts = collections.Counter(record.state for record in findings.records)
    told = ", ".join(f"{counts[state]} {state}" for state in State if counts[state])
    lines = [
        f"# Sweep {findings.folder.path.name}",
        f"{plural(len(findings.records), 'trial')}: {told}.",
    ]
    if findings.metric is None:
        return "\n\n".join([*lines, "No metric is known yet."])
    lines.append(
        f"Metric: `{findings.metric.name}` of the last evaluation, {findings.metric.order}."
    )
    if not findings.counted:
        return "\n\n".join([*lines, "No trial counts yet, so there is no mean."])
    best = findings.groups[0]
    seeds = f"n = {len(best.counted)}"
    lines.append(
        f"Best: {code(best.short_label(2 * LONGEST))} with **{spread(best.summary)}** ({seeds})."
    )
    return "\n\n".join(lines)


def groups_table(findings: Findings) -> str:
    if not findings.counted:
        return ""
    groups = findings.groups[:MOST_ROWS]
    rows = [
        [str(g.rank), code(g.short_label(LONGEST)), spread(g.summary), str(len(g.counted))]
        for g in groups
    ]
    lines = ["## Groups", table(["#", "group", findings.metric.name, "n"], rows)]
    rest = len(findings.groups) - len(groups)
    lines.append(
        "Mean ± sample standard deviation over n seeds; one seed has no spread. Only finished "
        "trials count." + (f" {rest} more groups are in report.json." if rest else "")
    )
    return "\n\n".join(lines)


def order(findings: Findings) -> str:
    """Is the best group better than the next ones, or was it lucky?"""
    groups = findings.measured_groups
    compared = [
        (group, interval)
        for group in groups[1 : 1 + COMPARED]
        if (interval := difference(groups[0].values, group.values)) is not None
    ]
    if len(groups) < 2:
        return ""
    if not compared:
        return (
            "## How sure the order is\n\nNot known: it takes two seeds or more of the best group "
            "and of another one, and values that differ."
        )
    rows = [
        [f"#{group.rank}", number(found.estimate), f"{number(found.low)} to {number(found.high)}"]
        for group, found in compared
    ]
    return "\n\n".join(
        [
            "## How sure the order is",
            table(["#1 minus", "difference", "95 % interval"], rows),
            "Welch's interval, for one comparison that was planned: it allows neither for #1 "
            "having been picked as the best nor for the number of comparisons. An interval with 0 "
            "in it decides nothing.",
        ]
    )


def pictures_text(pictures: Sequence[Drawn]) -> str:
    lines = ["## Pictures"]
    for picture in pictures:
        if picture.pages:
            lines.append(f"### {picture.title}")
            lines += [f"![{picture.title}]({page})" for page in picture.pages]
            lines += [picture.note] if picture.note else []
    left_out = [f"{p.title}: left out, since {p.why_not}." for p in pictures if not p.pages]
    return "\n\n".join([*lines, bullets(left_out)] if left_out else lines)


def sections(findings: Findings) -> str:
    """One for each group, or for the best few of many: the table cannot say all."""
    groups = findings.groups
    shown = groups if len(groups) <= MOST_SECTIONS else groups[:BEST_SECTIONS]
    return "\n\n".join(["## In detail", *(section(findings, group) for group in shown)])


def section(findings: Findings, group: Group) -> str:
    lines = [f"`{key}` = {code(text_of(value))}" for key, value in group.overrides.items()]
    lines += [
        f"seed {record.seed}: {number(findings.value(record))}"
        + ("" if record.state == State.FINISHED else f" ({record.state})")
        for record in group.records
    ]
    return f"### #{group.rank} {code(group.short_label(LONGEST))}\n\n{bullets(lines)}"


def without_result(findings: Findings) -> str:
    told = [record for record in findings.records if record.reason]
    lines = [f"{code(r.name)}, {r.state}: {one_line(r.reason)}" for r in told[:MOST_REASONS]]
    if len(told) > MOST_REASONS:
        lines.append(f"{len(told) - MOST_REASONS} more are in report.csv")
    return listing("Trials without a result", lines)


def cost_lines(findings: Findings, cost: Cost) -> Iterator[str]:
    yield f"{plural(cost.attempts, 'attempt')} at {plural(len(findings.records), 'trial')}"
    yield f"{duration(cost.seconds)} of wall time, the trials' one after another"
    yield f"{cost.device_hours:.3g} device-hours on {', '.join(cost.devices) or 'devices unknown'}"
    if cost.unknown:
        yield f"{plural(cost.unknown, 'attempt')} without a known end, whose time is in no sum"
    if cost.has_jobs:
        yield "the time of a cluster's job begins when it is submitted: waiting is in the sums"


def how(findings: Findings, cost: Cost) -> str:
    lines = ["## How it was run"]
    if command := command_text(findings.sweep.get("command")):
        lines.append(f"```\n{command}\n```")
    if isinstance(config := findings.sweep.get("config"), str):
        lines.append(f"Config: `{config}`")
    lines += [f"Devices of a trial: {', '.join(cost.devices)}"] if cost.devices else []
    known = versions(findings)
    told = [f"{name} {' and '.join(found)}" for name, found in known.items()]
    lines += [bullets(told)] if told else []
    return "\n\n".join(lines) if len(lines) > 1 else ""


def versions(findings: Findings) -> dict[str, list[str]]:
    """Of the trials' cards; those that began the sweep where no trial has begun."""
    cards = [record.card["versions"] for record in findings.records if "versions" in record.card]
    cards = cards or [findings.sweep.get("versions") or {}]
    names = dict.fromkeys(name for card in cards for name in card)
    return {name: sorted({str(card[name]) for card in cards if name in card}) for name in names}


def command_text(command: Any) -> str:
    """The arguments of a process as a line for a shell, without where the package lies."""
    if not isinstance(command, Sequence) or isinstance(command, str):
        return command or ""
    first, *rest = map(str, command)
    program = ["python", "-m", "vit_jax"] if first.endswith("__main__.py") else [Path(first).name]
    return shlex.join([*program, *rest])


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first two columns to the left, the others to the right."""
    lines = [header, [":--" if i < 2 else "--:" for i in range(len(header))], *rows]
    return "\n".join(
        "| " + " | ".join(c.replace("|", r"\|") for c in line) + " |" for line in lines
    )


def listing(title: str, lines: Iterator[str] | Sequence[str], *, none: str = "") -> str:
    lines = list(lines)
    if not lines and not none:
        return ""
    return f"## {title}\n\n{bullets(lines) if lines else none}"


def bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def one_line(reason: str) -> str:
    """The last line of why a trial ended: a traceback's own sentence."""
    lines = [line for line in reason.splitlines() if line.strip()] or [""]
    return shorten(lines[-1].strip(), 240)


def code(text: str) -> str:
    return f"`{text.replace('`', chr(39))}`"
