"""The smallest model whose pictures of occlusion tell windows from sums of their pixels."""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from toys import random_like


class Output(NamedTuple):
    representation: Any
    logits: Any


class Quadratic(nn.Module):
    """Of each pixel and of pairs of neighbours, so that windows are no sums of pixels."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images):
        pixels = images.reshape(len(images), -1)
        read = jnp.concatenate([pixels, pixels[:, 1:] * pixels[:, :-1]], axis=1)
        if not self.num_classes:
            return Output(read, None)
        return Output(read, nn.Dense(self.num_classes)(read))


def built(model, shape=(5, 7, 2)):
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return model, dict(random_like(jax.eval_shape(model.init, jax.random.key(0), image)))
