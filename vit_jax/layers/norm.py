"""Layer norm (arXiv:1607.06450), with the parameters of Flax's own: scale and bias.

Letters: c channels.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vit_jax.layers.dense import Dtype
from vit_jax.layers.rows import spread


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + epsilon) · scale + bias over the channels.

    Computed in float32 and rounded to `dtype` at the end, as `flax.linen.LayerNorm`, and with its
    formula of the variance, the mean square less the squared mean; what differs is how the
    gradients of scale and bias are summed (see `layers.rows`).
    """

    epsilon: float = 1e-6
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... c"]) -> Float[Array, "... c"]:
        (*rows, c) = x.shape
        scale = self.param("scale", nn.initializers.ones, (c,))
        bias = self.param("bias", nn.initializers.zeros, (c,))
        x = x.astype(jnp.float32)
        mean = x.mean(-1, keepdims=True)
        variance = jnp.maximum((x * x).mean(-1, keepdims=True) - mean * mean, 0)
        normed = (x - mean) * lax.rsqrt(variance + self.epsilon)
        rows = tuple(rows)
        return (normed * spread(scale, rows) + spread(bias, rows)).astype(self.dtype)
