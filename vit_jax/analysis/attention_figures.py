"""What a ViT looks at and has learned, as in the figures of arXiv:2010.11929.

Letters: b images; h, w, c pixels and channels; l layers; g heads; r, s rows and columns of patches.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.analysis.figures import DPI, draw_heat, largest, new_figure, shown

MOST_CELLS = 14  # of a grid of grids, along an axis; more would be smaller than a line


def draw_rollout(
    images: UInt8[np.ndarray, "b h w c"],
    shares: Float[np.ndarray, "b r s"],
    target: Path,
    *,
    captions: Sequence[str] | None = None,
    title: str = "",
    columns: int = 4,
) -> None:
    """Pairs of an image and a heat map over it of where the output comes from (Figure 6).

    Heat is a patch's share of the output over the largest one's of that image, smoothed between
    the centres of patches. The paper darkens the image instead, which hides what lies on black.
    """
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure = new_figure(3.0 * columns, (1.75 if captions is None else 1.9) * rows + 0.3)
    figure.suptitle(title, fontsize=10)
    for i, (image, share) in enumerate(zip(images, shares, strict=True)):
        left, right = (figure.add_subplot(rows, 2 * columns, 2 * i + k) for k in (1, 2))
        left.imshow(shown(image))
        draw_heat(right, image, share / largest(share))
        if captions is not None:
            left.set_title(captions[i], fontsize=9)
        for axes in (left, right):
            axes.set_axis_off()
    figure.savefig(target, dpi=DPI)


def draw_attention_maps(
    image: UInt8[np.ndarray, "h w c"],
    maps: Float[np.ndarray, "l g r s"],
    target: Path,
    *,
    layers: Sequence[str],
) -> None:
    """A row for each layer: the mean of its heads over the image, then each head's own picture.

    Each is scaled to its own largest weight, so that brightness does not compare heads.
    """
    height, width = image.shape[:2]
    columns = 1 + maps.shape[1]
    cell = max(0.62, min(1.1, 7.2 / columns))
    figure = new_figure(cell * columns + 0.4, cell * len(maps) * height / width + 0.4)
    panels = figure.subplots(len(maps), columns, squeeze=False)
    for row, (of_layer, name) in enumerate(zip(maps, layers, strict=True)):
        mean = of_layer.mean(axis=0)
        draw_heat(panels[row, 0], image, mean / largest(mean))
        panels[row, 0].set_ylabel(name, fontsize=11)
        for column, one in enumerate(of_layer, start=1):
            style = dict(cmap="inferno", vmin=0, extent=(0, width, height, 0))
            panels[row, column].imshow(one / largest(one), vmax=1, **style)
    for column, axes in enumerate(panels[0]):
        axes.set_title("mean" if column == 0 else str(column - 1), fontsize=11)
    for axes in panels.flat:
        axes.set(xticks=[], yticks=[])
    figure.supxlabel("head", fontsize=11)
    figure.supylabel("layer", fontsize=11)
    figure.savefig(target, dpi=DPI)


def draw_attention_distances(
    distances: Mapping[str, Float[np.ndarray, "l g"]],
    target: Path,
    *,
    uniform: Mapping[str, float],
) -> None:
    """A dot for each head of each layer, a panel for each model (Figures 7 and 11).

    Args:
      distances: of each model, in pixels.
      uniform: of each model, the distance of attention to all patches alike: a dashed line.
    """
    columns = min(3, len(distances))
    rows = -(-len(distances) // columns)
    figure = new_figure(4.2 * columns, 3.2 * rows)
    for i, (name, distance) in enumerate(distances.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        layers = np.arange(len(distance))
        axes.plot(layers, distance, "o", markersize=4, alpha=0.8)
        axes.plot(layers, distance.mean(axis=1), color="black", linewidth=1, label="mean of heads")
        axes.axhline(uniform[name], color="grey", linestyle="--", label="all patches alike")
        axes.set(title=name, xlabel="layer", ylabel="mean attention distance (pixels)")
        axes.set_xticks(layers[:: max(1, len(layers) // 12)])
        farthest = np.nanmax(distance, initial=uniform[name])
        axes.set_ylim(0, 1.1 * farthest if farthest else 1)  # of a single patch all are 0
        axes.title.set_fontsize(9)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    figure.savefig(target, dpi=DPI)


def draw_patch_filters(
    filters: Float[np.ndarray, "n p q c"], target: Path, *, title: str = ""
) -> None:
    """Principal components of the patch embedding (Figure 7, left).

    Each is stretched to the whole range of brightness; three channels are shown as colour, and of
    any other number the mean.
    """
    columns = min(7, len(filters))
    rows = -(-len(filters) // columns)
    figure = new_figure(0.9 * columns, 0.9 * rows + 0.4)
    figure.suptitle(title, fontsize=9)
    for i, one in enumerate(filters):
        picture = one if one.shape[-1] == 3 else one.mean(axis=-1)
        low, high = picture.min(), picture.max()
        axes = figure.add_subplot(rows, columns, i + 1)
        axes.imshow((picture - low) / max(high - low, 1e-12), cmap="gray", vmin=0, vmax=1)
        axes.set_axis_off()
    figure.savefig(target, dpi=DPI)


def draw_position_similarity(
    similarity: Float[np.ndarray, "r s r s"], target: Path, *, title: str = ""
) -> None:
    """For each patch a picture of how similar its position is to all others' (Figures 7 and 10).

    Of a large grid some rows and columns of patches are shown, at even steps.
    """
    rows, columns = (
        np.unique(np.linspace(0, size - 1, min(size, MOST_CELLS)).round().astype(int))
        for size in similarity.shape[:2]
    )
    figure = new_figure(0.55 * len(columns) + 1.2, 0.55 * len(rows) + 0.6)
    figure.suptitle(title, fontsize=9)
    panels = figure.subplots(len(rows), len(columns), squeeze=False)
    for y, row in enumerate(rows):
        for x, column in enumerate(columns):
            axes = panels[y, x]
            drawn = axes.imshow(similarity[row, column], vmin=-1, vmax=1)
            axes.set(xticks=[], yticks=[])
            if y == len(rows) - 1:
                axes.set_xlabel(int(column) + 1, fontsize=7)
            if x == 0:
                axes.set_ylabel(int(row) + 1, fontsize=7)
    figure.colorbar(drawn, ax=panels, label="cosine similarity", shrink=0.9)
    figure.savefig(target, dpi=DPI)
