"""Multi-head attention (arXiv:1706.03762); every model uses this one.

Letters: b examples, n queries, m keys, c width, h heads, d channels of a head.
"""

import logging
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Bool, Float

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.layers.attention_choice import (
    Choice,
    case_of,
    choose_attention,
    cudnn_problem,
    note,
)
from vit_jax.layers.position import Rotation
from vit_jax.layers.position_tables import RelativeKeys
from vit_jax.layers.products import choose_product
from vit_jax.layers.remat import PROJECTIONS

logger = logging.getLogger(__name__)

WHERE = "config.task.model.attention_implementation"
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
      relative_prefix: tokens in front of those with relative positions (`layers.position_tables`);
        None for no such positions; of self-attention only.
    """

    num_heads: int
    dtype: Dtype = jnp.float32
    implementation: str = "auto"
    biases: tuple[str, ...] = ("query", "key", "value")
    qk_norm: bool = False
    norm_epsilon: float = 1e-6
    matmul: str = "default"
    relative_prefix: int | None = None

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
        bias = None
        if self.relative_prefix is not None:
            bias = RelativeKeys(self.relative_prefix, name="relative_positions")(query)
        # Kept only where intermediates are asked for; they tell the maps, whatever the kernel.
        self.sow("intermediates", "heads", (query, key, value, bias))
        x = attend(query, key, value, mask=mask, bias=bias, implementation=self.implementation)
        # Zeros, by which the gradient here can be told; with the values, that of every map.
        if self.has_variable("perturbations", "attended"):
            x = x + self.get_variable("perturbations", "attended")
        out = nn.DenseGeneral(
            width,
            axis=(-2, -1),
            kernel_init=nn.initializers.xavier_uniform(),
            dtype=self.dtype,
            dot_general=choose_product(self.matmul),
            name="out",
        )(x)
        return checkpoint_name(out, PROJECTIONS[1])

    def _project(self, x, weights):
        """[b, n, c] -> one [b, n, h, d] for each (kernel, bias), in one matrix product."""
        # Stacked on a new axis, not concatenated along heads: an axis that the mesh splits
        # must stay whole, or every step would move the weights between devices.
        kernel = jnp.stack([k for k, _ in weights], axis=1).astype(self.dtype)
        bias = jnp.stack([b for _, b in weights]).astype(self.dtype)
        product = choose_product(self.matmul)
        # [b, n, c] · [c, s, h, d], s being those of query, key and value that are asked for
        x = product(x.astype(self.dtype), kernel, (((2,), (0,)), ((), ()))) + bias
        x = checkpoint_name(x, PROJECTIONS[0])
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
    bias: Float[Array, "b h n m"] | None = None,
    implementation: str = "auto",
) -> Float[Array, "b n h d"]:
    """softmax(query · keyᵀ / sqrt(d) + bias) · value for each head; False in `mask` hides a key.

    Args:
      implementation: a name of `KERNELS`, or 'auto' for the one that `attention_choice` has
        reasons for.

    Raises:
      InputError: for a kernel that cannot run on these devices, shapes or types. 'auto' takes
        XLA's where cuDNN refuses what its rules allow, e.g. for want of a library.
    """
    case, inputs = case_of(query, key, mask, bias), (query, key, value, mask)
    if bias is not None:
        inputs += (bias,)  # which only some kernels take
    if implementation == "auto":
        choice = choose_attention(**case._asdict())
        try:
            return KERNELS[note(choice)](*inputs)
        except InputError as error:
            choice = Choice("xla", str(error))
            logger.warning("attention: %s", choice)  # a run's first lines have told the other
            return KERNELS[note(choice)](*inputs)
    sections.choose(dict.fromkeys((*KERNELS, "auto")), implementation, where=WHERE)
    if implementation == "cudnn" and (problem := cudnn_problem(case)):
        raise InputError(f"{WHERE} is 'cudnn', but {problem}.")
    if bias is not None and implementation not in TAKE_BIAS:
        raise InputError(
            f"{WHERE} is {implementation!r}, but position_embedding 'relative' adds a bias to the "
            f"scores; allowed with it: auto, {', '.join(TAKE_BIAS)}."
        )
    return KERNELS[note(Choice(implementation, "as configured"))](*inputs)


def dense_attention(query, key, value, mask=None, bias=None):
    """The definition, with the weights in memory."""
    weights = attention_weights(query, key, mask, bias).astype(value.dtype)
    return jnp.matmul(weights, value.swapaxes(1, 2)).swapaxes(1, 2)


def attention_weights(
    query: Float[Array, "b n h d"],
    key: Float[Array, "b m h d"],
    mask: Bool[Array, "b _ _ m"] | None = None,
    bias: Float[Array, "b h n m"] | None = None,
) -> Float[Array, "b h n m"]:
    """softmax(query · keyᵀ / sqrt(d) + bias), the softmax in float32."""
    query, key = query.swapaxes(1, 2), key.swapaxes(1, 2)
    scores = jnp.matmul(query, key.swapaxes(2, 3)) / math.sqrt(query.shape[-1])
    scores = scores.astype(jnp.float32)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        scores = jnp.where(mask, scores, jnp.finfo(jnp.float32).min)
    return jax.nn.softmax(scores)


def xla_attention(query, key, value, mask=None, bias=None):
    return jax.nn.dot_product_attention(query, key, value, bias, mask, implementation="xla")


def cudnn_attention(query, key, value, mask=None):
    """cuDNN's flash attention; it reads a mask as numbers to be added to every score."""
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], query.shape[1], key.shape[1]))
    try:
        return jax.nn.dot_product_attention(query, key, value, mask=mask, implementation="cudnn")
    except (NotImplementedError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{WHERE} is 'cudnn', which says: {str(error).rstrip('.')}; allowed here: 'xla', "
            "'pallas', 'dense'."
        ) from error


def pallas_attention(query, key, value, mask=None):
    """This project's own kernel; interpreted, so slow, on a CPU."""
    # Pallas is experimental: what breaks in it must break here alone.
    from vit_jax.layers.flash import flash_attention

    if mask is not None and mask.shape[1:3] != (1, 1):
        raise InputError(
            f"{WHERE} is 'pallas', and the mask's shape {mask.shape}; allowed: (b, 1, 1, m), a "
            "mask of keys."
        )
    mask = None if mask is None else jnp.broadcast_to(mask[:, 0, 0], key.shape[:2])
    return flash_attention(query, key, value, mask, backend=jax.default_backend())


KERNELS = {
    "dense": dense_attention,
    "xla": xla_attention,
    "cudnn": cudnn_attention,
    "pallas": pallas_attention,
}
TAKE_BIAS = ("dense", "xla")
