"""Scores of how much an example is like the training's; the larger, the more.

    max_probability   the largest probability (arXiv:1610.02136)
    max_logit         the largest logit (arXiv:1911.11132)
    energy            T log sum exp(logit / T), the negative energy (arXiv:2010.03759)
    Gaussians         minus the squared Mahalanobis distance to the nearest class mean
                      (arXiv:1807.03888); or the squared distance to the mean of all training
                      examples less the one to the nearest class mean (arXiv:2106.09022)
    nearness          minus the distance to the k-th nearest training example (arXiv:2204.06507)

Of arXiv:1807.03888 this is the score of the last layer alone, of what the head reads: without the
noise added to inputs there, and without its ensemble over layers.

Letters: n examples; k classes (in `nearness` neighbours); r channels; c classes that occur.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vit_jax.errors import InputError
from vit_jax.evaluation.features import check_finite
from vit_jax.evaluation.index import Index
from vit_jax.evaluation.logits import log_softmax, log_sum_exp

AT_ONCE = 2**15  # examples that are in memory in double precision together


def max_probability(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Tested against SciPy's `softmax`."""
    return np.exp(log_softmax(logits).max(axis=1))


def max_logit(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """Tested against `max` in plain loops."""
    return np.asarray(logits.max(axis=1), np.float64)


def energy(logits: Float[np.ndarray, "n k"], *, temperature: float) -> Float[np.ndarray, " n"]:
    """Tested against SciPy's `logsumexp`."""
    return temperature * log_sum_exp(np.asarray(logits, np.float64) / temperature)


class Gaussian(NamedTuple):
    """One around each mean, all of one covariance.

    Attributes:
      means: in the coordinates that `whiten` leads to, in which the covariance is the identity.
      whiten: f[r, s], s <= r directions in which the training examples differ at all.
    """

    means: Float[np.ndarray, "c s"]
    whiten: Float[np.ndarray, "r s"]

    def nearest_squared_distance(
        self, features: Float[np.ndarray, "n r"]
    ) -> Float[np.ndarray, " n"]:
        """The Mahalanobis distance to the nearest mean, squared; tested against scikit-learn's
        `EmpiricalCovariance.mahalanobis`."""
        white = np.asarray(check_finite(features), np.float64) @ self.whiten
        least = np.full(len(white), np.inf)
        for mean in self.means:  # all at once would take n · c · s numbers
            least = np.minimum(least, ((white - mean) ** 2).sum(axis=1))
        return least


class Gaussians(NamedTuple):
    """Of the classes, and one of all examples."""

    classes: Gaussian
    everything: Gaussian

    def score(self, features: Float[np.ndarray, "n r"]) -> Float[np.ndarray, " n"]:
        return -self.classes.nearest_squared_distance(features)

    def relative_score(self, features: Float[np.ndarray, "n r"]) -> Float[np.ndarray, " n"]:
        return self.everything.nearest_squared_distance(features) + self.score(features)


def fit_gaussians(features: Float[np.ndarray, "n r"], label: Int[np.ndarray, " n"]) -> Gaussians:
    """Means of the classes that occur, and what is left after them: the tied covariance."""
    present, own = np.unique(label, return_inverse=True)
    return Gaussians(
        _gaussian(features, own, count=len(present)),
        _gaussian(features, np.zeros_like(own), count=1),
    )


def lack_of_examples(label: Int[np.ndarray, " n"], channels: int) -> str | None:
    """Why a tied covariance is not known in all directions; None where it can be."""
    classes = len(np.unique(label))
    if (left := len(label) - classes) >= channels:
        return None
    return (
        f"{len(label)} training examples of {classes} classes tell the covariance in {left} of "
        f"{channels} directions at most: Mahalanobis distances leave out the others"
    )


def _gaussian(
    features: Float[np.ndarray, "n r"], own: Int[np.ndarray, " n"], *, count: int
) -> Gaussian:
    """Around the mean of each of `count` groups, of which `own` tells each example's.

    The precision is the pseudo-inverse of the covariance: directions without variance, as far as
    can be told from rounding, do not count.
    """
    width = features.shape[1]
    sums, scatter = np.zeros((count, width)), np.zeros((width, width))
    parts = [slice(i, i + AT_ONCE) for i in range(0, len(features), AT_ONCE)]
    for part in parts:
        np.add.at(sums, own[part], features[part].astype(np.float64))
    means = sums / np.bincount(own)[:, None]
    for part in parts:
        residuals = features[part] - means[own[part]]
        scatter += residuals.T @ residuals
    variances, directions = np.linalg.eigh(scatter / len(features))
    kept = variances > variances.max() * width * np.finfo(np.float64).eps
    if not kept.any():
        raise InputError("all training representations of a class are the same; allowed: others.")
    whiten = directions[:, kept] / np.sqrt(variances[kept])
    return Gaussian(means @ whiten, whiten)


def nearness(
    index: Index, features: Float[np.ndarray, "n r"], *, k: int
) -> Float[np.ndarray, " n"]:
    """Minus the distance of the directions; tested against scikit-learn's `NearestNeighbors`."""
    cosine = index.search(features, k).similarity[:, -1].astype(np.float64)
    return -np.sqrt(np.maximum(2 - 2 * cosine, 0))
