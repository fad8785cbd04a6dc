"""How well a score parts examples that are in from those that are out, at all thresholds.

    auroc      the chance that one that is in scores higher than one that is out; half for ties
    aupr_in    average precision of finding those that are in; depends on how many there are
    aupr_out   the same of those that are out
    fpr95      the share of those that are out that passes where 95 % of those that are in do

(arXiv:1610.02136; fpr95: arXiv:1706.02690.)

Letters: n in; m out; u different scores.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import NUM_SAMPLES, interval
from vit_jax.evaluation.protocol import Interval

MEASURES = ("auroc", "aupr_in", "aupr_out", "fpr95")
TRUE_POSITIVE_RATE = 0.95


def measure(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> dict[str, float]:
    """All of `MEASURES`."""
    for values in (inside, outside):
        if not len(values) or not np.isfinite(values).all():
            raise InputError("scores are missing or not all finite; allowed: numbers.")
    found = (
        auroc(inside, outside),
        average_precision(inside, outside),
        average_precision(-outside, -inside),
        false_positive_rate(inside, outside),
    )
    return dict(zip(MEASURES, found, strict=True))


def auroc(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> float:
    """Tested against scikit-learn's `roc_auc_score`."""
    return _auroc_of_counts(*_counts(inside, outside))


def average_precision(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> float:
    """Over thresholds, precision times what recall they add; tested against scikit-learn's
    `average_precision_score`."""
    positive, negative = (counts[::-1] for counts in _counts(inside, outside))
    hits = positive.cumsum()
    precision = hits / (hits + negative.cumsum())
    return float((precision * positive).sum() / positive.sum())


def false_positive_rate(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> float:
    """At the highest threshold that 95 % of the inside reach; tested against scikit-learn's
    `roc_curve`."""
    # Ranks are whole: without rounding first, 0.95 of twenty would be more than nineteen.
    needed = math.ceil(round(TRUE_POSITIVE_RATE * len(inside), 6))
    threshold = np.sort(inside)[len(inside) - needed]
    return float((outside >= threshold).mean())


def interval_of_auroc(
    inside: Float[np.ndarray, " n"],
    outside: Float[np.ndarray, " m"],
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """By bootstrap over both groups; scores are ranked once, and then only counted."""
    rng, (*groups, size) = np.random.default_rng(seed), _places(inside, outside)
    found = []
    for _ in range(num_samples):
        drawn = (group[rng.integers(len(group), size=len(group))] for group in groups)
        found.append(_auroc_of_counts(*(np.bincount(group, minlength=size) for group in drawn)))
    return interval(np.asarray(found))


def _places(inside, outside) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], int]:
    """Each one's score as a place among all different ones, the lowest first, and their number."""
    values, place = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    return place[: len(inside)], place[len(inside) :], len(values)


def _counts(inside, outside) -> tuple[Int[np.ndarray, " u"], Int[np.ndarray, " u"]]:
    """How many of each group have which score, the lowest first."""
    *groups, size = _places(inside, outside)
    return tuple(np.bincount(group, minlength=size) for group in groups)


def _auroc_of_counts(inside: np.ndarray, outside: np.ndarray) -> float:
    """Of what `_counts` gives."""
    below = outside.cumsum() - outside
    return float((inside * (below + outside / 2)).sum() / (inside.sum() * outside.sum()))
