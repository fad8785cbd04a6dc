"""The linear layer and the norm are Flax's: parameters, their first values, results, gradients."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_params

from vit_jax.layers.dense import Dense
from vit_jax.layers.norm import LayerNorm

X = normal(3, 5, 2, 4)
INIT = nn.initializers.xavier_uniform()
# ours, Flax's
PAIRS = {
    "dense": (Dense(6, kernel_init=INIT), nn.Dense(6, kernel_init=INIT)),
    "dense of two axes": (
        Dense(6, axes=2, kernel_init=INIT),
        nn.DenseGeneral(6, axis=(-2, -1), kernel_init=INIT),
    ),
    "norm": (LayerNorm(), nn.LayerNorm()),
    "norm with epsilon": (LayerNorm(epsilon=0.1), nn.LayerNorm(epsilon=0.1)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_parameters_start_as_flax_has_them(name):
    ours, theirs = (module.init(jax.random.key(0), X) for module in PAIRS[name])
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


# A few roundings of a sum, relative to its largest term: 2^-24 of float32, 2^-9 of bfloat16.
@pytest.mark.parametrize("dtype, tolerance", [("float32", 2e-6), ("bfloat16", 2e-2)])
@pytest.mark.parametrize("name", PAIRS)
def test_results_and_gradients_are_flaxs(name, dtype, tolerance):
    ours, theirs = (module.clone(dtype=jnp.dtype(dtype)) for module in PAIRS[name])
    params, x = random_params(ours, X), X.astype(dtype)

    @jax.jit
    def results(params, x, weights):
        def of(module):
            def loss(params, x):
                y = module.apply({"params": params}, x)
                return (y * weights.astype(y.dtype)).astype(jnp.float32).sum(), y

            return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params, x)

        return of(ours), of(theirs)

    weights = normal(*theirs.apply({"params": params}, x).shape, seed=3)
    ((_, y), gradients), ((_, expected), expected_gradients) = results(params, x, weights)
    assert y.dtype == expected.dtype == jnp.dtype(dtype)
    pairs = jax.tree.leaves((y, gradients)), jax.tree.leaves((expected, expected_gradients))
    for a, b in zip(*pairs, strict=True):
        assert a.dtype == b.dtype
        a, b = np.float32(a), np.float32(b)
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


def test_a_norm_of_equal_channels_is_its_bias():
    """The variance, a difference of two equal numbers, is never below zero."""
    x = jnp.full((2, 3, 768), 1e3 / 3)
    params = {"scale": jnp.ones(768), "bias": jnp.full(768, 0.25)}
    found = LayerNorm().apply({"params": params}, x)
    assert np.isfinite(found).all()
    # What is left of x - mean, a rounding of 333, over sqrt(1e-6).
    np.testing.assert_allclose(found, 0.25, atol=333 * 2**-22 * 1e3)
