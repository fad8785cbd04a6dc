"""Pictures of what a model makes of images: predictions, features as colours, maps, similarities.

Each is narrow enough, and its letters are large enough, for a telephone held upright.

Letters: b images; h, w, c pixels and channels; k, l layers; n examples; r, s rows and columns.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int, UInt8

from vit_jax.analysis.figures import DPI, new_figure, shortened, shown

MOST_COLOURS = 20  # of matplotlib's map tab20; more classes have no legend
THUMBNAIL = 20  # points of the longer side of an image on a map
MOST_NAMES = 12  # letters of a class's name beside a bar
MOST_CELLS = 12  # layers up to which each cell has its number


def draw_probabilities(
    images: UInt8[np.ndarray, "b h w c"],
    probabilities: Sequence[Mapping[str, float]],
    target: Path,
    *,
    captions: Sequence[str],
) -> None:
    """Each image, and beside it bars of its classes' probabilities, in the order given."""
    columns = min(2, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(3.1 * columns, 1.75 * rows)
    panels = figure.subplots(rows, 2 * columns, squeeze=False, width_ratios=[1, 0.6] * columns)
    for left, right in zip(panels[:, ::2].ravel(), panels[:, 1::2].ravel(), strict=True):
        left.set_axis_off()
        right.set_axis_off()
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        left, right = panels[row, 2 * column], panels[row, 2 * column + 1]
        left.imshow(shown(image))
        left.set_title(shortened(captions[i], 17), fontsize=10)
        right.set_axis_on()
        names = [shortened(name, MOST_NAMES) for name in probabilities[i]]
        right.barh(range(len(names)), list(probabilities[i].values()), color="tab:blue")
        right.set_yticks(range(len(names)), names, fontsize=10)
        right.set(xlim=(0, 1), xticks=(0, 1))
        right.tick_params(axis="x", labelsize=9)
        right.invert_yaxis()
        for side in ("top", "right"):
            right.spines[side].set_visible(False)
    figure.savefig(target, dpi=DPI)


def draw_feature_colours(
    images: UInt8[np.ndarray, "b h w c"],
    colours: Mapping[str, Float[np.ndarray, "b _ _ 3"]],
    target: Path,
) -> None:
    """A row for each image: itself, then its features as colours behind each layer."""
    figure = new_figure(1.1 * (1 + len(colours)), 1.1 * len(images) + 0.3)
    panels = figure.subplots(len(images), 1 + len(colours), squeeze=False)
    for i, image in enumerate(images):
        pictures = {"image": shown(image), **{name: found[i] for name, found in colours.items()}}
        height, width = image.shape[:2]
        for axes, (name, picture) in zip(panels[i], pictures.items(), strict=True):
            axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
            axes.set_axis_off()
            if i == 0:
                axes.set_title(name, fontsize=11)
    figure.savefig(target, dpi=DPI)


def draw_projection(
    places: Float[np.ndarray, "n 2"],
    target: Path,
    *,
    labels: Int[np.ndarray, " n"] | None = None,
    class_names: Sequence[str] = (),
    thumbnails: Sequence[tuple[int, UInt8[np.ndarray, "h w c"]]] = (),
) -> None:
    """A dot for each example, coloured by class, and some examples themselves at their places.

    Args:
      thumbnails: (example, its image).
    """
    figure = new_figure(6.4, 7.2 if labels is not None else 6.0)
    axes = figure.add_subplot()
    colours = _class_colours(labels, len(places))
    axes.scatter(*places.T, s=12, color=colours)
    if labels is not None and len(classes := np.unique(labels)) <= MOST_COLOURS:
        handles = [
            axes.scatter([], [], color=colours[labels == k][0], label=shortened(class_names[k], 14))
            for k in classes
        ]
        columns = min(3, len(classes))
        figure.legend(
            handles=handles, loc="outside lower center", ncols=columns, fontsize=11, columnspacing=1
        )
    _add_thumbnails(axes, places, thumbnails, colours)
    axes.set(xticks=[], yticks=[])
    figure.savefig(target, dpi=DPI)


def _class_colours(labels: np.ndarray | None, count: int) -> np.ndarray:
    """[n, 4]: of each example."""
    from matplotlib import colormaps

    if labels is None:
        return np.tile(colormaps["tab10"](0), (count, 1))
    classes, number = np.unique(labels, return_inverse=True)
    if len(classes) <= MOST_COLOURS:
        return colormaps["tab10" if len(classes) <= 10 else "tab20"](number)
    return colormaps["nipy_spectral"](number / (len(classes) - 1))


def _add_thumbnails(axes, places, thumbnails, colours) -> None:
    """Each framed in the colour of its class."""
    from matplotlib.offsetbox import AnnotationBbox, OffsetImage

    for i, image in thumbnails:
        picture = OffsetImage(shown(image), zoom=THUMBNAIL / max(image.shape[:2]))
        frame = dict(edgecolor=colours[i], linewidth=1.5)
        axes.add_artist(AnnotationBbox(picture, places[i], pad=0.05, bboxprops=frame))


def spread_out(places: Float[np.ndarray, "n 2"], count: int, *, least: float = 0.08) -> list[int]:
    """Up to `count` examples, no two of them closer than `least` of the map's width or height.

    Each is the one farthest from all before it, so that they are spread over the whole map.
    """
    size = np.ptp(places, axis=0)
    unit = (places - places.min(axis=0)) / np.where(size > 0, size, 1)
    chosen = [int(np.abs(unit - 0.5).sum(axis=1).argmin())]
    distance = np.abs(unit - unit[chosen[0]]).max(axis=1)
    while len(chosen) < count and distance.max() >= least:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.abs(unit - unit[chosen[-1]]).max(axis=1))
    return chosen


def draw_similarity(
    similarity: Float[np.ndarray, "k l"],
    target: Path,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    row_title: str = "layer",
    column_title: str = "layer",
) -> None:
    """CKA of layers with layers, from 0 (dark) to 1 (bright); the first ones at the lower left."""
    figure = new_figure(5.4, 4.6)
    axes = figure.add_subplot()
    picture = axes.imshow(similarity, vmin=0, vmax=1, origin="lower", cmap="magma", aspect="auto")
    for axis, names in ((axes.yaxis, rows), (axes.xaxis, columns)):
        step = -(-len(names) // MOST_CELLS)
        axis.set_ticks(range(0, len(names), step), names[::step], fontsize=9)
    axes.set_xlabel(column_title, fontsize=10)
    axes.set_ylabel(row_title, fontsize=10)
    if max(similarity.shape) <= MOST_CELLS:
        for (i, j), value in np.ndenumerate(similarity):
            colour = "black" if value > 0.6 else "white"
            style = dict(ha="center", va="center", color=colour, fontsize=8)
            axes.text(j, i, f"{value:.2f}", **style)
    figure.colorbar(picture, ax=axes, label="linear CKA")
    figure.savefig(target, dpi=DPI)
