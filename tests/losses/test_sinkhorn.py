"""Sinkhorn and Knopp's scaling, against the loops it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal

from vit_jax.losses import sinkhorn as file

# Compiled once, rather than operation by operation.
sinkhorn = jax.jit(file.sinkhorn, static_argnames="iterations")


def loops(scores, iterations):
    """On the numbers themselves, with the constants 1/k and 1/n of the published code."""
    q = np.exp(np.asarray(scores, np.float64))
    n, k = q.shape
    q /= q.sum()
    for _ in range(iterations):
        for j in range(k):
            q[:, j] /= q[:, j].sum() * k
        for i in range(n):
            q[i] /= q[i].sum() * n
    return q * n


@pytest.mark.parametrize("iterations", [1, 3])
def test_equals_the_loops(iterations):
    scores = 5 * normal(7, 4)
    found = sinkhorn(scores, jnp.ones(7, bool), iterations=iterations)
    np.testing.assert_allclose(found, loops(scores, iterations), rtol=1e-4, atol=1e-7)


def test_all_leading_axes_are_samples():
    scores = normal(3, 2, 5)
    found = sinkhorn(scores, jnp.ones((3, 2), bool)).reshape(6, 5)
    np.testing.assert_allclose(found, loops(scores.reshape(6, 5), 3), rtol=1e-5)


def test_samples_that_do_not_count_have_no_mass():
    scores, mask = normal(6, 4), np.array([True, False, True, True, False, True])
    found = sinkhorn(jnp.where(mask[:, None], scores, jnp.nan), jnp.asarray(mask))
    np.testing.assert_allclose(found[mask], loops(scores[mask], 3), rtol=1e-5)
    assert (found[~mask] == 0).all()
    assert (sinkhorn(scores, jnp.zeros(6, bool)) == 0).all()


def test_prototypes_get_equal_shares_where_all_samples_like_the_same_one():
    """What keeps targets from collapsing; in bounds that float32's exp would leave."""
    scores = jnp.asarray(normal(64, 8) + 200 * (jnp.arange(8) == 3))
    found = sinkhorn(scores, jnp.ones(64, bool))
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    # Three iterations do not quite reach the limit, 8 samples a prototype.
    np.testing.assert_allclose(found.sum(0), 8, rtol=0.05)
