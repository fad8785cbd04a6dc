"""Pictures of relevance, of its faithfulness, and of occlusion.

Letters: b images; h, w, c pixels and channels; r, s rows and columns of cells.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.analysis.faithfulness import RANDOM, Faithfulness
from vit_jax.analysis.figures import DPI, draw_heat, largest, new_figure, shown


def draw_relevances(
    images: UInt8[np.ndarray, "b h w c"],
    relevances: Mapping[str, Float[np.ndarray, "b r s"]],
    target: Path,
    *,
    captions: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """A row for each image: itself, then a heat map over it for each method.

    Heat is relevance over the largest of that image and method; what speaks against the class is
    as cold as what does not count. A picture that is constant is cold.
    """
    rows, columns = len(images), 1 + len(relevances)
    figure = new_figure(1.8 * columns, 1.9 * rows + 0.3)
    figure.suptitle(title, fontsize=10)
    panels = figure.subplots(rows, columns, squeeze=False)
    for i, image in enumerate(images):
        panels[i, 0].imshow(shown(image))
        for axes in panels[i]:
            axes.set_axis_off()
        if captions is not None:
            panels[i, 0].set_title(captions[i], fontsize=8)
        for axes, (name, maps) in zip(panels[i, 1:], relevances.items(), strict=True):
            draw_heat(axes, image, as_heat(np.asarray(maps[i])))
            if i == 0:
                axes.set_title(name, fontsize=8)
    figure.savefig(target, dpi=DPI)


def as_heat(relevance: Float[np.ndarray, "r s"]) -> Float[np.ndarray, "r s"]:
    """From 0 to 1. The least of a picture without a negative one is 0: rows of a rollout or of a
    mean over patches have a part that is the same everywhere."""
    least = max(float(relevance.min()), 0.0)
    heat = np.maximum(relevance - least, 0)
    return heat / heat.max() if heat.max() > 0 else heat


def draw_faithfulness(
    results: Mapping[str, Faithfulness], target: Path, *, ylabel: str = "probability of the class"
) -> None:
    """Mean curves of deletion and, below, insertion; areas and standard errors in the legends."""
    figure = new_figure(5.6, 7.2)
    for i, part in enumerate(("deletion", "insertion")):
        axes = figure.add_subplot(2, 1, i + 1)
        for name, found in results.items():
            label = f"{name}: {getattr(found, part):.3f}"
            style = dict(color="grey", linestyle="--") if name == RANDOM else {}
            scores = getattr(found.curves, part).mean(axis=0)
            axes.plot(found.curves.shares, scores, label=label, **style)
        better = {"deletion": "small", "insertion": "large"}[part]
        verb = {"deletion": "removed", "insertion": "shown"}[part]
        axes.set(title=f"{part}: a {better} area is good", xlabel=f"share of cells {verb}")
        axes.set(ylabel=ylabel, xlim=(0, 1))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=9)
    figure.savefig(target, dpi=DPI)


def draw_drops(
    images: UInt8[np.ndarray, "b h w c"],
    drops: Float[np.ndarray, "b r s"],
    target: Path,
    *,
    captions: Sequence[str] | None = None,
    columns: int = 2,
) -> None:
    """Pairs of an image and a map of what is lost where a place is hidden: red; gained: blue.

    One scale for all images, so that brightness compares them.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(3.0 * columns + 0.6, 1.9 * rows)
    panels = figure.subplots(rows, 2 * columns, squeeze=False)
    most = largest(np.abs(drops))
    for axes in panels.flat:
        axes.set_axis_off()
    for i, (image, drop) in enumerate(zip(images, drops, strict=True)):
        left, right = panels.reshape(-1, 2)[i]
        height, width = image.shape[:2]
        left.imshow(shown(image))
        if captions is not None:
            left.set_title(captions[i], fontsize=9)
        style = dict(cmap="RdBu_r", vmin=-most, vmax=most, extent=(0, width, height, 0))
        drawn = right.imshow(drop, **style)
    figure.colorbar(drawn, ax=panels, shrink=0.9, label="drop")
    figure.savefig(target, dpi=DPI)
