"""GELU and its hand-written derivative, against the definition."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.layers.activations import gelu

X = jnp.linspace(-8, 8, 161)


def cumulative(x):
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def density(x):
    return np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def plain(x):
    """The definition, for JAX to differentiate."""
    return x * 0.5 * (1 + jax.lax.erf(x / math.sqrt(2)))


def test_is_exact():
    exact = np.asarray(X, np.float64)
    # 1 + erf is a rounding of one off where it is near 0.
    np.testing.assert_allclose(gelu(X), exact * cumulative(exact), rtol=1e-6, atol=8 * 2**-23)
    np.testing.assert_allclose(gelu(X), nn.gelu(X, approximate=False), rtol=1e-6, atol=8 * 2**-23)


def test_derivatives_are_the_definitions():
    exact = np.asarray(X, np.float64)
    first = cumulative(exact) + exact * density(exact)
    second = (2 - exact**2) * density(exact)
    np.testing.assert_allclose(jax.vmap(jax.grad(gelu))(X), first, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.vmap(jax.grad(jax.grad(gelu)))(X), second, rtol=1e-5, atol=1e-6)


def in_scan(function):
    return lambda x: jax.lax.scan(lambda y, _: (function(y), None), x, length=2)[0]


AROUND = {
    "jit": jax.jit,
    "vmap": jax.vmap,
    "scan": in_scan,
    "remat": jax.checkpoint,
    "remat in scan": lambda f: in_scan(jax.checkpoint(f, prevent_cse=False)),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("mode", ["reverse", "forward"])
def test_derivative_is_that_of_the_plain_form(around, dtype, tolerance, mode):
    """In bfloat16 to a few roundings of 2^-9: the plain form rounds other products."""
    x = X.astype(dtype)

    def derivative(function):
        function = AROUND[around](function)
        if mode == "forward":
            return jax.jvp(function, (x,), (jnp.ones_like(x),))[1]
        return jax.grad(lambda x: function(x).astype(jnp.float32).sum())(x)

    found, expected = derivative(gelu), derivative(plain)
    assert found.dtype == expected.dtype == x.dtype
    np.testing.assert_allclose(np.float32(found), np.float32(expected), rtol=0, atol=tolerance)
    assert np.isfinite(np.float32(found)).all()


def test_the_backward_pass_keeps_one_array():
    _, pull = jax.vjp(gelu, X)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == X.size
