"""Deletion and insertion (arXiv:1806.07421, section 4.1): pictures of relevance, measured.

The cells of a picture are ordered from the most to the least relevant. Deletion fills them in this
order and insertion shows them in this order on a filled image; the area under the score over the
share of cells says how early what counts came. A good order has a small area of deletion and a
large one of insertion. RISE differs in what fills: deletion there sets pixels to 0, the mean colour
of its training, and here to each image's own mean colour; insertion there starts from a blur of
5 pixels, and here from one as wide as a cell. `removed='zero'` is as there.

How large is small depends on the model and the images, so areas are compared with those of random
orders of the same cells. With area D of deletion, I of insertion, and means over images,

    gain of deletion   1 - D / D_random
    gain of insertion  1 - (1 - I) / (1 - I_random)

so 0 is as good as chance, 1 perfect, and less than 0 worse than chance, as a forecast's skill is.
Areas are published measures; this gain is not, and is not to be compared with papers' numbers.
With x the mean over images of what is divided, and y of what divides, the standard error of x/y is
to first order sd(x_i - (x/y)·y_i) / (y·√b): images are drawn in pairs, so what makes both large in
some of them does not count as noise.

Letters: b images; p changed images; H, W, C pixels and channels; m cells; s steps and the start.
"""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.analysis.fills import fill_images
from vit_jax.analysis.scores import Scorer
from vit_jax.core import Variables
from vit_jax.errors import InputError

RANDOM = "random"


class Measured(NamedTuple):
    """A mean over images and its standard error; NaN where there is no telling."""

    mean: float
    error: float

    def __format__(self, form: str) -> str:
        error = "" if np.isnan(self.error) else f" ± {self.error:{form}}"
        return f"{self.mean:{form}}{error}"


class Curves(NamedTuple):
    """Scores of each image.

    Attributes:
      shares: of cells that are filled, or shown, from 0 to 1.
    """

    shares: Float[np.ndarray, " s"]
    deletion: Float[np.ndarray, "b s"]
    insertion: Float[np.ndarray, "b s"]


class Faithfulness(NamedTuple):
    """Of a method; see the top of this file.

    Attributes:
      curves: of a random order the mean over seeds.
      deletion, insertion: area under the curves.
    """

    curves: Curves
    deletion: Measured
    insertion: Measured
    deletion_gain: Measured
    insertion_gain: Measured


def faithfulness(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    relevances: Mapping[str, Float[np.ndarray, "b rows columns"]],
    *,
    classes: Int[Array, " b"] | None = None,
    score: str | None = None,
    steps: int = 20,
    removed: str = "mean",
    hidden: str = "blur",
    seeds: int = 5,
    batch_size: int = 64,
) -> dict[str, Faithfulness]:
    """Of each method, and of 'random' orders; of any model.

    Areas are tested against the rule of the authors' code, eclique/RISE, which steps by pixels.

    Memory: `batch_size` images in the model, and the given ones.

    Args:
      images: as the model takes them, normalised.
      relevances: pictures of the same cells, by method; the largest come first, and of equals the
        one further up or left.
      classes, score: see `scores.Scorer`; of scores those that are at most 1.
      steps: from the first cell to the last; at most one a cell.
      removed, hidden: what fills cells in deletion, and where insertion starts; see
        `fills.fill_images`.
      seeds: random orders of each image.
    """
    grid = _check(images, relevances, steps=steps, seeds=seeds, score=score)
    scorer = Scorer(model, variables, images, classes=classes, score=score, batch_size=batch_size)
    size = tuple(side / cells for side, cells in zip(images.shape[1:3], grid, strict=True))
    canvases = (fill_images(images, name, size=size) for name in (removed, hidden))
    pictures = _Pictures(scorer, images, *canvases, grid, steps)
    found = {name: pictures.curves(np.asarray(r)) for name, r in relevances.items()}
    drawn = [np.random.default_rng(seed).random((len(images), *grid)) for seed in range(seeds)]
    at_random = [pictures.curves(one) for one in drawn]
    found[RANDOM] = Curves(*(np.mean(part, axis=0) for part in zip(*at_random, strict=True)))
    return {name: compare(curves, found[RANDOM]) for name, curves in found.items()}


class _Pictures(NamedTuple):
    scorer: Scorer
    images: Float[Array, "b H W C"]
    removed: Float[Array, "b H W C"]
    hidden: Float[Array, "b H W C"]
    grid: tuple[int, int]
    steps: int

    def curves(self, relevance: Float[np.ndarray, "b rows columns"]) -> Curves:
        counts = step_counts(relevance[0].size, self.steps)
        cells, ranks = cells_of_pixels(self.images.shape[1:3], self.grid), rank_cells(relevance)

        def scores(before, after):
            inputs = (before, after, ranks, counts, cells)
            return np.asarray(self.scorer(_change, len(counts), inputs), np.float64)

        deletion, insertion = (self.images, self.removed), (self.hidden, self.images)
        return Curves(counts / counts[-1], scores(*deletion), scores(*insertion))


