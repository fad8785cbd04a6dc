"""The picture of how a linear probe came to its strength."""

from collections.abc import Mapping
from pathlib import Path

from vit_jax.analysis.figures import new_figure

TITLES = {"l2": "L2 penalty", "learning_rate": "learning rate, of batches of 256"}


def draw_strengths(curve: Mapping[float, float], chosen: float, name: str, target: Path) -> None:
    """Draws accuracy on the held-out examples against the strength, on a logarithmic axis.

    Args:
      curve: strength -> accuracy, from 0 to 1.
      chosen: one of these strengths.
      name: what it is, see `TITLES`.
    """
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    axes.plot(list(curve), [100 * top1 for top1 in curve.values()], marker="o", markersize=3)
    axes.axvline(chosen, color="#c8553d", linestyle="--", label=f"chosen: {chosen:.3g}")
    axes.set_xscale("log")
    axes.set_xlabel(TITLES[name])
    axes.set_ylabel("top-1 accuracy, held out (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=120)
