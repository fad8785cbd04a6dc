"""The Vision Transformer (arXiv:2010.11929), with what its published descendants add to it.

image -> [stem] -> patches -> [class token ...] -> + positions -> encoder -> pool -> head

Letters: b examples; H, W pixels; C channels; n tokens (with class, distillation and register
tokens where there are such); m patches; v visible ones; c width; r representation; k classes.
"""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vit_jax.errors import InputError
from vit_jax.layers import pooling, position
from vit_jax.layers.block import BlockSettings, Encoder
from vit_jax.layers.embed import PatchEmbedding, grid_size
from vit_jax.layers.head import classify
from vit_jax.layers.position_tables import INITIAL_POSITIONS, AxisPositions
from vit_jax.layers.resize import resize_positions
from vit_jax.layers.stem import STEMS, STRIDES


class ViTOutput(NamedTuple):
    tokens: Float[Array, "b n c"]  # after the encoder, and its last norm if that is on tokens
    representation: Float[Array, "b r"]  # what the head reads
    logits: Float[Array, "b k"] | None  # None for a model without a head
    # Of a model with a distillation token, whose `logits` are the mean of its two heads'.
    class_logits: Float[Array, "b k"] | None = None
    distillation_logits: Float[Array, "b k"] | None = None


class VisionTransformer(nn.Module):
    """See `models.vit.build` for what the settings mean."""

    num_classes: int
    patch_size: tuple[int, int]
    width: int
    depth: int
    block: BlockSettings
    stem: str | None = None
    kernel_size: tuple[int, int] | None = None
    position_grid: tuple[int, int] | None = None
    pool: str = "cls"
    class_token: bool = True
    distillation_token: bool = False
    num_registers: int = 0
    mask_token: bool = False
    position_embedding: str = "learned"
    position_initial: str = "normal"
    prefix_positions: bool = True
    rope_base: float = 100.0
    patch_bias: bool = True
    patch_norms: bool = False
    embedding_norm: bool = False
    final_norm: str = "tokens"
    representation_dim: int | None = None
    head_bias: float | None = 0.0
    head_std: float = 0.0
    head_norm: str = "none"
    drop_path_rate: float = 0.0
    unroll: int = 1
    remat: str = "none"

    @property
    def prefix(self) -> tuple[str, ...]:
        """Names of the tokens in front of the patches that have positions like them."""
        used = dict(class_token=self.class_token, distillation_token=self.distillation_token)
        return tuple(name for name, is_used in used.items() if is_used)

    @property
    def num_prefix(self) -> int:
        """All tokens in front of the patches."""
        return len(self.prefix) + self.num_registers

    def grid(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Rows and columns of the patches of an image."""
        stride = STRIDES[self.stem] if self.stem else 1
        rows, columns = (-(-side // stride) for side in image_size)
        return grid_size((rows, columns), self.patch_size)

    @nn.compact
    def __call__(
        self,
        image: Float[Array, "b H W C"],
        *,
        mask: Bool[Array, "b m"] | None = None,
        visible: Int[Array, "b v"] | None = None,
        masked: Bool[Array, "b m"] | None = None,
        train: bool = False,
    ) -> ViTOutput:
        """`mask` is False for patches that must have no influence, e.g. padding.

        Those that are not among the `visible` are taken out, so that they cost nothing (MAE);
        those that are `masked` are replaced by the mask token (iBOT).
        """
        block, rotation = self.block, None
        if self.stem is not None:
            image = STEMS[self.stem](dtype=block.dtype, name="stem")(image, train=train)
        patches = PatchEmbedding(
            self.width,
            self.patch_size,
            dtype=block.dtype,
            kernel_size=self.kernel_size,
            use_bias=self.patch_bias,
            use_norms=self.patch_norms,
            norm_epsilon=block.norm_epsilon,
            name="patch_embedding",
        )(image)
        b, *grid, c = patches.shape
        patches = self._masked(patches.reshape(b, -1, c), masked)
        x = self._tokens(patches, tuple(grid))
        if visible is not None:
            x = self._taken(x, visible)
        x = nn.Dropout(block.dropout_rate)(x, deterministic=not train)
        if self.embedding_norm:
            x = block.norm("embedding_norm")(x)
        if self.position_embedding == "rope":
            rotation = position.rotation_2d(tuple(grid), c // block.num_heads, self.rope_base)
            rotation = rotation if visible is None else rotation.of(visible)
        if self.position_embedding == "relative":
            block = dataclasses.replace(block, relative_prefix=self.num_prefix)
        if mask is not None:
            mask = jnp.pad(mask, ((0, 0), (self.num_prefix, 0)), constant_values=True)
        x = Encoder(
            self.depth,
            block,
            final_norm=self.final_norm == "tokens",
            drop_path_rate=self.drop_path_rate,
            unroll=self.unroll,
            remat=self.remat,
            name="encoder",
        )(x, mask=None if mask is None else mask[:, None, None], rotation=rotation, train=train)
        representation = self._pool(x, mask)
        head = dict(bias=self.head_bias, std=self.head_std, norm=self.head_norm, train=train)
        logits = classify(representation, self.num_classes, **head)
        if not self.distillation_token or logits is None:
            return ViTOutput(x, representation, logits)
        other = classify(x[:, 1], self.num_classes, **head, name="distillation_head")
        return ViTOutput(x, representation, (logits + other) / 2, logits, other)

    def _masked(
        self, x: Float[Array, "b m c"], masked: Bool[Array, "b m"] | None
    ) -> Float[Array, "b m c"]:
        if not self.mask_token:
            if masked is not None:
                raise InputError("patches are to be masked; allowed: a model with mask_token=True.")
            return x
        token = self.param("mask_token", nn.initializers.zeros, (1, x.shape[-1]))
        return x if masked is None else jnp.where(masked[..., None], token.astype(x.dtype), x)

    def _taken(self, x: Float[Array, "b n c"], visible: Int[Array, "b v"]) -> Float[Array, "b _ c"]:
        """The tokens in front, and of the patches' those that are visible, in that order."""
        patches = jnp.take_along_axis(x[:, self.num_prefix :], visible[..., None], axis=1)
        return jnp.concatenate([x[:, : self.num_prefix], patches], axis=1)

    def _tokens(self, x: Float[Array, "b m c"], grid: tuple[int, int]) -> Float[Array, "b n c"]:
        """Adds positions, and puts what tokens the model has in front."""
        b, _, c = x.shape
        if self.position_embedding in position.FIXED:
            x += position.FIXED[self.position_embedding](grid, c).astype(x.dtype)
        if self.position_embedding == "learned2d":
            tables = AxisPositions(self.position_grid or grid, c, name="position_embedding")
            x += tables(grid).astype(x.dtype)
        learns = self.position_embedding == "learned"
        if learns and not self.prefix_positions:
            x += self._positions(grid, 0, c).astype(x.dtype)
        zeros, normal = nn.initializers.zeros, nn.initializers.normal(stddev=0.02)
        tokens = [self.param(name, zeros, (1, 1, c)) for name in self.prefix]
        x = jnp.concatenate([*(jnp.tile(t, (b, 1, 1)).astype(x.dtype) for t in tokens), x], axis=1)
        if learns and self.prefix_positions:
            x += self._positions(grid, len(tokens), c).astype(x.dtype)
        if self.num_registers:
            registers = self.param("registers", normal, (1, self.num_registers, c))
            registers = jnp.tile(registers, (b, 1, 1)).astype(x.dtype)
            cut = len(tokens)
            x = jnp.concatenate([x[:, :cut], registers, x[:, cut:]], axis=1)
        return x

    def _positions(self, grid: tuple[int, int], num_prefix: int, c: int):
        """f32[1, n, c], resized where they are kept for another grid."""
        kept = self.position_grid or grid
        initial = INITIAL_POSITIONS[self.position_initial](kept, c, num_prefix)
        shape = (1, num_prefix + math.prod(kept), c)
        positions = self.param("position_embedding", initial, shape)
        return resize_positions(positions, old_grid=kept, new_grid=grid, num_prefix=num_prefix)

    def _pool(self, x, mask) -> Float[Array, "b r"]:
        patches = x[:, self.num_prefix :]
        patch_mask = None if mask is None else mask[:, self.num_prefix :]
        if self.pool == "cls":
            x = x[:, 0]
        elif self.pool == "gap":
            x = pooling.average(patches, patch_mask)
        elif self.pool == "cls_gap":
            x = jnp.concatenate([x[:, 0], pooling.average(patches, patch_mask)], axis=-1)
        else:
            x = pooling.AttentionPooling(self.block, name="pool")(x, mask=mask)
        if self.final_norm == "pooled":
            x = self.block.norm("pooled_norm")(x)
        if self.representation_dim is not None:
            layer = nn.Dense(self.representation_dim, dtype=self.block.dtype, name="representation")
            x = nn.tanh(layer(x))
        return x
