"""Images whose class is told by one patch of them, and tiny ViTs that were trained to find it.

One patch of 5 by 5 holds one of four textures, which says the class. All others are noise of the
same mean and variance, so only the pattern tells them apart.

Letters: b images; k classes.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from toys import random_params

from vit_jax.models import vit

PATCH, CELLS, CLASSES = 4, 5, 4
SHAPE = (CELLS * PATCH, CELLS * PATCH, 1)
STEPS, BATCH = 100, 64
LEVEL = 1.5  # the standard deviation of a texture, and of the noise
LINES = np.array([[1, 1, -1, -1], [1, -1, 1, -1]])  # wide and narrow stripes along an axis
TEXTURES = LEVEL * np.stack(
    [np.tile(LINES[1], (4, 1)), np.tile(LINES[1], (4, 1)).T]
    + [np.outer(lines, lines) for lines in LINES]
)


class Planted(NamedTuple):
    images: jax.Array  # [b, 20, 20, 1], normalised
    labels: jax.Array  # [b]
    places: jax.Array  # [b], number of the patch row by row


class Trained(NamedTuple):
    model: nn.Module
    variables: dict[str, Any]
    fresh: Planted
    accuracy: float  # on the fresh images


def plant(key, count: int) -> Planted:
    keys = jax.random.split(key, 3)
    labels = jax.random.randint(keys[0], (count,), 0, CLASSES)
    places = jax.random.randint(keys[1], (count,), 0, CELLS**2)
    noise = LEVEL * jax.random.normal(keys[2], (count, CELLS**2, PATCH, PATCH))
    is_planted = jax.nn.one_hot(places, CELLS**2, dtype=bool)[:, :, None, None]
    textures = jnp.asarray(TEXTURES, jnp.float32)[labels][:, None]
    patches = jnp.where(is_planted, textures, noise)
    images = patches.reshape(count, CELLS, CELLS, PATCH, PATCH).swapaxes(2, 3)
    return Planted(images.reshape(count, *SHAPE), labels, places)


@functools.cache
def train(*, pool: str, count: int = 64) -> Trained:
    """A ViT of two layers, and images that it has not seen."""
    settings = dict(width=32, depth=2, mlp_dim=64, num_heads=2, unroll=1)
    model = vit.build(num_classes=CLASSES, patch_size=PATCH, pool=pool, **settings)
    tx = optax.adam(optax.cosine_decay_schedule(3e-3, STEPS))

    start = random_params(model, jnp.zeros((1, *SHAPE)), scale=0.15)

    @jax.jit
    def run(params, key):
        def loss(params, data):
            logits = model.apply({"params": params}, data.images).logits
            return optax.softmax_cross_entropy_with_integer_labels(logits, data.labels).mean()

        def step(carry, key):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params, plant(key, BATCH)), state)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(key, STEPS)
        (params, _), _ = jax.lax.scan(step, (params, tx.init(params)), keys)
        fresh = plant(jax.random.fold_in(key, 1), count)
        logits = model.apply({"params": params}, fresh.images).logits
        return params, fresh, (logits.argmax(axis=-1) == fresh.labels).mean()

    params, fresh, accuracy = run(start, jax.random.key(0))
    return Trained(model, {"params": params}, fresh, float(accuracy))
