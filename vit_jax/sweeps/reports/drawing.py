"""What the pictures of a sweep share: width, colours, and how groups and metric are named."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.sweeps.reports.findings import Findings, Group
from vit_jax.sweeps.reports.labels import shorten
from vit_jax.sweeps.reports.swept_axes import spans_decades

WIDTH = 6.5  # inches, at 120 pixels each: text stays legible on a phone
PIXELS_AN_INCH = 120
BEST, GREY = "#c8553d", "#9a9a9a"
COLOURS = (
    "#2c5d8a",
    "#e08e2b",
    "#4f8f6f",
    "#8a4f9e",
    "#c8553d",
    "#5f9bc9",
    "#8c6d4f",
    "#d17fa8",
)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """Figures of Matplotlib, a page each, or why there are none.

    Attributes:
      note: what a reader must know of it.
      numbers: what was computed for it alone, for report.json.
    """

    pages: Sequence[Any] = ()
    note: str = ""
    why_not: str = ""
    numbers: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class Picture:
    """A kind of picture; its pages are FILE.png, FILE-2.png and so on."""

    file: str
    title: str
    draw: Callable[[Findings], Drawing]


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A drawing whose pages are files now."""

    title: str
    pages: Sequence[str]
    note: str
    why_not: str
    numbers: Mapping[str, Any] | None


def title(group: Group, limit: int) -> str:
    """'#3 learning_rate=0.001': by its rank, even where the rest is shortened."""
    return f"#{group.rank} {group.short_label(limit)}"


def set_metric(axes: Any, side: str, findings: Findings, values: Sequence[float]) -> None:
    """Makes side 'x' or 'y' the metric's; logarithmic where its values span decades."""
    axes.set(**{f"{side}label": shorten(findings.metric.name, 30)})
    axes.tick_params(axis=side, labelsize=8)
    if spans_decades(values):
        axes.set(**{f"{side}scale": "log"})
