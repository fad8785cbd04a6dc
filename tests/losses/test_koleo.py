"""KoLeo, against the loops it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import load_torch
from toys import normal

from vit_jax.losses import koleo as file

koleo = jax.jit(file.koleo)  # compiled once, rather than operation by operation
SUM = jax.jit(jax.value_and_grad(lambda x, mask: file.koleo(x, mask).sum()))


def loops(x):
    x = np.asarray(x, np.float64)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    return [
        -np.log(min(np.linalg.norm(a - b) for j, b in enumerate(x) if j != i))
        for i, a in enumerate(x)
    ]


def test_equals_the_loops():
    x = normal(6, 3)
    np.testing.assert_allclose(koleo(x, jnp.ones(6, bool)), loops(x), rtol=1e-5)


def test_rows_that_do_not_count_are_nobody_s_neighbours():
    x, mask = normal(6, 3), np.array([True, False, True, True, True, False])
    x = x.at[1].set(x[0]).at[5].set(jnp.nan)
    found = koleo(x, jnp.asarray(mask))
    np.testing.assert_allclose(found[mask], loops(x[mask]), rtol=1e-5)
    assert (found[~mask] == 0).all()


def test_an_only_row_and_equal_rows_have_finite_gradients():
    for x, mask in ((normal(3, 4), [False, True, False]), (jnp.ones((3, 4)), [True] * 3)):
        value, gradient = SUM(x, jnp.asarray(mask))
        assert jnp.isfinite(value) and jnp.isfinite(gradient).all()


@pytest.mark.reference
def test_parity_of_loss_and_gradient_with_torch():
    torch = load_torch()
    x = normal(5, 4)
    value, gradient = SUM(x, jnp.ones(5, bool))
    t = torch.from_numpy(np.array(x)).requires_grad_()
    n = torch.nn.functional.normalize(t, dim=-1)
    products = (n @ n.T).fill_diagonal_(-2)
    nearest = n[products.argmax(-1)]
    loss = -(torch.nn.functional.pairwise_distance(n, nearest, eps=1e-8) + 1e-8).log().sum()
    loss.backward()
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    np.testing.assert_allclose(gradient, t.grad.numpy(), rtol=1e-4, atol=1e-6)
