"""MLP-Mixer (arXiv:2105.01601): an MLP across the tokens, then one across the channels, repeated.

image -> patches -> blocks -> norm -> average -> [representation] -> head

Names in Google's .npz files, and ours, with kernels (in, out) in both:

    stem                               patch_embedding
    MixerBlock_I/LayerNorm_0           blocks/token_norm      [I]
    MixerBlock_I/token_mixing/Dense_0  blocks/token_mlp/up    [I]
    MixerBlock_I/token_mixing/Dense_1  blocks/token_mlp/down  [I]
    (LayerNorm_1, channel_mixing likewise: channel_norm, channel_mlp)
    pre_head_layer_norm                norm
    head                               head

Letters: b examples; H, W pixels; C channels of the image; n tokens; c width; k classes; l layers.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import sections
from vit_jax.layers.attention import Dtype
from vit_jax.layers.block import NORM_EPSILON, drop_path
from vit_jax.layers.embed import PatchEmbedding
from vit_jax.layers.head import classify
from vit_jax.layers.remat import REMAT_POLICIES, rematerialise


class Size(NamedTuple):
    width: int
    depth: int
    token_mlp_dim: int
    channel_mlp_dim: int


REMATS = [name for name in REMAT_POLICIES if name != "attention"]  # of which a Mixer has none
SIZES = {  # arXiv:2105.01601, Table 1
    "S": Size(512, 8, 256, 2048),
    "B": Size(768, 12, 384, 3072),
    "L": Size(1024, 24, 512, 4096),
    "H": Size(1280, 32, 640, 5120),
}


class MixerOutput(NamedTuple):
    tokens: Float[Array, "b n c"]  # after the last norm
    representation: Float[Array, "b c"]  # their average, which the head reads
    logits: Float[Array, "b k"] | None  # None for a model without a head


class MixingMlp(nn.Module):
    """Dense, GELU (tanh form), dense, along the last axis.

    Unlike the ViT's, it starts from LeCun's normal kernels and zero biases, as the paper's code.
    """

    hidden_dim: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b _ d"]) -> Float[Array, "b _ d"]:
        hidden = nn.gelu(nn.Dense(self.hidden_dim, dtype=self.dtype, name="up")(x))
        return nn.Dense(x.shape[-1], dtype=self.dtype, name="down")(hidden)


class MixerBlock(nn.Module):
    """x + mlp(norm(x)ᵀ)ᵀ, then x + mlp(norm(x)); one layer of the scan over depth."""

    token_mlp_dim: int
    channel_mlp_dim: int
    use_drop_path: bool = False
    train: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n c"], drop_path_rate: Float[Array, ""]
    ) -> tuple[Float[Array, "b n c"], None]:
        def residual(x, branch):
            if self.use_drop_path and self.train:
                branch = drop_path(branch, drop_path_rate, self.make_rng("dropout"))
            return x + branch

        norm = dict(epsilon=NORM_EPSILON, dtype=self.dtype)
        token_mlp = MixingMlp(self.token_mlp_dim, self.dtype, name="token_mlp")
        channel_mlp = MixingMlp(self.channel_mlp_dim, self.dtype, name="channel_mlp")
        y = nn.LayerNorm(name="token_norm", **norm)(x)
        x = residual(x, token_mlp(y.swapaxes(1, 2)).swapaxes(1, 2))
        x = residual(x, channel_mlp(nn.LayerNorm(name="channel_norm", **norm)(x)))
        self.sow("intermediates", "tokens", x)
        return x, None  # nn.scan's (carry, output)


class Mixer(nn.Module):
    """See `build` for what the settings mean."""

    num_classes: int
    patch_size: tuple[int, int]
    width: int
    depth: int
    token_mlp_dim: int
    channel_mlp_dim: int
    head_bias: float = 0.0
    drop_path_rate: float = 0.0
    unroll: int = 1
    remat: str = "none"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Float[Array, "b H W C"], *, train: bool = False) -> MixerOutput:
        patches = PatchEmbedding(self.width, self.patch_size, self.dtype, name="patch_embedding")(
            image
        )
        x = patches.reshape(len(patches), -1, self.width)
        blocks = nn.scan(
            rematerialise(MixerBlock, self.remat),
            length=self.depth,
            unroll=self.unroll,
            variable_axes={"params": 0, "intermediates": 0},
            split_rngs={"params": True, "dropout": True},
        )(
            token_mlp_dim=self.token_mlp_dim,
            channel_mlp_dim=self.channel_mlp_dim,
            use_drop_path=self.drop_path_rate > 0,
            train=train,
            dtype=self.dtype,
            name="blocks",
        )
        x, _ = blocks(x, jnp.linspace(0.0, self.drop_path_rate, self.depth))
        x = nn.LayerNorm(epsilon=NORM_EPSILON, dtype=self.dtype, name="norm")(x)
        representation = x.mean(axis=1)
        logits = classify(representation, self.num_classes, bias=self.head_bias)
        return MixerOutput(x, representation, logits)


def build(
    *,
    num_classes: int,
    patch_size: int | tuple[int, int],
    size: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    token_mlp_dim: int | None = None,
    channel_mlp_dim: int | None = None,
    head_bias: float = 0.0,
    drop_path_rate: float = 0.0,
    unroll: int | None = None,
    remat: str = "none",
    dtype: str = "float32",
) -> Mixer:
    """An MLP-Mixer. Its weights fit the number of tokens, so images of one size alone.

    Args:
      num_classes: width of the head; 0 for a model without one.
      patch_size: pixels, one number or (height, width).
      size: a name of `SIZES`; `width`, `depth`, `token_mlp_dim`, `channel_mlp_dim` replace single
        entries of it, and stand alone where no size is named.
      head_bias: its initial value; around -log(num_classes) suits the sigmoid loss.
      drop_path_rate: stochastic depth of the last layer; it rises linearly from 0 in the first.
      unroll: layers per pass of the scan over depth; by default all of them (fastest step), or
        one where `remat` is to save memory: XLA undoes it within a pass.
      remat: what the backward pass computes again to save memory, a name of `REMATS`.
      dtype: of the computation, 'float32' or 'bfloat16'; parameters are always float32.
    """
    where = "config.task.model"
    overrides = dict(
        width=width, depth=depth, token_mlp_dim=token_mlp_dim, channel_mlp_dim=channel_mlp_dim
    )
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if size is None:
        shape = sections.call(Size, overrides, where=f"{where} (no size named)")
    else:
        shape = sections.choose(SIZES, size, where=f"{where}.size")._replace(**overrides)
    sections.choose(dict.fromkeys(REMATS), remat, where=f"{where}.remat")
    sections.choose(dict.fromkeys(("float32", "bfloat16")), dtype, where=f"{where}.dtype")
    patch = sections.pair(patch_size)
    counts = dict(shape._asdict(), patch_size=min(patch), unroll=unroll)
    sections.check_ranges(
        where,
        **{name: (count, 1, math.inf) for name, count in counts.items()},
        num_classes=(num_classes, 0, math.inf),
        drop_path_rate=(drop_path_rate, 0, 1),
    )
    return Mixer(
        num_classes=num_classes,
        patch_size=patch,
        **shape._asdict(),
        head_bias=head_bias,
        drop_path_rate=drop_path_rate,
        unroll=unroll or (shape.depth if remat == "none" else 1),
        remat=remat,
        dtype=jnp.dtype(dtype),
    )
