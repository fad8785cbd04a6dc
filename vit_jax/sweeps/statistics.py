"""What a few runs with different seeds say, and what they do not.

Letters: n values with mean m and sample standard deviation s (over n - 1); t is Student's.
Values of different seeds are taken as independent draws from one normal law for each group; the
groups' variances may differ. Laws:

standard error   s / √n, of the mean
Welch            (m1 - m2) / √(s1²/n1 + s2²/n2) is about t with the degrees of freedom of
                 Satterthwaite (1946); Welch, "The generalization of 'Student's' problem when
                 several different population variances are involved", Biometrika 34 (1947)

One value has no spread, and groups without any spread tell nothing of the noise: both give None
where an interval or a test would be.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vit_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class Summary:
    """Of one group. `std` and `standard_error` are None for a single value."""

    n: int
    mean: float
    std: float | None
    standard_error: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Summary":
        """Raises `InputError` for no values, or where one is not finite."""
        array = _checked(values)
        n, mean = len(array), float(array.mean())
        if n == 1:
            return cls(n, mean, None, None)
        std = float(array.std(ddof=1))
        return cls(n, mean, std, std / math.sqrt(n))


@dataclasses.dataclass(frozen=True)
class Interval:
    """`low` to `high` covers the true difference with the asked confidence."""

    estimate: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Difference:
    """Mean of the first group minus that of the second; its t statistic and two-sided p value."""

    estimate: float
    standard_error: float
    degrees: float
    t: float
    p_value: float


def welch(first: Sequence[float], second: Sequence[float]) -> Difference | None:
    """Welch's t-test that both groups have one mean; None where the noise is not known."""
    from scipy import stats  # slow to import

    a, b = Summary.of(first), Summary.of(second)
    if a.std is None or b.std is None or a.std == b.std == 0:
        return None
    parts = a.std**2 / a.n, b.std**2 / b.n
    error, estimate = math.sqrt(sum(parts)), a.mean - b.mean
    shares = [part / sum(parts) for part in parts]  # squares of small variances underflow
    degrees = 1 / (shares[0] ** 2 / (a.n - 1) + shares[1] ** 2 / (b.n - 1))
    t = estimate / error
    return Difference(estimate, error, degrees, t, 2 * float(stats.t.sf(abs(t), degrees)))


def difference(
    first: Sequence[float], second: Sequence[float], *, confidence: float = 0.95
) -> Interval | None:
    """Welch's interval for the mean of the first group minus that of the second.

    None where the noise is not known: fewer than two values in a group, or no spread in both.
    """
    from scipy import stats

    if not 0 < confidence < 1:
        raise InputError(f"confidence is {confidence}; allowed: between 0 and 1.")
    found = welch(first, second)
    if found is None:
        return None
    half = found.standard_error * float(stats.t.ppf((1 + confidence) / 2, found.degrees))
    return Interval(found.estimate, found.estimate - half, found.estimate + half)


def _checked(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not array.size or not np.isfinite(array).all():
        raise InputError(f"values are {values!r}; allowed: at least one, all of them finite.")
    return array
