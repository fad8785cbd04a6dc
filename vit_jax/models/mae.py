"""The masked autoencoder (arXiv:2111.06377), section 3 and figure 1.

image -> patches + positions -> the visible ones -> ViT (the backbone) -> dense to the decoder's
width -> a mask token at each empty place -> + positions -> blocks -> norm -> dense -> pixels

Random masking (section 3 and the public code): each patch draws a number; those with the least
are visible. They reach the encoder in the order of these numbers, which changes nothing, since
their positions come with them.

Letters: b examples; H, W pixels; C channels; p, q patch height and width; m patches; v visible
ones; f class and distillation tokens; c the encoder's width; d the decoder's.
"""

import dataclasses
import math
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.layers.block import BlockSettings, Encoder
from vit_jax.layers.position_tables import INITIAL_POSITIONS
from vit_jax.models.vit_network import VisionTransformer


class Masking(NamedTuple):
    """Which patches of each example are visible.

    Attributes:
      visible: their numbers.
      restore: of each patch, its place among first the visible ones, then the masked ones.
    """

    visible: Int[Array, "b v"]
    restore: Int[Array, "b m"]

    @classmethod
    def of(cls, noise: Float[Array, "b m"], num_visible: int) -> "Masking":
        """The patches with the least noise are visible; of equal ones the first."""
        order = jnp.argsort(noise, axis=1)
        return cls(order[:, :num_visible], jnp.argsort(order, axis=1))

    @property
    def masked(self) -> Bool[Array, "b m"]:
        return self.restore >= self.visible.shape[1]


class Decoder(nn.Module):
    """From the tokens of the visible patches to the pixels of all.

    Its positions are a parameter, since published weights carry them: the sine-cosine waves that
    they begin with, which the paper keeps, at a learning rate of 0.

    Attributes:
      width: d.
      depth: blocks.
      block: what these have in common.
      grid: rows and columns of patches.
      num_outputs: p·q·C.
      unroll, remat: see `models.vit.build`.
    """

    width: int
    depth: int
    block: BlockSettings
    grid: tuple[int, int]
    num_outputs: int
    unroll: int = 1
    remat: str = "none"

    @nn.compact
    def __call__(
        self,
        front: Float[Array, "b f c"],
        visible: Float[Array, "b v c"],
        restore: Int[Array, "b m"],
        *,
        train: bool = False,
    ) -> Float[Array, "b m _"]:
        (b, m), f, v, d = restore.shape, front.shape[1], visible.shape[1], self.width
        x = self._dense(d, "embedding")(jnp.concatenate([front, visible], axis=1))
        token = self.param("mask_token", nn.initializers.normal(0.02), (1, 1, d))
        patches = [x[:, f:], jnp.tile(token, (b, m - v, 1)).astype(x.dtype)]
        patches = jnp.concatenate(patches, axis=1)
        patches = jnp.take_along_axis(patches, restore[..., None], axis=1)
        waves = INITIAL_POSITIONS["sincos2d"](self.grid, d, f)
        positions = self.param("position_embedding", waves, (1, f + m, d))
        x = jnp.concatenate([x[:, :f], patches], axis=1) + positions.astype(x.dtype)
        x = Encoder(self.depth, self.block, unroll=self.unroll, remat=self.remat, name="encoder")(
            x, train=train
        )
        return self._dense(self.num_outputs, "prediction")(x[:, f:])

    def _dense(self, width: int, name: str) -> nn.Dense:
        init = nn.initializers.xavier_uniform()
        return nn.Dense(width, kernel_init=init, dtype=self.block.dtype, name=name)


class MaskedAutoencoder(nn.Module):
    """The parameters are `backbone`, those of the ViT, and `decoder`."""

    backbone: VisionTransformer
    decoder: Decoder

    @nn.compact
    def __call__(
        self, image: Float[Array, "b H W C"], masking: Masking, *, train: bool = False
    ) -> Float[Array, "b m _"]:
        """The prediction for each patch, `losses.masked_reconstruction` says of what.

        Registers are left behind, as their paper discards them (arXiv:2309.16588).
        """
        tokens = self.backbone(image, visible=masking.visible, train=train).tokens
        front = tokens[:, : len(self.backbone.prefix)]
        visible = tokens[:, self.backbone.num_prefix :]
        return self.decoder(front, visible, masking.restore, train=train)


def build_decoder(
    backbone: VisionTransformer,
    *,
    image_shape: tuple[int, int, int],
    width: int = 512,
    depth: int = 8,
    num_heads: int = 16,
    mlp_dim: int | None = None,
) -> Decoder:
    """The decoder of a backbone, with blocks of the same kind; by default the paper's.

    Args:
      backbone: the encoder.
      image_shape: height, width, channels.
      width, depth, num_heads: of the decoder's blocks.
      mlp_dim: of the decoder's blocks; by default four times the width.
    """
    counts = dict(width=width, depth=depth, num_heads=num_heads, mlp_dim=mlp_dim)
    ranges = {name: (count, 1, math.inf) for name, count in counts.items()}
    sections.check_ranges("config.task.decoder", **ranges)
    if width % 4 or width % num_heads:
        raise InputError(
            f"config.task.decoder has width={width} and num_heads={num_heads}; allowed: a width "
            "that is a multiple of 4 and of the heads."
        )
    return Decoder(
        width=width,
        depth=depth,
        block=dataclasses.replace(
            backbone.block, mlp_dim=mlp_dim or 4 * width, num_heads=num_heads
        ),
        grid=backbone.grid(image_shape[:2]),
        num_outputs=math.prod(backbone.patch_size) * image_shape[2],
        unroll=depth if backbone.remat == "none" else 1,
        remat=backbone.remat,
    )
