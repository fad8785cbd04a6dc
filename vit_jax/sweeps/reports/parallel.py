"""Parallel coordinates: a line a trial, through its value of each setting down to the metric.

The axes lie below one another, so that a search over many keys makes a picture for a phone tall and
not wide. Colour is the metric, the darker the better; trials without one are grey and dotted, and
end above its axis.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vit_jax.analysis.figures import new_figure
from vit_jax.sweeps.folder import Record
from vit_jax.sweeps.reports.drawing import BEST, GREY, WIDTH, Drawing
from vit_jax.sweeps.reports.findings import Findings, setting
from vit_jax.sweeps.reports.labels import shorten, text_of
from vit_jax.sweeps.reports.swept_axes import SweptAxis, make_axis

MOST_KEYS = 16


def draw(findings: Findings) -> Drawing:
    if len(findings.swept) < 2:
        return Drawing(why_not="fewer than two settings vary")
    if len(findings.measured_groups) < 2:
        return Drawing(why_not="fewer than two settings were tried to the end")
    rows = [*findings.counted, *_begun(findings)]
    varied = [k for k in findings.swept if len({text_of(setting(r, k)) for r in rows}) > 1]
    if len(varied) < 2:
        return Drawing(why_not="fewer than two settings vary among trials that have begun")
    keys = varied[:MOST_KEYS]
    values = [findings.value(record) for record in findings.counted]
    axes_of_keys = [make_axis(findings.short[k], [setting(r, k) for r in rows]) for k in keys]
    metric = make_axis(f"{findings.metric.name} ({findings.metric.order})", values)
    figure = new_figure(WIDTH, 0.72 * (len(keys) + 1) + 0.3)
    axes = figure.add_subplot()
    _draw_lines(axes, axes_of_keys, metric, _goodness(findings, values))
    for height, axis in enumerate([*axes_of_keys, metric]):
        _draw_axis(axes, axis, height)
    axes.set_ylim(len(keys) + 0.45, -0.4)
    axes.set_xlim(-0.05, 1.05)
    axes.set_axis_off()
    left = len(findings.swept) - len(keys)
    more = f" {left} more settings are not shown." if left else ""
    return Drawing(
        [figure],
        note=f"The darker, the better; red: the best; grey: trials that do not count.{more}",
    )


def _begun(findings: Findings) -> list[Record]:
    """Trials that do not count but were tried: they show where a search has looked."""
    counted = {record.name for record in findings.counted}
    return [r for r in findings.records if r.name not in counted and r.attempts]


def _goodness(findings: Findings, values: Sequence[float]) -> np.ndarray:
    """f64[n]: 0 for the worst tenth up to 1 for the best, however far off the worst are."""
    gain = -np.asarray([findings.metric.cost_of(value) for value in values])
    low, high = np.quantile(gain, 0.1), gain.max()
    return np.clip((gain - low) / ((high - low) or 1.0), 0, 1)


def _draw_lines(
    axes: Any, keys: Sequence[SweptAxis], metric: SweptAxis, goodness: np.ndarray
) -> None:
    from matplotlib import colormaps  # slow to import

    colours = colormaps["viridis_r"](0.1 + 0.9 * goodness)
    heights = range(len(keys) + 1)
    width = 1.0 if len(goodness) > 60 else 1.4
    for i in range(len(goodness), len(keys[0].places)):
        axes.plot([k.places[i] for k in keys], heights[:-1], ":", color=GREY, lw=0.8, alpha=0.7)
    for i in np.argsort(goodness, kind="stable"):
        path = [*(key.places[i] for key in keys), metric.places[i]]
        is_best = i == np.argmax(goodness)
        colour = BEST if is_best else colours[i]
        axes.plot(path, heights, color=colour, lw=2.4 if is_best else width, alpha=0.85)


def _draw_axis(axes: Any, axis: SweptAxis, height: int) -> None:
    behind = dict(facecolor="white", edgecolor="none", alpha=0.8, pad=0.6)
    above, below = dict(va="bottom", bbox=behind), dict(va="top", ha="center", bbox=behind)
    axes.plot([-0.02, 1.02], [height, height], color="black", lw=1.0)
    name = shorten(axis.name, 60) + (" (logarithmic)" if axis.scale == "log" else "")
    axes.text(-0.02, height - 0.07, name, fontsize=9, fontweight="bold", **above)
    for place, text in axis.ticks:
        axes.plot([place, place], [height - 0.04, height + 0.04], color="black", lw=1.0)
        axes.text(place, height + 0.08, text, fontsize=8, **below)
