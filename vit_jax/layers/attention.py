"""Multi-head attention (arXiv:1706.03762); every model uses this one.

Letters: b examples, n queries, m keys, c width, h heads, d channels of a head.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.layers.position import Rotation
from vit_jax.layers.products import choose_product

Dtype = jax.typing.DTypeLike  # str, np.dtype or jnp.float32 and the like


class MultiHeadAttention(nn.Module):
    """Attention of x on itself, or on `memory` where one is given.

    Parameters, in the layout of Google's published checkpoints: query, key, value with kernel
    (c, h, d) and bias (h, d); out with kernel (h, d, c) and bias (c).

    Attributes:
      biases: which of 'query', 'key' and 'value' have a bias. A key's bias adds the same to all
        scores of a query, so it changes nothing; some checkpoints have it and others do not.
      qk_norm: normalises each query and key over its channels (arXiv:2302.05442), with scale and
        shift of their own.
      matmul: number formats of the projections' products, see `layers.products`.
    """

    num_heads: int
    dtype: Dtype = jnp.float32
    implementation: str = "auto"
    biases: tuple[str, ...] = ("query", "key", "value")
    qk_norm: bool = False
    norm_epsilon: float = 1e-6
    matmul: str = "default"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        memory: Float[Array, "b m c"] | None = None,
        *,
        mask: Bool[Array, "b _ _ m"] | None = None,
        rotation: Rotation | None = None,
    ) -> Float[Array, "b n c"]:
        """`rotation` turns queries and keys by their places; of self-attention only."""
        width = x.shape[-1]
        if width % self.num_heads:
            raise InputError(f"width is {width}; allowed: a multiple of num_heads={self.num_heads}")
        shape = (self.num_heads, width // self.num_heads)
        weights = [
            _Projection(shape, name in self.biases, name=name)(width)
            for name in ("query", "key", "value")
        ]
        if memory is None:
            query, key, value = self._project(x, weights)
        else:
            (query,) = self._project(x, weights[:1])
            key, value = self._project(memory, weights[1:])
        if self.qk_norm:
            norm = dict(epsilon=self.norm_epsilon, dtype=self.dtype)
            query = nn.LayerNorm(name="query_norm", **norm)(query)
            key = nn.LayerNorm(name="key_norm", **norm)(key)
        if rotation is not None:
            query, key = rotation(query), rotation(key)
        x = attend(query, key, value, mask=mask, implementation=self.implementation)
        return nn.DenseGeneral(
            width,
            axis=(-2, -1),
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            dot_general=choose_product(self.matmul),
            name="out",
        )(x)

    def _project(self, x, weights):
        """[b, n, c] -> one [b, n, h, d] for each (kernel, bias), in one matrix product."""
        # Stacked on a new axis, not concatenated along heads: an axis that the mesh splits
        # must stay whole, or every step would move the weights between devices.
        kernel = jnp.stack([k for k, _ in weights], axis=1).astype(self.dtype)
        bias = jnp.stack([b for _, b in weights]).astype(self.dtype)
        product = choose_product(self.matmul)
        x = (
            product(x.astype(self.dtype), kernel, (((2,), (0,)), ((), ()))) + bias
        )  # [b, n, s, h, d]
        return [x[:, :, i] for i in range(len(weights))]


class _Projection(nn.Module):
    """Holds a kernel (c, h, d) and a bias (h, d), or zeros for it, under a name of their own."""

    shape: tuple[int, int]
    use_bias: bool

    @nn.compact
    def __call__(self, width: int) -> tuple[Array, Array]:
        def init(key, shape, dtype=jnp.float32):
            # Fan-in and fan-out are those of the matrix (c, h·d).
            flat = (width, math.prod(self.shape))
            return nn.initializers.xavier_uniform()(key, flat, dtype).reshape(shape)

        kernel = self.param("kernel", init, (width, *self.shape))
        if not self.use_bias:
            return kernel, jnp.zeros(self.shape)
        return kernel, self.param("bias", nn.initializers.zeros, self.shape)


def attend(
    query: Float[Array, "b n h d"],
    key: Float[Array, "b m h d"],
    value: Float[Array, "b m h d"],
    *,
    mask: Bool[Array, "b _ _ m"] | None = None,
    implementation: str = "auto",
) -> Float[Array, "b n h d"]:
    """softmax(query · keyᵀ / sqrt(d)) · value for each head; False in `mask` hides a key.

    Args:
      implementation: 'dense' (the definition, below), 'xla' or 'cudnn' (`jax.nn`'s), or 'auto':
        'dense' on a CPU, where batched products of (b, h, n, d) run 1.1-1.25 times faster than
        XLA's own lowering, 'xla' elsewhere.
    """
    if implementation == "auto":
        implementation = "dense" if jax.default_backend() == "cpu" else "xla"
    kernels = {"dense": dense_attention, "xla": _library("xla"), "cudnn": _library("cudnn")}
    kernel = sections.choose(kernels, implementation, where="attention implementation")
    return kernel(query, key, value, mask)


def dense_attention(query, key, value, mask=None):
    """The definition, with the weights [b, h, n, m] in memory; softmax in float32."""
    query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
    scores = jnp.matmul(query, key.swapaxes(2, 3)) / math.sqrt(query.shape[-1])
    scores = scores.astype(jnp.float32)
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores).astype(value.dtype)
    return jnp.matmul(weights, value).swapaxes(1, 2)


def _library(name: str):
    def kernel(query, key, value, mask):
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation=name)

    return kernel