def _change(inputs, image, step):
    """Images [p, H, W, C]: after the change where a cell's turn has come, else before it."""
    before, after, ranks, counts, cells = inputs
    has_come = ranks[image] < counts[step][:, None]
    return jnp.where(has_come[:, cells][..., None], after[image], before[image])


def rank_cells(relevance: Float[np.ndarray, "b rows columns"]) -> Int[np.ndarray, "b m"]:
    """When each cell's turn comes: 0 for the most relevant one."""
    if bad := int(np.isnan(relevance).sum()):
        raise InputError(f"relevance has {bad} NaN of {relevance.size}; allowed: numbers.")
    order = np.argsort(-relevance.reshape(len(relevance), -1), axis=1, kind="stable")
    return np.argsort(order, axis=1)


def step_counts(num_cells: int, steps: int) -> Int[np.ndarray, " s"]:
    """Cells whose turn has come, from none to all."""
    return np.rint(np.linspace(0, num_cells, min(steps, num_cells) + 1)).astype(int)


def cells_of_pixels(image_size: tuple[int, int], grid: tuple[int, int]) -> Int[np.ndarray, "H W"]:
    """Number of the cell that each pixel's centre lies in, row by row."""
    row, column = (
        ((np.arange(size) + 0.5) * cells / size).astype(int)
        for size, cells in zip(image_size, grid, strict=True)
    )
    return row[:, None] * grid[1] + column


def area(shares: Float[np.ndarray, " s"], scores: Float[np.ndarray, "b s"]) -> np.ndarray:
    """[b], by trapezoids."""
    return ((scores[:, 1:] + scores[:, :-1]) / 2 * np.diff(shares)).sum(axis=1)


def compare(curves: Curves, chance: Curves) -> Faithfulness:
    """A method's curves with those of random orders."""
    deletion, by_chance = area(curves.shares, curves.deletion), area(chance.shares, chance.deletion)
    insertion, shown = area(curves.shares, curves.insertion), area(chance.shares, chance.insertion)
    return Faithfulness(
        curves=curves,
        deletion=_mean(deletion),
        insertion=_mean(insertion),
        deletion_gain=gain(deletion, by_chance),
        insertion_gain=gain(1 - insertion, 1 - shown),
    )


def gain(loss: Float[np.ndarray, " b"], by_chance: Float[np.ndarray, " b"]) -> Measured:
    """1 - ratio of the means, and its standard error to first order; a name of this project's own.

    NaN where chance loses nothing, so that nothing could be gained.
    """
    loss, by_chance = (np.atleast_1d(np.asarray(x, np.float64)) for x in (loss, by_chance))
    if not loss.size or loss.shape != by_chance.shape:
        raise InputError(
            f"losses are of {loss.size} images and by chance of {by_chance.size}; allowed: of the "
            "same, one or more."
        )
    if by_chance.mean() == 0:
        return Measured(np.nan, np.nan)
    ratio = loss.mean() / by_chance.mean()
    return Measured(float(1 - ratio), _mean((loss - ratio * by_chance) / by_chance.mean()).error)


def _mean(values: Float[np.ndarray, " b"]) -> Measured:
    """The error of a single one is not known: NaN."""
    b = len(values)
    spread = values.std(ddof=1) if b > 1 else np.nan
    return Measured(float(values.mean()), float(spread / np.sqrt(b)))


def _check(images, relevances, *, steps, seeds, score) -> tuple[int, int]:
    """The cells' rows and columns."""
    for name, count in (("steps", steps), ("seeds", seeds)):
        if count < 1:
            raise InputError(f"{name} is {count}; allowed: 1 or more.")
    if score == "logit":
        raise InputError("score is 'logit', which has no largest value; allowed: the others.")
    if not relevances or RANDOM in relevances:
        raise InputError(
            f"relevances are of {', '.join(relevances) or 'nothing'}; allowed: one or more "
            f"methods, and none called {RANDOM!r}."
        )
    shapes = {np.shape(relevance) for relevance in relevances.values()}
    first = next(iter(shapes))
    if len(shapes) > 1 or len(first) != 3 or first[0] != len(images):
        raise InputError(
            f"relevances have shapes {', '.join(map(str, sorted(shapes)))}; allowed: the same "
            f"number of rows and columns for each of {len(images)} images."
        )
    return first[1:]
