"""A vector spread over rows is a broadcast, and so are its derivatives, whatever surrounds it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal

from vit_jax.layers.rows import spread

ROWS = (3, 5)
X = normal(*ROWS, 4)
VALUES = normal(4, seed=1)


def with_product(values, x):
    return (x * spread(values, x.shape[: -values.ndim]) + spread(values**2, ROWS)).astype(x.dtype)


def by_broadcast(values, x):
    return (x * values + values**2).astype(x.dtype)


def in_scan(function):
    return lambda values, x: jax.lax.scan(lambda y, _: (function(values, y), None), x, length=2)[0]


AROUND = {
    "nothing": lambda f: f,
    "jit": jax.jit,
    "vmap": lambda f: lambda v, x: jax.vmap(f)(jnp.stack([v, 2 * v]), jnp.stack([x, x])),
    "scan": in_scan,
    "remat": jax.checkpoint,
    "remat in scan": lambda f: in_scan(jax.checkpoint(f, prevent_cse=False)),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-6), ("bfloat16", 2**-6)])
def test_value_and_gradients_are_the_broadcasts(around, dtype, tolerance):
    """In bfloat16 up to two roundings of the 15 terms' sum, which are 2^-8 each."""
    values, x = VALUES.astype(dtype), X.astype(dtype)

    def value_and_gradients(function):
        function = AROUND[around](function)

        def loss(values, x):
            return (function(values, x).astype(jnp.float32) * 0.1).sum()

        return function(values, x), jax.grad(loss, argnums=(0, 1))(values, x)

    found, expected = (value_and_gradients(f) for f in (with_product, by_broadcast))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        scale = float(jnp.abs(b).max())
        np.testing.assert_allclose(
            np.float32(a), np.float32(b), rtol=tolerance, atol=tolerance * scale
        )


@pytest.mark.parametrize("derivative", [jax.hessian, lambda f: jax.jacrev(jax.jacrev(f))])
def test_second_derivatives_and_forward_mode(derivative):
    found, expected = (
        derivative(lambda v, f=f: (f(v, X) ** 3).sum())(VALUES)
        for f in (with_product, by_broadcast)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


def test_values_of_several_axes_and_no_rows():
    values = normal(2, 3, seed=2)
    found = jnp.broadcast_to(spread(values, ROWS), (*ROWS, 2, 3))
    np.testing.assert_array_equal(found, np.broadcast_to(values, (*ROWS, 2, 3)))
    assert (jnp.zeros((0, 2, 3)) + spread(values, (0,))).shape == (0, 2, 3)


def test_rematerialisation_by_products_does_not_keep_it():
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    function = jax.checkpoint(lambda v, x: jnp.sin(spread(v, ROWS) * x), policy=policy)
    _, pull = jax.vjp(function, VALUES, X)
    kept = [leaf.shape for leaf in jax.tree.leaves(pull) if leaf.size > VALUES.size]
    assert kept in ([], [X.shape])  # at most the input
