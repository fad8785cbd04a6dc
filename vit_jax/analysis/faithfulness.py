"""Deletion and insertion (arXiv:1806.07421): pictures of relevance, measured."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.core import Variables


class Measured(NamedTuple):
    """A mean over images and its standard error."""

    mean: float
    error: float


class Faithfulness(NamedTuple):
    """Of a method.

    Attributes:
      shares: of the image that is removed or shown, from 0 to 1.
      deletion_curve, insertion_curve: mean score at each share.
      deletion, insertion: area under them; of deletion a small one is good.
      deletion_gain, insertion_gain: share of a random order's loss that is saved: 0 as good as
        random, 1 perfect.
    """

    shares: Float[np.ndarray, " s"]
    deletion_curve: Float[np.ndarray, " s"]
    insertion_curve: Float[np.ndarray, " s"]
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
    score: str = "probability",
    steps: int = 20,
    removed: str = "mean",
    hidden: str = "blur",
    seeds: int = 5,
    batch_size: int = 64,
) -> dict[str, Faithfulness]:
    """Of each method, and of 'random' orders of as many cells as the first method has.

    Args:
      relevances: pictures of any number of cells, of any model; the largest count most.
      steps: of each curve.
      removed, hidden: fill of removed cells in deletion, of the start in insertion; see
        `occlusion`.
      seeds: random orders an image.
    """
    raise NotImplementedError
