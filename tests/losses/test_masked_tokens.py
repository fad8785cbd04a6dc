"""iBOT's loss, against the loops it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
from toys import normal

from vit_jax.losses import masked_tokens

masked_cross_entropy = jax.jit(masked_tokens.masked_cross_entropy, static_argnames="temperature")


def weights_of(is_masked):
    """bool[b, g, m] -> f32[b, g·m]: each view weighs the same, so does each patch of it."""
    g = is_masked.shape[1]
    weight = is_masked / (g * np.maximum(is_masked.sum(-1, keepdims=True), 1))
    return jnp.asarray(weight.reshape(len(weight), -1), jnp.float32)


def test_each_view_weighs_the_same_however_much_of_it_is_masked():
    b, g, t, k = 2, 2, 3, 5
    targets = np.abs(normal(b, g, t, k))
    targets /= targets.sum(-1, keepdims=True)
    logits = normal(b, g, t, k, seed=1)
    is_masked = np.array([[[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [1, 1, 1]]], bool)
    expected = np.zeros(b)
    for n in range(b):
        for v in range(g):
            for i in range(t):
                if is_masked[n, v, i]:
                    s = np.asarray(logits[n, v, i], np.float64) / 0.1
                    log_p = s - np.log(np.exp(s).sum())
                    expected[n] -= np.sum(targets[n, v, i] * log_p) / is_masked[n, v].sum() / g
    found = masked_cross_entropy(
        jnp.float32(targets).reshape(b, -1, k),
        logits.reshape(b, -1, k),
        weights_of(is_masked),
        temperature=0.1,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_not_masked_has_no_influence():
    targets, logits = jnp.full((1, 4, 4), 0.25), normal(1, 4, 4)
    weight = weights_of(np.array([[[True, False], [False, False]]]))
    broken = jnp.where(weight[..., None] > 0, logits, jnp.nan)
    found = masked_cross_entropy(targets, broken, weight, temperature=0.1)
    assert found == masked_cross_entropy(targets, logits, weight, temperature=0.1)
