"""The numbers that show a collapse, where they are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal

from vit_jax.losses import collapse

ALL = jnp.ones(64, bool)


def test_entropy_of_known_distributions():
    found = collapse.entropy(jnp.asarray([[1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.25] * 4]))
    np.testing.assert_allclose(found, np.log([1, 2, 4]), rtol=1e-6)


def test_features_are_spread_or_alike():
    assert collapse.feature_std(jnp.ones((64, 16)), ALL) == 0
    # Directions of a normal law are even, up to the 64 that were drawn.
    np.testing.assert_allclose(collapse.feature_std(normal(64, 16), ALL), 1, rtol=0.05)


@pytest.mark.parametrize("shape", [(64, 8), (64, 64), (64, 100)])
def test_effective_rank_equals_that_of_singular_values(shape):
    x = np.asarray(normal(*shape))
    share = np.linalg.svd(x.astype(np.float64), compute_uv=False)
    share /= share.sum()
    found = collapse.effective_rank(jnp.asarray(x), ALL)
    np.testing.assert_allclose(found, np.exp(-np.sum(share * np.log(share))), rtol=1e-3)


def test_effective_rank_of_few_directions():
    """Float32's noise in what should be zeros does not count."""
    for rank in (1, 3):
        basis = np.linalg.qr(np.asarray(normal(64, rank)))[0]
        other = np.linalg.qr(np.asarray(normal(32, rank, seed=1)))[0]
        found = collapse.effective_rank(jnp.asarray(basis @ other.T), ALL)
        np.testing.assert_allclose(found, rank, rtol=1e-3)


def test_a_sketch_keeps_the_rank_of_few_directions():
    """And is bounded by its width, where no direction is before another."""
    basis = np.linalg.qr(np.asarray(normal(128, 3)))[0]
    other = np.linalg.qr(np.asarray(normal(100, 3, seed=1)))[0]
    few, many = jnp.asarray(basis @ other.T), normal(128, 100)
    every = jnp.ones(128, bool)
    assert collapse.sketch(few, 64).shape == (128, 64) and collapse.sketch(few, 100) is few
    # Lengths become uneven by some tenth; by NumPy's draws the rank fell to 2.94 at most.
    found = collapse.effective_rank(collapse.sketch(few, 64), every)
    np.testing.assert_allclose(found, 3, rtol=0.05)
    assert 40 < collapse.effective_rank(collapse.sketch(many, 64), every) <= 64


def test_rows_that_do_not_count_change_nothing():
    x, mask = normal(64, 8), jnp.arange(64) % 3 > 0
    broken = jnp.where(mask[:, None], x, jnp.nan)
    kept, every = x[np.asarray(mask)], jnp.ones(int(mask.sum()), bool)
    for function in (collapse.feature_std, collapse.effective_rank, collapse.mean_of):
        measure = jax.jit(function)
        np.testing.assert_allclose(measure(broken, mask), measure(kept, every), rtol=1e-5)
