"""Three steps of an optimizer on a tree of random parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.train import optimizer

RNG = np.random.default_rng(0)
PARAMS = {
    "dense": {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)},
    "norm": {"scale": RNG.normal(size=4)},
}
GRADIENTS = [jax.tree.map(lambda p: RNG.normal(size=p.shape), PARAMS) for _ in range(3)]
DECAYS = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}


def float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def build(**settings):
    """An optimizer whose rate falls from 0.1 to 0 in four steps, or what else is said."""
    settings = dict(num_steps=4, learning_rate=0.1, schedule="linear") | settings
    return optimizer.build(**settings).transform


def train(all_gradients=GRADIENTS, **settings):
    """The parameters after each of three steps with these gradients, and the last state."""
    tx = build(**settings)
    params, seen = float32(PARAMS), []
    state = tx.init(params)
    update = jax.jit(tx.update)
    for gradients in all_gradients:
        updates, state = update(float32(gradients), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, state


def assert_equal_each_step(found, expected, rtol=1e-5):
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6, err_msg=f"step {step}")
