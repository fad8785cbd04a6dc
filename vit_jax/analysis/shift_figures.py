"""Pictures of what happens on other data than the training's: corrupted, or of other kinds."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vit_jax.analysis.figures import new_figure, tiled

TILE = 1.0  # inches of an image's side
BINS = 60
COLUMNS = 3  # of panels


def draw_versions(
    versions: Mapping[str, Sequence[np.ndarray]], columns: Sequence[str], target: Path
) -> None:
    """One row a name: uint8[h, w, c] images of one size, under the names of the columns."""
    height, width = next(iter(versions.values()))[0].shape[:2]
    gap = max(1, width // 16)
    canvas = tiled(list(versions.values()), above=gap, between=gap)
    figure = new_figure(TILE * len(columns) + 1.6, TILE * height / width * len(versions) + 0.4)
    axes = figure.add_subplot()
    axes.imshow(canvas)
    names = [name.replace("_", " ") for name in versions]
    middles = gap + height / 2 + (height + gap) * np.arange(len(versions))
    axes.set_yticks(middles, names, fontsize=7)
    axes.set_xticks(width / 2 + (width + gap) * np.arange(len(columns)), columns, fontsize=7)
    axes.tick_params(length=0, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    figure.savefig(target, dpi=120)


def draw_table(
    values: np.ndarray, rows: Sequence[str], columns: Sequence[str], target: Path, *, title: str
) -> None:
    """Shares f[rows, columns] as shades, each with its number in percent."""
    figure = new_figure(0.7 * len(columns) + 2.2, 0.27 * len(rows) + 1.0)
    axes = figure.add_subplot()
    axes.imshow(values, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        colour = "white" if value < 0.6 else "black"
        axes.text(j, i, f"{100 * value:.1f}", ha="center", va="center", fontsize=7, color=colour)
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows], fontsize=7)
    axes.set_title(title, fontsize=9)
    figure.savefig(target, dpi=120)


def draw_scores(
    scores: Mapping[str, Mapping[str, np.ndarray]], target: Path, *, titles: Mapping[str, str]
) -> None:
    """One panel a score: how often each source's examples, f[n], have which.

    Args:
      scores: score -> source -> values.
      titles: of the panels.
    """
    columns = min(len(scores), COLUMNS)
    rows = -(-len(scores) // columns)
    figure = new_figure(3.6 * columns, 2.8 * rows)
    for i, (name, sources) in enumerate(scores.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        edges = np.histogram_bin_edges(np.concatenate(list(sources.values())), BINS)
        for source, values in sources.items():
            shares = np.histogram(values, edges)[0] / len(values)
            axes.stairs(shares, edges, fill=True, alpha=0.45, label=source)
        axes.set_title(titles[name], fontsize=8)
        axes.set_xlabel(name)
        axes.set_ylabel("share of examples")
        axes.tick_params(labelsize=7)
        if not i:
            axes.legend(fontsize=7)
    figure.savefig(target, dpi=120)
