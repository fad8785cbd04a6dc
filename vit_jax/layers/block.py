"""The Transformer encoder of ViT (arXiv:2010.11929, equations 2-4) and its published variants.

Letters: b examples, n tokens, c width, f MLP channels, l layers.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax import sections
from vit_jax.layers.activations import ACTIVATIONS
from vit_jax.layers.attention import Dtype, MultiHeadAttention
from vit_jax.layers.position import Rotation
from vit_jax.layers.products import choose_product
from vit_jax.layers.remat import rematerialise

NORM_EPSILON = 1e-6  # as in Google's ViT code; PyTorch's default would be 1e-5


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockSettings:
    """What the blocks of an encoder have in common.

    Attributes:
      mlp_dim: f; of a gated activation the width of the gate and of what it gates.
      num_heads: of attention; the width is a multiple of it.
      activation: of the MLP, a name in `ACTIVATIONS`.
      qkv_bias, key_bias: are there biases on query, key and value; False for the key's leaves
        out that one alone.
      qk_norm: see `MultiHeadAttention`.
      layer_scale: initial value of a factor for each channel of each branch (arXiv:2103.17239);
        None for no such factor.
      parallel: attention and MLP side by side on one norm, x + a(norm(x)) + m(norm(x))
        (arXiv:2302.05442), instead of one after the other.
      norm_epsilon: added to the variance by layer norms.
      dropout_rate: after the MLP's activation and after each branch.
      dtype: of the computation.
      attention_implementation: see `layers.attention.attend`.
      matmul: number formats of the dense layers' products, see `layers.products`.
      relative_prefix: see `MultiHeadAttention`.
    """

    mlp_dim: int
    num_heads: int
    activation: str = "gelu_tanh"
    qkv_bias: bool = True
    key_bias: bool = True
    qk_norm: bool = False
    layer_scale: float | None = None
    parallel: bool = False
    norm_epsilon: float = NORM_EPSILON
    dropout_rate: float = 0.0
    dtype: Dtype = jnp.float32
    attention_implementation: str = "auto"
    matmul: str = "default"
    relative_prefix: int | None = None

    def norm(self, name: str) -> nn.LayerNorm:
        return nn.LayerNorm(epsilon=self.norm_epsilon, dtype=self.dtype, name=name)

    def attention(self, name: str) -> MultiHeadAttention:
        with_bias = dict(query=self.qkv_bias, key=self.qkv_bias and self.key_bias)
        with_bias["value"] = self.qkv_bias
        return MultiHeadAttention(
            self.num_heads,
            dtype=self.dtype,
            implementation=self.attention_implementation,
            biases=tuple(part for part, is_used in with_bias.items() if is_used),
            qk_norm=self.qk_norm,
            norm_epsilon=self.norm_epsilon,
            matmul=self.matmul,
            relative_prefix=self.relative_prefix,
            name=name,
        )

    def mlp(self, name: str, *, train: bool) -> "Mlp":
        return Mlp(
            self.mlp_dim,
            self.activation,
            self.dropout_rate,
            train,
            self.dtype,
            matmul=self.matmul,
            name=name,
        )


class Mlp(nn.Module):
    """Dense, activation, dense."""

    hidden_dim: int
    activation: str = "gelu_tanh"
    dropout_rate: float = 0.0
    train: bool = False
    dtype: Dtype = jnp.float32
    matmul: str = "default"

    @nn.compact
    def __call__(self, x: Float[Array, "b n c"]) -> Float[Array, "b n c"]:
        where = "config.task.model.activation"
        function, is_gated = sections.choose(ACTIVATIONS, self.activation, where=where)
        dense = functools.partial(
            nn.Dense,
            kernel_init=nn.initializers.xavier_uniform(),
            bias_init=nn.initializers.normal(stddev=1e-6),
            dtype=self.dtype,
            dot_general=choose_product(self.matmul),
        )
        hidden = dense(self.hidden_dim, name="up")(x)
        if is_gated:
            hidden = function(dense(self.hidden_dim, name="gate")(x)) * hidden
        else:
            hidden = function(hidden)
        hidden = nn.Dropout(self.dropout_rate)(hidden, deterministic=not self.train)
        return dense(x.shape[-1], name="down")(hidden)


class EncoderBlock(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)); one layer of an `Encoder`."""

    settings: BlockSettings
    use_drop_path: bool = False
    train: bool = False

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        drop_path_rate: Float[Array, ""],
        mask: Bool[Array, "b _ _ n"] | None,
        rotation: Rotation | None,
    ) -> tuple[Float[Array, "b n c"], None]:
        settings = self.settings

        def branch(name, y):
            if settings.layer_scale is not None:
                init = nn.initializers.constant(settings.layer_scale)
                y = y * self.param(f"{name}_scale", init, x.shape[-1:]).astype(y.dtype)
            y = nn.Dropout(settings.dropout_rate)(y, deterministic=not self.train)
            if self.use_drop_path and self.train:
                y = drop_path(y, drop_path_rate, self.make_rng("dropout"))
            return y

        attention = settings.attention("attention")
        mlp = settings.mlp("mlp", train=self.train)
        if settings.parallel:
            y = settings.norm("norm")(x)
            x = (
                x
                + branch("attention", attention(y, mask=mask, rotation=rotation))
                + branch("mlp", mlp(y))
            )
        else:
            y = settings.norm("attention_norm")(x)
            x = x + branch("attention", attention(y, mask=mask, rotation=rotation))
            x = x + branch("mlp", mlp(settings.norm("mlp_norm")(x)))
        self.sow("intermediates", "tokens", x)
        return x, None  # nn.scan's (carry, output)


class Encoder(nn.Module):
    """`depth` blocks and a final norm.

    The blocks' parameters are stacked, (l, ...), and applied by a scan. `unroll` says how many
    layers one pass of it holds: 1 compiles fastest, `depth` runs fastest. Stochastic depth
    (arXiv:1603.09382) rises linearly from 0 in the first layer to `drop_path_rate` in the last.
    """

    depth: int
    settings: BlockSettings
    final_norm: bool = True
    drop_path_rate: float = 0.0
    unroll: int = 1
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b n c"],
        *,
        mask: Bool[Array, "b _ _ n"] | None = None,
        rotation: Rotation | None = None,
        train: bool = False,
    ) -> Float[Array, "b n c"]:
        blocks = nn.scan(
            rematerialise(EncoderBlock, self.remat),
            length=self.depth,
            unroll=self.unroll,
            variable_axes={"params": 0, "intermediates": 0, "perturbations": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
        )(self.settings, self.drop_path_rate > 0, train, name="blocks")
        x, _ = blocks(x, jnp.linspace(0.0, self.drop_path_rate, self.depth), mask, rotation)
        return self.settings.norm("norm")(x) if self.final_norm else x


def drop_path(
    branch: Float[Array, "b n c"], rate: Float[Array, ""], rng: Array
) -> Float[Array, "b n c"]:
    """Zeroes whole examples with probability `rate`; the rest is scaled to keep the mean."""
    keep = jax.random.bernoulli(rng, 1 - rate, (branch.shape[0], 1, 1))
    return jnp.where(keep, branch / (1 - rate).astype(branch.dtype), 0)
