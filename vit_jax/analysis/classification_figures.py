"""Pictures of what a classifier takes for what, and of how far its probabilities can be trusted.

Letters: k classes; b bins.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vit_jax.analysis.figures import new_figure

DPI = 120
MOST_NAMED = 40  # classes whose names can be read along an axis
MOST_COUNTED = 20  # classes whose cells have room for a number


def draw_confusion(
    matrix: Int[np.ndarray, "k k"], class_names: Sequence[str], target: Path
) -> None:
    """Shares of each class's examples by what they were taken for; classes that occur alone."""
    occurs = matrix.any(axis=0) | matrix.any(axis=1)
    matrix, names = matrix[occurs][:, occurs], np.asarray(class_names)[occurs]
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    size = float(np.clip(0.45 * len(names) + 2, 4.5, 12))
    figure = new_figure(size + 0.8, size)
    axes = figure.add_subplot()
    shown = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
    axes.set(xlabel="predicted", ylabel="label")
    if len(names) <= MOST_NAMED:
        places = range(len(names))
        axes.set_xticks(places, names, rotation=90, fontsize=8)
        axes.set_yticks(places, names, fontsize=8)
    if len(names) <= MOST_COUNTED:
        for (row, column), count in np.ndenumerate(matrix):
            if count:
                colour = "white" if shares[row, column] > 0.5 else "black"
                axes.text(column, row, count, ha="center", va="center", fontsize=8, color=colour)
    figure.colorbar(shown, ax=axes, label="share of the label's examples", shrink=0.8)
    figure.savefig(target, dpi=DPI)


class Reliability(NamedTuple):
    """Of bins of confidence; NaN where a bin is empty."""

    edges: Float[np.ndarray, " b1"]  # one more than bins
    confidence: Float[np.ndarray, " b"]  # mean
    accuracy: Float[np.ndarray, " b"]
    count: Int[np.ndarray, " b"]


def draw_reliability(panels: Mapping[str, Reliability], target: Path) -> None:
    """Accuracy over confidence, above how many examples have it; a panel each (arXiv:1706.04599).

    What is perfectly calibrated lies on the dashed line; bars below it are too sure.
    """
    figure = new_figure(4.2 * len(panels), 5.0)
    axes = figure.subplots(2, len(panels), squeeze=False, height_ratios=(3, 1), sharex=True)
    for (title, found), (upper, lower) in zip(panels.items(), axes.T, strict=True):
        upper.stairs(np.nan_to_num(found.accuracy), found.edges, fill=True, alpha=0.5)
        upper.plot(found.confidence, found.accuracy, "o", markersize=4, color="black")
        upper.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        upper.set(title=title, ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
        upper.title.set_fontsize(9)
        lower.stairs(found.count / found.count.sum(), found.edges, fill=True, color="grey")
        lower.set(xlabel="confidence", ylabel="share")
        for one in (upper, lower):
            one.grid(alpha=0.3)
    figure.savefig(target, dpi=DPI)
