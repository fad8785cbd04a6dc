"""How sure a number is that was measured on finitely many examples: percentile bootstrap.

Examples are drawn anew with replacement, as many as there are, and measured again; the middle
95 % of what comes out are the interval (Efron 1979; DiCiccio and Efron 1996). It tells how much
the draw of the test images matters, and nothing of seeds of training.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float

from vit_jax.evaluation.protocol import Interval

LEVEL = 0.95
NUM_SAMPLES = 1_000
AT_ONCE = 2**24  # drawn numbers that are in memory together


def interval_of_mean(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Of the mean over examples."""
    return interval(means_of_samples(values, num_samples=num_samples, seed=seed))


def means_of_samples(
    values: Float[np.ndarray, " n"] | Bool[np.ndarray, " n"],
    *,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Float[np.ndarray, " samples"]:
    """The mean of each draw of examples; other seeds draw others."""
    values, rng = np.asarray(values, np.float64), np.random.default_rng(seed)
    at_once = max(1, AT_ONCE // len(values))
    means = [
        values[rng.integers(len(values), size=(min(at_once, num_samples - done), len(values)))]
        .mean(axis=1)
        for done in range(0, num_samples, at_once)
    ]  # fmt: skip
    return np.concatenate(means)


def interval_of(
    measure: Callable[..., float],
    *columns: np.ndarray,
    num_samples: int = NUM_SAMPLES,
    seed: int = 0,
) -> Interval:
    """Of what `measure(*columns)` gives, where examples are rows of each column."""
    rng, count = np.random.default_rng(seed), len(columns[0])
    found = []
    for _ in range(num_samples):
        drawn = rng.integers(count, size=count)
        found.append(measure(*(column[drawn] for column in columns)))
    return interval(np.asarray(found))


def interval(found: Float[np.ndarray, " samples"]) -> Interval:
    """The middle `LEVEL` of what was measured; no numbers where a sample could not."""
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))
