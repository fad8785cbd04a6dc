"""Pictures of a sweep. Each fits a phone: one column, and long names shortened.

A picture is made of what was found, or it is left out and says why: none is ever empty. Groups are
told by their rank, as the tables of the report have them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.analysis.figures import new_figure
from vit_jax.sweeps.folder import Record
from vit_jax.sweeps.reports import importance, parallel
from vit_jax.sweeps.reports.drawing import (
    BEST,
    COLOURS,
    GREY,
    WIDTH,
    Drawing,
    Picture,
    set_metric,
    title,
)
from vit_jax.sweeps.reports.findings import Findings, Group, setting
from vit_jax.sweeps.reports.labels import plural, shorten
from vit_jax.sweeps.reports.swept_axes import SweptAxis, make_axis, spans_decades

NAMED = len(COLOURS)  # groups with a colour of their own
MOST_ROWS = 40  # of groups in one picture
FEW_VALUES = 12  # of a setting whose trials have a mean for each
PANELS = 5  # settings on one page


def curves(findings: Findings) -> Drawing:
    """Metric and training loss over the steps: a thin line a trial, a thick one a group's mean."""
    names = curve_names(findings)
    if not names:
        return Drawing(why_not="no trial has logged more than one step yet")
    told = min(NAMED, len(findings.groups))
    figure = new_figure(WIDTH, 2.9 * len(names) + 0.22 * told + 0.3)
    panels = [figure.add_subplot(len(names), 1, i + 1) for i in range(len(names))]
    for axes, name in zip(panels, names, strict=True):
        for group in reversed(findings.groups):  # the best above the others
            _draw_group(axes, group, name)
        _limit(axes, [v for r in findings.records for _, v in series(r, name)])
        axes.set_title(name, fontsize=10)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
    panels[-1].set_xlabel("step")
    handles = {h.get_label(): h for axes in panels for h in axes.get_legend_handles_labels()[0]}
    ordered = sorted(handles.items(), key=lambda item: int(item[0][1:].split()[0]))
    figure.legend(
        [handle for _, handle in ordered],
        [label for label, _ in ordered],
        loc="outside lower left",
        fontsize=8,
        frameon=False,
    )
    others = len(findings.groups) - told
    notes = []
    if findings.metric and findings.metric.name not in names:
        notes.append(f"`{findings.metric.name}` was evaluated once, and so has no curve.")
    notes += [f"Grey: the {plural(others, 'other group')}."] if others else []
    if any(r.rows and r not in group.counted for group in findings.groups for r in group.records):
        notes.append("Dotted: trials that are in no mean.")
    return Drawing([figure], note=" ".join(notes))


