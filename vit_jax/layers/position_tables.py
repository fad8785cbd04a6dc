"""Positions that are learned otherwise than one vector a token: Table 8 of arXiv:2010.11929.

2-D (appendix D.4). Each column and each row of the patch grid has an embedding of half the width;
a patch's is that of its column, then that of its row. The paper leaves open what the class token
has; here the tokens in front of the patches have none, since a position of theirs would only add
to a token that is learned itself.

Relative (appendix D.4). Attention is along one dimension: patches are numbered row by row, and
each offset p_q - p_k of a query's number from a key's has an embedding r, which the query meets as
it meets a key. What comes of it is added to the scores before the softmax,

    score(q, k) = (query(q) · key(k) + query(q) · r(p_q - p_k)) / sqrt(d)

which is arXiv:1803.02155, equation 5, without clipping. The paper defines offsets for pairs of
patches, so a pair with a class token or register has no such term. It does not say what is shared;
here, as in section 3.3 there, the heads of a layer share one table, and each layer has its own.

Letters: b examples; n tokens; m patches; h heads; d channels of a head; c width.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax.errors import InputError
from vit_jax.layers.position import sincos_2d
from vit_jax.layers.resize import resize_axis

STDDEV = 0.02  # as of all learned positions here


def _normal(grid: tuple[int, int], width: int, num_prefix: int) -> nn.initializers.Initializer:
    del grid, width, num_prefix
    return nn.initializers.normal(STDDEV)


def _sincos_2d(grid: tuple[int, int], width: int, num_prefix: int) -> nn.initializers.Initializer:
    """As MAE's code: the patches' waves, and zeros for the tokens in front of them."""

    def initial(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        del key, shape
        waves = sincos_2d(grid, width, endpoint=False).astype(dtype)
        return jnp.pad(waves, ((num_prefix, 0), (0, 0)))[None]

    return initial


# What 'learned' positions, one vector a token, begin with.
INITIAL_POSITIONS = {"normal": _normal, "sincos2d": _sincos_2d}


class AxisPositions(nn.Module):
    """Positions of a grid's patches: columns (w, c/2) and rows (h, c/2).

    Attributes:
      grid: (h, w) that the tables are kept for; resized to another grid at each call.
    """

    grid: tuple[int, int]
    width: int

    @nn.compact
    def __call__(self, grid: tuple[int, int]) -> Float[Array, "1 m c"]:
        if self.width % 2:
            raise InputError(
                f"width is {self.width}; allowed with learned2d positions: an even number."
            )
        h, w = grid
        columns = jnp.tile(self._table("columns", self.grid[1], w), (h, 1))
        rows = jnp.repeat(self._table("rows", self.grid[0], h), w, axis=0)
        return jnp.concatenate([columns, rows], axis=-1)[None]

    def _table(self, name: str, kept: int, size: int) -> Float[Array, "size _"]:
        shape = (kept, self.width // 2)
        return resize_axis(self.param(name, nn.initializers.normal(STDDEV), shape), size)


class RelativeKeys(nn.Module):
    """What relative positions add to the scores of self-attention: embedding (2·m - 1, d).

    Attributes:
      num_prefix: tokens in front of the patches.
    """

    num_prefix: int

    @nn.compact
    def __call__(self, query: Float[Array, "b n h d"]) -> Float[Array, "b h n n"]:
        patches = query[:, self.num_prefix :]
        offsets = offsets_1d(patches.shape[1])
        shape = (int(offsets.max()) + 1, query.shape[-1])
        table = self.param("embedding", nn.initializers.normal(STDDEV), shape)
        keys = table.astype(query.dtype)[offsets] / np.sqrt(query.shape[-1]).astype(query.dtype)
        scores = jnp.einsum("bqhd,qkd->bhqk", patches, keys)
        return jnp.pad(scores, ((0, 0), (0, 0), *[(self.num_prefix, 0)] * 2))


def offsets_1d(num_patches: int) -> Int[np.ndarray, "m m"]:
    """Row of the table for each query and key: p_q - p_k, counted from the lowest."""
    places = np.arange(num_patches)
    return places[:, None] - places + num_patches - 1
