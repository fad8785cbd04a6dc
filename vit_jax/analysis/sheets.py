"""Contact sheets: the rows of a batch as a model will see them, with what is known of each.

Letters: b examples; h, w, c = height, width, channels; m objects; v views or frames.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.analysis.figures import DPI, new_figure, shown
from vit_jax.data.batching.rows import Batch

TILE = 2.2  # inches of an example's side
GAP = 2  # pixels between the views of one example
_VIEWS = ("global_images", "local_images", "video")
_COLOURS = 20  # of matplotlib's map tab20
_OVERLAY = 0.45  # opacity of masks


def draw_batch(
    batch: Batch, class_names: Sequence[str], target: Path, *, title: str = "", columns: int = 6
) -> None:
    """Draws each row that is not masked: image or views, labels, boxes, masks and keypoints.

    Args:
      batch: see `data.batching.rows`.
      class_names: of the labels, of the boxes and of the pixels.
      target: PNG file.
    """
    rows = np.flatnonzero(batch["mask"]).tolist()
    columns = max(1, min(columns, len(rows)))
    lines = max(1, -(-len(rows) // columns))
    pictures = [picture({name: values[i] for name, values in batch.items()}) for i in rows]
    width = max((image.shape[1] / image.shape[0] for image in pictures), default=1.0)
    figure = new_figure(TILE * columns * min(width, 3.0), (TILE + 0.3) * lines + 0.3)
    figure.suptitle(title, fontsize=9)
    for k, (i, image) in enumerate(zip(rows, pictures, strict=True)):
        axes = figure.add_subplot(lines, columns, k + 1)
        axes.imshow(image)
        axes.set_title(caption(batch, i, class_names), fontsize=7)
        axes.set_axis_off()
        _draw_pixels(axes, batch, i)
        _draw_objects(axes, batch, i, class_names)
    figure.savefig(target, dpi=DPI)


def picture(row: Batch) -> np.ndarray:
    """uint8[h,w,c] to be shown of a row: its image, or its views beside one another."""
    if "image" in row:
        return shown(row["image"])
    views = [shown(view) for name in _VIEWS if name in row for view in row[name]]
    height = max(view.shape[0] for view in views)
    padded = [
        np.pad(view, ((0, height - view.shape[0]), (0, GAP), (0, 0)), constant_values=255)
        for view in views
    ]
    return np.concatenate(padded, axis=1)


def caption(batch: Batch, i: int, class_names: Sequence[str]) -> str:
    """'#17 cat', with all labels where there are several."""
    labels: list[int] = []
    if "label" in batch:
        labels = [int(batch["label"][i])]
    elif "labels" in batch:
        labels = np.flatnonzero(batch["labels"][i]).tolist()
    names = ", ".join(class_names[label] for label in labels)
    return f"#{batch['index'][i]} {names}".rstrip()


def _draw_pixels(axes: Any, batch: Batch, i: int) -> None:
    """Class of each pixel and objects' masks, as colours over the image."""
    layers = []
    if "segmentation" in batch:
        layers.append(batch["segmentation"][i])
    if "masks" in batch:
        number = np.arange(1, 1 + batch["masks"].shape[1])[:, None, None]
        layers.append((batch["masks"][i] * number).max(axis=0) - 1)
    for layer in layers:
        marked = np.ma.masked_less(layer, 0)
        axes.imshow(marked % _COLOURS, cmap="tab20", vmin=0, vmax=_COLOURS - 1, alpha=_OVERLAY)


def _draw_objects(axes: Any, batch: Batch, i: int, class_names: Sequence[str]) -> None:
    from matplotlib import colormaps, patches

    colours = colormaps["tab20"]
    labels = batch["box_label"][i] if "box_label" in batch else None
    for k, (left, top, right, bottom) in enumerate(batch["boxes"][i] if "boxes" in batch else ()):
        if right <= left or bottom <= top:  # no object
            continue
        colour = colours(k % _COLOURS)
        # A pixel's centre is drawn at its number, its edge half a pixel before.
        corner = (left - 0.5, top - 0.5)
        box = patches.Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=colour)
        axes.add_patch(box)
        if labels is not None and labels[k] >= 0:
            name = class_names[labels[k]] if labels[k] < len(class_names) else str(labels[k])
            axes.text(*corner, name, fontsize=6, color=colour, va="bottom")
    for points in batch["keypoints"][i] if "keypoints" in batch else ():
        visible = points[points[:, 2] > 0]
        axes.scatter(visible[:, 0] - 0.5, visible[:, 1] - 0.5, s=6)
