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
    return dict(zip(MEASURES, _measured(*_counts(inside, outside)), strict=True))


def auroc(inside: Float[np.ndarray, " n"], outside: Float[np.ndarray, " m"]) -> float:
    """Tested against scikit-learn's `roc_auc_score`."""
    return _auroc(*_counts(inside, outside))


def samples(
    inside: Float[np.ndarray, " n"],
    outside: Float[np.ndarray, " m"],
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
    source: int = 0,
) -> Float[np.ndarray, "samples 4"]:
    """`MEASURES` of each draw of both groups; scores are ranked once, and then only counted.

    Args:
      source: number of what is out; the draws of what is in are the same for all of them, so that
        their means can be told, too.
    """
    draw_in, draw_out = np.random.default_rng(seed), np.random.default_rng((seed, source))
    (*groups, size), found = _places(inside, outside), []
    for _ in range(num_samples):
        drawn = (
            group[rng.integers(len(group), size=len(group))]
            for group, rng in zip(groups, (draw_in, draw_out), strict=True)
        )
        found.append(_measured(*(np.bincount(group, minlength=size) for group in drawn)))
    return np.asarray(found)


def intervals(found: Float[np.ndarray, "samples 4"]) -> dict[str, Interval]:
    """Of all of `MEASURES`."""
    return {name: interval(found[:, i]) for i, name in enumerate(MEASURES)}


def _places(inside, outside) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " m"], int]:
    """Each one's score as a place among all different ones, the lowest first, and their number."""
    values, place = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    return place[: len(inside)], place[len(inside) :], len(values)


def _counts(inside, outside) -> tuple[Int[np.ndarray, " u"], Int[np.ndarray, " u"]]:
    """How many of each group have which score, the lowest first."""
    *groups, size = _places(inside, outside)
    return tuple(np.bincount(group, minlength=size) for group in groups)


# Of what `_counts` gives:


def _measured(inside: np.ndarray, outside: np.ndarray) -> tuple[float, float, float, float]:
    return (
        _auroc(inside, outside),
        _average_precision(inside[::-1], outside[::-1]),
        _average_precision(outside, inside),
        _false_positive_rate(inside, outside),
    )


def _auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    below = outside.cumsum() - outside
    return float((inside * (below + outside / 2)).sum() / (inside.sum() * outside.sum()))


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Over thresholds, precision times what recall they add; tested against scikit-learn's
    `average_precision_score`."""
    hits = positive.cumsum()
    precision = hits / np.maximum(hits + negative.cumsum(), 1)  # a draw may begin with nothing
    return float((precision * positive).sum() / hits[-1])


def _false_positive_rate(inside: np.ndarray, outside: np.ndarray) -> float:
    """At the highest threshold that 95 % of the inside reach; tested against scikit-learn's
    `roc_curve`."""
    below, total = inside.cumsum(), inside.sum()
    # Ranks are whole: without rounding first, 0.95 of twenty would be more than nineteen.
    needed = math.ceil(round(TRUE_POSITIVE_RATE * total, 6))
    threshold = np.searchsorted(below, total - needed, side="right")
    return float(outside[threshold:].sum() / outside.sum())
