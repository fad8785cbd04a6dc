"""Statistics over seeds are those of the textbook, and hold what they promise."""

import numpy as np
import pytest
from scipy import stats

from vit_jax.errors import InputError
from vit_jax.sweeps.statistics import Summary, difference, welch


def draws(n, *, mean=0.0, std=1.0, seed=0):
    return np.random.default_rng((seed, n)).normal(mean, std, n)


PAIRS = [
    (draws(5), draws(5, mean=1.0, seed=1)),
    (draws(2, std=1e-3), draws(20, mean=0.1, std=3.0)),
    (1e9 + draws(3), draws(7)),
]


@pytest.mark.parametrize("values", [PAIRS[0][0], PAIRS[1][1], PAIRS[2][0]])
def test_summary_is_the_sample_mean_and_standard_deviation(values):
    found = Summary.of(values.tolist())
    assert found.n == len(values)
    assert found.mean == pytest.approx(sum(values) / len(values))
    spread = (sum((v - found.mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5
    assert found.std == pytest.approx(spread)
    assert found.standard_error == pytest.approx(stats.sem(values))


@pytest.mark.parametrize("first, second", PAIRS)
def test_difference_is_that_of_scipy(first, second):
    theirs = stats.ttest_ind(first, second, equal_var=False)
    found = welch(first, second)
    assert (found.t, found.p_value) == pytest.approx((theirs.statistic, theirs.pvalue))
    for confidence in (0.5, 0.95):
        low, high = theirs.confidence_interval(confidence)
        ours = difference(first, second, confidence=confidence)
        assert (ours.low, ours.high) == pytest.approx((low, high))
        assert ours.estimate == pytest.approx(np.mean(first) - np.mean(second))


@pytest.mark.parametrize("first, second", PAIRS)
def test_difference_turns_with_its_groups_and_scales_with_the_unit(first, second):
    one, other = difference(first, second), difference(second, first)
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    for unit in (100.0, 1e-100):  # the square of such a variance is 0 in float64
        scaled, wanted = difference(unit * first, unit * second), (unit * one.low, unit * one.high)
        assert (scaled.low, scaled.high) == pytest.approx(wanted, rel=1e-9, abs=0)


def test_interval_covers_the_truth_as_often_as_it_says():
    """Over known normals. 2000 trials: the share of a fair coin of 0.95 is within ±0.025 of it by
    five standard deviations; Welch's own error for such groups is below 0.005."""
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(2000):
        found = difference(rng.normal(3, 1, 5), rng.normal(1, 2, 8), confidence=0.95)
        hits += found.low <= 2 <= found.high
    assert abs(hits / 2000 - 0.95) < 0.005 + 5 * (0.95 * 0.05 / 2000) ** 0.5


@pytest.mark.parametrize(
    "first, second", [([1.0], [1.0, 2.0]), ([1.0, 2.0], [1.0]), ([1.0, 1.0], [2.0, 2.0])]
)
def test_where_the_noise_is_unknown_nothing_is_said(first, second):
    assert difference(first, second) is welch(first, second) is None


def test_one_value_has_no_spread():
    assert Summary.of([3.0]) == Summary(1, 3.0, None, None)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Summary.of([]),
        lambda: Summary.of([1.0, float("nan")]),
        lambda: difference([1.0, 2.0], [1.0, float("inf")]),
        lambda: difference([1.0, 2.0], [1.0, 3.0], confidence=95),
    ],
)
def test_what_has_no_answer_is_refused(call):
    with pytest.raises(InputError):
        call()
