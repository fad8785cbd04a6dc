"""Intervals hold what they promise, say the same twice, and are those of SciPy."""

import numpy as np
import pytest
import scipy.stats

from vit_jax.errors import InputError
from vit_jax.evaluation import bootstrap


def test_about_95_percent_of_intervals_hold_the_truth():
    """Of a mean of 200 answers, 70 % of them right: 400 draws, whose share has a deviation of 1.1 %
    around the nominal 95 %; percentile intervals are known to hold slightly less."""
    rng, truth = np.random.default_rng(0), 0.7
    holds = []
    for seed in range(400):
        found = bootstrap.interval_of_mean(rng.random(200) < truth, num_samples=300, seed=seed)
        holds.append(found.low <= truth <= found.high)
    assert 0.91 <= np.mean(holds) <= 0.98


def test_what_is_no_number_has_no_interval():
    assert np.isnan(bootstrap.interval_of_mean(np.array([0.5, np.nan]))).all()


def test_intervals_are_those_of_scipy():
    """Up to the draw: ends of 4,000 samples each, compared by a tenth of the interval's length."""
    values = np.random.default_rng(1).exponential(size=150)
    reference = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    for found in (
        bootstrap.interval_of_mean(values, num_samples=4000),
        bootstrap.interval_of(np.mean, values, num_samples=4000),
    ):
        np.testing.assert_allclose(found, reference, atol=0.1 * (reference.high - reference.low))


def test_seed_alone_decides():
    values = np.random.default_rng(3).random(50)
    one, same, other = (bootstrap.interval_of_mean(values, seed=seed) for seed in (0, 0, 1))
    assert one == same != other
    one, same, other = (bootstrap.interval_of(np.median, values, seed=s) for s in (0, 0, 1))
    assert one == same != other


def test_rows_of_all_columns_are_drawn_together():
    values = np.arange(30.0)
    found = bootstrap.interval_of(lambda a, b: float(np.abs(a - b).max()), values, values)
    assert found == (0, 0)


def test_many_values_are_drawn_in_parts(monkeypatch):
    values = np.random.default_rng(4).random(64)
    whole = bootstrap.interval_of_mean(values)
    monkeypatch.setattr(bootstrap, "AT_ONCE", 64 * 7)
    assert bootstrap.interval_of_mean(values) == pytest.approx(whole, abs=1e-12)


def test_nothing_has_no_interval():
    with pytest.raises(InputError, match=r"\[0\] examples; allowed: the same number, 1 or"):
        bootstrap.interval_of_mean(np.zeros(0))
    with pytest.raises(InputError, match=r"\[2, 3\] examples; allowed: the same number"):
        bootstrap.interval_of(np.dot, np.ones(2), np.ones(3))
    for draw in (bootstrap.interval_of_mean, lambda x, **s: bootstrap.interval_of(np.mean, x, **s)):
        with pytest.raises(InputError, match="num_samples is 0; allowed: 1 or more"):
            draw(np.ones(3), num_samples=0)


def test_what_cannot_be_told_is_nan_without_a_warning(recwarn):
    found = bootstrap.interval_of(lambda x: np.nan, np.ones(3), num_samples=5)
    assert np.isnan(found).all() and not recwarn.list
