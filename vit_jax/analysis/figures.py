"""Pictures of runs and predictions, as PNG files, and what all pictures share.

Letters: h, w, c pixels and channels; r, s rows and columns of patches.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.train.sinks import COUNTS, read_metrics

DPI = 120
HEAT = 0.65  # opacity of a heat map over an image
MOST_COLUMNS = 4  # of panels
MOST_OF_PROTOCOLS = 9  # panels; the rest is in metrics.jsonl
OF_TRAINING = ("train", "speed", "memory")  # what stands before their metrics
# Metrics that have a panel anyway, or that all but repeat one.
ELSEWHERE = ("loss", "top1", "top5", "learning_rate")


def draw_curves(metrics: Path, target: Path) -> bool:
    """Draws loss, accuracy, learning rate and protocols' metrics over the steps of a metrics.jsonl.

    Returns False, and draws nothing, where there is nothing to draw yet.
    """
    rows = read_metrics(metrics)
    series: dict[str, tuple[list, list]] = {}
    for row in rows:
        for name, value in row.items():
            steps, values = series.setdefault(name, ([], []))
            steps.append(row["step"])
            values.append(value)
    panels = {
        "loss": [name for name in series if name.endswith("/loss")],
        "top-1 accuracy": [name for name in series if name.endswith("/top1")],
        "learning rate": [name for name in series if name.endswith("/learning_rate")],
    }
    panels |= protocol_panels(series)
    panels = {title: names for title, names in panels.items() if names}
    if not panels:
        return False
    columns = min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    figure = new_figure(4 * columns, 3.2 * rows)
    for i, (title, names) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for name in names:
            marker = "" if name.startswith("train/") else "o"
            label = name.rpartition("/")[0]
            axes.plot(*series[name], label=label, marker=marker, markersize=3)
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        if len(names) > 1:
            axes.legend()
    figure.savefig(target, dpi=DPI)
    return True


def protocol_panels(names: Iterable[str]) -> dict[str, list[str]]:
    """By metric, what only evaluations by protocols measure: 'calibration/ece', 'ood/auroc', ..."""
    panels: dict[str, list[str]] = {}
    for name in names:
        head, _, metric = name.rpartition("/")
        if head and head not in OF_TRAINING and metric not in (*ELSEWHERE, *COUNTS):
            panels.setdefault(metric, []).append(name)
    return dict(itertools.islice(panels.items(), MOST_OF_PROTOCOLS))


def draw_predictions(
    images: Sequence[np.ndarray], captions: Sequence[str], target: Path, *, columns: int = 6
) -> None:
    """A contact sheet: uint8[h, w, c] images, each with its caption below."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(2.0 * columns, 2.4 * rows)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow(shown(image))
        axes.set_title(caption, fontsize=8)
        axes.set_axis_off()
    figure.savefig(target, dpi=DPI)


def draw_class_histogram(
    counts: Mapping[str, Sequence[int]],
    class_names: Sequence[str],
    target: Path,
    *,
    named: int = 40,
) -> None:
    """Examples of each class: a panel a split, its bars in the order of the labels.

    Args:
      counts: split -> one number a class.
      named: classes up to which each bar has its name.
    """
    few = len(class_names) <= named
    figure = new_figure(max(6.0, 0.28 * len(class_names)) if few else 10.0, 2.6 * len(counts))
    for i, (split, of_split) in enumerate(counts.items()):
        axes = figure.add_subplot(len(counts), 1, i + 1)
        if few:
            axes.bar(range(len(of_split)), of_split)
            axes.set_xticks(range(len(class_names)), class_names, rotation=90, fontsize=7)
        else:  # one outline: a thousand bars take seconds
            axes.stairs(of_split, fill=True)
            axes.set_xlabel("class")
        axes.set_title(f"{split}: {sum(of_split):,} labels")
        axes.set_ylabel("examples")
        axes.grid(axis="y", alpha=0.3)
    figure.savefig(target, dpi=DPI)


def new_figure(width: float, height: float):
    # The object interface: no global state, no display, and slow to import, so only on use.
    from vit_jax.analysis.canvas import Canvas

    return Canvas(figsize=(width, height), layout="constrained")


def shown(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w 3"]:
    """Grey as three channels; the first of two, the first three of more."""
    return np.repeat(image[..., :1], 3, axis=-1) if image.shape[-1] < 3 else image[..., :3]


def tiled(rows: Sequence[Sequence[np.ndarray]], *, above: int, between: int) -> np.ndarray:
    """uint8[H, W, 3]: images of one size in rows on white, with so many pixels above and between.

    The tile of row i and column j begins at pixel (i + 1) * above + i * h, j * (w + between).
    """
    height, width = rows[0][0].shape[:2]
    down, right = height + above, width + between
    columns = max(map(len, rows))
    canvas = np.full((down * len(rows), right * columns - between, 3), 255, np.uint8)
    for i, images in enumerate(rows):
        for j, image in enumerate(images):
            top, left = i * down + above, j * right
            canvas[top : top + height, left : left + width] = shown(image)
    return canvas


def draw_heat(axes, image: UInt8[np.ndarray, "h w c"], heat: Float[np.ndarray, "r s"]) -> None:
    """A heat map, from 0 to 1, over an image that shines through."""
    axes.imshow(shown(image))
    axes.imshow(enlarged(heat, image.shape[:2]), cmap="inferno", vmin=0, vmax=1, alpha=HEAT)


def enlarged(values: Float[np.ndarray, "r s"], size: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """Linear between the centres of patches, constant beyond the outermost."""
    places = [
        np.clip((np.arange(n) + 0.5) * k / n - 0.5, 0, k - 1)
        for n, k in zip(size, values.shape, strict=True)
    ]
    by_rows = np.stack([np.interp(places[0], range(len(v)), v) for v in values.T], axis=1)
    return np.stack([np.interp(places[1], range(len(v)), v) for v in by_rows])


def largest(values: np.ndarray) -> float:
    """What to divide by, for numbers up to 1: of none above 0 the least there is."""
    return max(float(values.max()), np.finfo(np.float32).tiny)


def shortened(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
