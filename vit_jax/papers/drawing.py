"""A table's outcome (see `outcome.py`) as a picture: every seed a point, and mean ± deviation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_jax.analysis.figures import new_figure

ROW_HEIGHT = 0.32  # inches
WIDTH = 6.0


def draw(outcome: Mapping[str, Any], target: Path) -> bool:
    """A panel for each column that has values; False, and no file, where none has."""
    panels = [c for c in outcome["columns"] if any(cell["values"] for cell in c["cells"])]
    if not panels:
        return False
    counts = [len([cell for cell in c["cells"] if is_drawn(cell)]) for c in panels]
    heights = [ROW_HEIGHT * count + 0.7 for count in counts]
    figure = new_figure(WIDTH, sum(heights) + 0.4)
    places = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, column in zip(places, panels, strict=True):
        draw_column(axes, column)
    figure.suptitle(f"{outcome['title']} ({outcome['scale']})", fontsize=10)
    figure.supxlabel("blue: seeds; black: mean ± standard deviation; red: the paper", fontsize=7)
    figure.savefig(target, dpi=120)
    return True


def is_drawn(cell: Mapping[str, Any]) -> bool:
    """Has it anything to show?"""
    return bool(cell["values"]) or (cell["is_same_protocol"] and cell["paper"] is not None)


def draw_column(axes: Any, column: Mapping[str, Any]) -> None:
    cells = [cell for cell in column["cells"] if is_drawn(cell)]
    for y, cell in enumerate(cells):
        values = list(cell["values"].values())
        axes.plot(values, [y] * len(values), "o", color="tab:blue", alpha=0.45, markersize=4)
        if cell["std"] is not None:
            axes.errorbar(cell["mean"], y, xerr=cell["std"], fmt="|", color="black", capsize=3)
        if cell["is_same_protocol"] and cell["paper"] is not None:
            axes.plot([cell["paper"]], [y], "D", color="tab:red", markersize=5)
    axes.set_yticks(range(len(cells)), [cell["row"] for cell in cells], fontsize=8)
    axes.set_ylim(len(cells) - 0.5, -0.5)  # the first row on top
    axes.set_xlabel(f"{column['name']} ({column['unit']})" if column["unit"] else column["name"])
    axes.grid(axis="x", alpha=0.3)
