"""Pictures of the norms of tokens.

Letters: l layers; b images; m patches.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from vit_jax.analysis.figures import DPI, new_figure

BINS = 80  # of a histogram


def draw_token_norms(
    norms: Float[np.ndarray, "l b m"],
    target: Path,
    *,
    cut: float | None = None,
    title: str = "",
) -> None:
    """A histogram of the norms after the last layer, and its cut; below, norms by layer."""
    norms = np.asarray(norms).reshape(len(norms), -1)
    figure = new_figure(5.6, 6.6)
    figure.suptitle(title, fontsize=10)
    upper, lower = figure.subplots(2, 1)
    upper.hist(norms[-1], bins=np.geomspace(norms[-1].min(), norms[-1].max() * 1.001, BINS))
    upper.set(xscale="log", yscale="log", xlabel="norm after the last layer", ylabel="patches")
    _mark(upper.xaxis)
    layers = np.arange(len(norms))
    low, middle, high = np.percentile(norms, [1, 50, 99], axis=1)
    lower.fill_between(layers, low, high, alpha=0.3, label="1 % to 99 % of patches")
    lower.plot(layers, middle, "o-", markersize=3, label="median")
    lower.plot(layers, norms.max(axis=1), "x", color="black", markersize=4, label="largest")
    lower.set(yscale="log", xlabel="layer", ylabel="norm")
    _mark(lower.yaxis)
    if cut is not None:
        upper.axvline(cut, color="grey", linestyle="--", label=f"cut at {cut:.3g}")
        upper.legend(fontsize=9)
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    lower.legend(fontsize=9)
    figure.savefig(target, dpi=DPI)


def _mark(axis) -> None:
    """Few round numbers: a logarithmic axis's own lie on each other where it is short."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(NullLocator())