def seeds(findings: Findings) -> Drawing:
    """Each group's trials as points, and their mean ± standard deviation."""
    groups = findings.measured_groups
    if len(findings.counted) < 2:
        return Drawing(why_not="fewer than two trials are finished")
    shown = groups[:MOST_ROWS]
    figure = new_figure(WIDTH, 0.9 + 0.24 * max(4, len(shown)))
    axes = figure.add_subplot()
    for row, group in enumerate(shown):
        colour = BEST if row == 0 else COLOURS[0]
        axes.plot(group.values, [row] * len(group.values), "o", ms=4, alpha=0.6, color=colour)
        if group.summary.std is not None:
            axes.errorbar(
                group.summary.mean, row, xerr=group.summary.std, fmt="|", ms=9, color="black",
                elinewidth=1.1, capsize=2.5,
            )  # fmt: skip
    axes.set_yticks(range(len(shown)), [title(group, 38) for group in shown], fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    set_metric(axes, "x", findings, [value for group in shown for value in group.values])
    axes.grid(alpha=0.3)
    rest = len(groups) - len(shown)
    return Drawing([figure], note=f"The best {len(shown)}; {rest} more are not shown." * bool(rest))


def slices(findings: Findings) -> Drawing:
    """The metric over each setting, whatever the others were."""
    counted = findings.counted
    if len(findings.measured_groups) < 2 or not findings.swept:
        return Drawing(why_not="fewer than two settings were tried to the end")
    keys = [k for k in findings.swept if len({str(setting(r, k)) for r in counted}) > 1]
    if not keys:
        return Drawing(why_not="the finished trials differ in no single setting")
    pages = [keys[i : i + PANELS] for i in range(0, len(keys), PANELS)]
    return Drawing([_slice_page(findings, page, counted) for page in pages])


def importances(findings: Findings) -> Drawing:
    found = importance.of(findings)
    if found.why_not:
        return Drawing(why_not=found.why_not)
    rows = [*found.shares.items(), ("interactions", found.interactions)]
    figure = new_figure(WIDTH, 1.0 + 0.3 * len(rows))
    axes = figure.add_subplot()
    means, deviations = zip(*[value for _, value in rows], strict=True)
    colours = [COLOURS[0]] * len(found.shares) + [GREY]
    axes.barh(range(len(rows)), means, xerr=deviations, color=colours, capsize=3, height=0.65)
    axes.set_yticks(range(len(rows)), [shorten(name, 30) for name, _ in rows], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("share of the variance explained")
    axes.grid(axis="x", alpha=0.3)
    note = (
        "Share of the variance of the metric that a setting explains alone, by the functional "
        f"ANOVA of {importance.NUM_FORESTS} random forests (bars: standard deviation over them); "
        f"they predict points that they have not seen with R² {found.determination:.2f}."
    )
    return Drawing([figure], note=note, numbers=dataclasses.asdict(found))


PICTURES = (
    Picture("curves", "Learning curves", curves),
    Picture("seeds", "Seeds", seeds),
    Picture("parallel", "Parallel coordinates", parallel.draw),
    Picture("slices", "Slices", slices),
    Picture("importance", "Importance", importances),
)


def series(record: Record, name: str) -> list[tuple[int, float]]:
    """(step, value) of a trial, without what is not finite."""
    return [(r["step"], r[name]) for r in record.rows if name in r and np.isfinite(r[name])]


def mean_series(records: Sequence[Record], name: str) -> list[tuple[int, float]]:
    """The mean at the steps that all of the trials have logged."""
    all_series = [dict(series(record, name)) for record in records]
    steps = set.intersection(*map(set, all_series)) if all_series else set()
    return [(s, float(np.mean([values[s] for values in all_series]))) for s in sorted(steps)]


def curve_names(findings: Findings) -> list[str]:
    """The metric, or what is like it in another evaluation, and the training loss, where logged."""
    metric = findings.metric.name if findings.metric else ""
    logged = sorted({name for record in findings.records for row in record.rows for name in row})
    ending = f"/{metric.rpartition('/')[2]}"
    alike = [name for name in logged if name.endswith(ending) and not name.startswith("train/")]
    drawable = [n for n in [metric, *alike] if _most_points(findings, n) > 1]
    last = ["train/loss"] if _most_points(findings, "train/loss") > 1 else []
    return list(dict.fromkeys([*drawable[:1], *last]))


def _most_points(findings: Findings, name: str) -> int:
    return max((len(series(record, name)) for record in findings.records), default=0)


def _draw_group(axes: Any, group: Group, name: str) -> None:
    is_named = group.rank <= NAMED
    colour = COLOURS[group.rank - 1] if is_named else GREY
    mean = mean_series(group.counted, name)
    label = f"{title(group, 62)} (n = {len(group.counted)})" if is_named else None
    for record in group.records:
        if not (points := series(record, name)):
            continue
        style = "-" if record in group.counted else ":"
        marker = "." if len(points) < 8 else None
        own_label = None if mean else label
        axes.plot(
            *zip(*points, strict=True), ls=style, marker=marker, color=colour, lw=0.8, ms=4,
            label=own_label, alpha=0.6 if is_named else 0.35,
        )  # fmt: skip
        label = label if mean else None
    if mean:
        look = dict(lw=2.2) if is_named else dict(lw=1.0, alpha=0.6)
        marker = "o" if len(mean) == 1 else None
        axes.plot(*zip(*mean, strict=True), marker=marker, color=colour, label=label, **look)


def _limit(axes: Any, values: Sequence[float]) -> None:
    """Cuts what lies far outside, since one trial that exploded would flatten all others.

    Where many lie far apart the axis is logarithmic.
    """
    low, high = np.quantile(values, (0.03, 0.97)) if values else (0.0, 0.0)
    room = high - low
    if room and (max(values) > high + 3 * room or min(values) < low - 3 * room):
        axes.set_ylim(max(min(values), low - room / 2), min(max(values), high + room / 2))
    elif values and spans_decades(values, decades=3):
        axes.set_yscale("log")


def _slice_page(findings: Findings, keys: Sequence[str], counted: Sequence[Record]) -> Any:
    figure = new_figure(WIDTH, 2.2 * len(keys))
    values = [findings.value(record) for record in counted]
    for i, key in enumerate(keys):
        axes = figure.add_subplot(len(keys), 1, i + 1)
        axis = make_axis(findings.short[key], [setting(record, key) for record in counted])
        axes.plot(axis.places, values, "o", ms=4, alpha=0.5, color=COLOURS[0])
        best = findings.groups[0].counted
        chosen = [j for j, record in enumerate(counted) if record in best]
        axes.plot(
            [axis.places[j] for j in chosen], [values[j] for j in chosen], "o", ms=5, color=BEST
        )
        _draw_means(axes, axis, values)
        _set_ticks(axes, axis)
        set_metric(axes, "y", findings, values)
    return figure


def _draw_means(axes: Any, axis: SweptAxis, values: Sequence[float]) -> None:
    """A dash at the mean of the trials that share a value, of settings with a few values."""
    places, array = np.asarray(axis.places), np.asarray(values)
    if len(set(axis.places)) > FEW_VALUES:
        return
    for place in sorted(set(axis.places)):
        if (here := places == place).sum() > 1:
            axes.plot(
                [place - 0.02, place + 0.02], [array[here].mean()] * 2, "-", lw=2, color="black"
            )


def _set_ticks(axes: Any, axis: SweptAxis) -> None:
    axes.set_xticks(*zip(*axis.ticks, strict=True), fontsize=8)
    axes.set_xlim(-0.06, 1.06)
    axes.set_xlabel(shorten(axis.name, 60) + (" (logarithmic)" if axis.scale == "log" else ""))
    axes.grid(alpha=0.3)
