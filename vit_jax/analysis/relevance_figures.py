"""Pictures of relevance, of its faithfulness, and of token norms.

Letters: b images; h, w, c pixels and channels; r, s rows and columns of cells; l layers; m patches.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.analysis.attention_figures import DPI, enlarged
from vit_jax.analysis.faithfulness import RANDOM, Faithfulness, Measured
from vit_jax.analysis.figures import new_figure

BINS = 80  # of a histogram


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
        picture = np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image[..., :3]
        for axes in panels[i]:
            axes.imshow(picture)
            axes.set_axis_off()
        if captions is not None:
            panels[i, 0].set_title(captions[i], fontsize=8)
        for axes, (name, maps) in zip(panels[i, 1:], relevances.items(), strict=True):
            heat = enlarged(as_heat(np.asarray(maps[i])), image.shape[:2])
            axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.65)
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
    """Mean curves of deletion and insertion, their areas and standard errors in the legend."""
    figure = new_figure(9.5, 3.6)
    for i, part in enumerate(("deletion", "insertion")):
        axes = figure.add_subplot(1, 2, i + 1)
        for name, found in results.items():
            label = f"{name}: {_told(getattr(found, part))}"
            style = dict(color="grey", linestyle="--") if name == RANDOM else {}
            scores = getattr(found.curves, part).mean(axis=0)
            axes.plot(found.curves.shares, scores, label=label, **style)
        better = {"deletion": "small", "insertion": "large"}[part]
        verb = {"deletion": "removed", "insertion": "shown"}[part]
        axes.set(title=f"{part}: a {better} area is good", xlabel=f"share of cells {verb}")
        axes.set(ylabel=ylabel, xlim=(0, 1))
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(target, dpi=DPI)


def _told(value: Measured) -> str:
    return f"{value.mean:.3f}" + ("" if np.isnan(value.error) else f" ± {value.error:.3f}")


def draw_token_norms(
    norms: Float[np.ndarray, "l b m"],
    target: Path,
    *,
    cut: float | None = None,
    title: str = "",
) -> None:
    """A histogram of the norms after the last layer, and its cut; median and range by layer."""
    norms = np.asarray(norms).reshape(len(norms), -1)
    figure = new_figure(9.5, 3.4)
    figure.suptitle(title, fontsize=10)
    left, right = figure.subplots(1, 2)
    left.hist(norms[-1], bins=np.geomspace(norms[-1].min(), norms[-1].max() * 1.001, BINS))
    left.set(xscale="log", yscale="log", xlabel="norm after the last layer", ylabel="patches")
    layers = np.arange(len(norms))
    low, middle, high = np.percentile(norms, [1, 50, 99], axis=1)
    right.fill_between(layers, low, high, alpha=0.3, label="1 % to 99 % of patches")
    right.plot(layers, middle, "o-", markersize=3, label="median")
    right.plot(layers, norms.max(axis=1), "x", color="black", markersize=4, label="largest")
    right.set(yscale="log", xlabel="layer", ylabel="norm")
    if cut is not None:
        left.axvline(cut, color="grey", linestyle="--", label=f"cut at {cut:.3g}")
        left.legend(fontsize=7)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend(fontsize=7)
    figure.savefig(target, dpi=DPI)
