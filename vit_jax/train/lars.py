"""LARS's trust ratio (arXiv:1708.03888), as MoCo v3 and MAE's linear probe have it.

    for each matrix w with its update u, the decay added:  u *= trust · |w| / |u|

so that a step moves every matrix by the same share of its length. Where either length is 0, and
for biases and scales, u stays as it is. The momentum is taken of the ratio's result and before the
learning rate, where optax's `lars` takes it after: these differ where the rate changes.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.train import patterns
from vit_jax.train.rate_factors import BLOCKS

# What the published code tells by its one axis. Ours may have two: a bias has one for the heads.
VECTORS = re.compile(r"(.*/)?(bias|\w*scale)")


def scale_by_trust(trust_coefficient: float) -> optax.GradientTransformation:
    """Each update times the ratio of its matrix."""

    def scale(key_path: tuple, update: Any, parameter: Any) -> Any:
        path = patterns.path_of(key_path)
        if VECTORS.fullmatch(path):
            return update
        # A stacked leaf holds a matrix of each layer.
        axes = tuple(range(1 if BLOCKS.fullmatch(path) else 0, update.ndim))
        own, new = length(parameter, axes), length(update, axes)
        ratio = trust_coefficient * own / jnp.where(new > 0, new, 1)
        return update * jnp.where((own > 0) & (new > 0), ratio, 1)

    return optax.stateless(
        lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params)
    )


def length(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """L2 norm over `axes`, which stay with length one; f32."""
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), axes, keepdims=True))
