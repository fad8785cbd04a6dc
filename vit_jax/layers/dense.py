"""Linear layers, with the parameters of Flax's own: kernel and bias.

Letters: c input channels, f features.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vit_jax.layers.rows import spread

Dtype = jax.typing.DTypeLike  # str, np.dtype or jnp.float32 and the like


class Dense(nn.Module):
    """x · kernel + bias, in `dtype`.

    As `flax.linen.Dense`, or `DenseGeneral` of the last `axes` axes, but for how the gradient of
    the bias is summed (see `layers.rows`).

    Attributes:
      features: f.
      axes: how many of the input's last axes are its channels; the kernel is (..., f).
      dot_general: what multiplies, with the arguments of `lax.dot_general`.
    """

    features: int
    axes: int = 1
    dtype: Dtype = jnp.float32
    kernel_init: Callable[..., Array] = nn.initializers.lecun_normal()
    bias_init: Callable[..., Array] = nn.initializers.zeros
    dot_general: Callable[..., Array] = lax.dot_general

    @nn.compact
    def __call__(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        channels, rows = x.shape[-self.axes :], x.shape[: -self.axes]

        def init(key, shape, dtype=jnp.float32):
            # Fan-in and fan-out are those of the matrix (c, f).
            flat = (math.prod(channels), self.features)
            return self.kernel_init(key, flat, dtype).reshape(shape)

        kernel = self.param("kernel", init, (*channels, self.features)).astype(self.dtype)
        bias = self.param("bias", self.bias_init, (self.features,)).astype(self.dtype)
        contracted = tuple(range(len(rows), x.ndim)), tuple(range(self.axes))
        product = self.dot_general(x.astype(self.dtype), kernel, (contracted, ((), ())))
        return product + spread(bias, rows)
