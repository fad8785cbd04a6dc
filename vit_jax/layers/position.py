"""Positions without parameters: sine-cosine embeddings, and rotations of queries and keys.

Letters: b examples; n positions or tokens; m patches; h, w rows and columns of the patch grid;
c width; g heads; d channels of a head.
"""

import math

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float, Int, Real

from vit_jax.errors import InputError

WAVELENGTHS = 10_000.0  # the longest over the shortest, arXiv:1706.03762 section 3.5


def sincos_1d(
    positions: Real[Array, " n"], width: int, *, endpoint: bool = True
) -> Float[Array, "n c"]:
    """[sin(t·w_0) ... sin(t·w_k), cos(t·w_0) ... cos(t·w_k)] at each position t.

    The frequencies fall geometrically from 1 to 1 / WAVELENGTHS, which is the last one (as in
    big_vision) or, without `endpoint`, would be the next (as in MoCo v3 and MAE).
    """
    if width % 2:
        raise InputError(f"width is {width}; allowed with sincos1d positions: an even number.")
    frequencies = WAVELENGTHS ** -jnp.linspace(0, 1, width // 2, endpoint=endpoint)
    angles = positions[:, None] * frequencies
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sincos_2d(grid: tuple[int, int], width: int, *, endpoint: bool = True) -> Float[Array, "n c"]:
    """Half of the channels encode the column, half the row (as MoCo v3, arXiv:2104.02057).

    Patches are numbered row by row; for `endpoint` see `sincos_1d`.
    """
    if width % 4:
        raise InputError(f"width is {width}; allowed with sincos2d positions: a multiple of 4.")
    h, w = grid
    rows, columns = jnp.meshgrid(jnp.arange(h), jnp.arange(w), indexing="ij")
    halves = [
        sincos_1d(axis.reshape(-1), width // 2, endpoint=endpoint) for axis in (columns, rows)
    ]
    return jnp.concatenate(halves, axis=-1)


# Added to the patches' tokens: (grid, width) -> f32[n, c].
FIXED = {
    "sincos1d": lambda grid, width: sincos_1d(jnp.arange(math.prod(grid)), width),
    "sincos2d": sincos_2d,
}


@struct.dataclass
class Rotation:
    """Rotary positions (arXiv:2104.09864) of patches on a grid; called with queries or keys.

    Channels i and i + d/2 are the two coordinates of a point that is turned by an angle of its
    own. The tokens in front of the patches (class token, registers) have no place and stay.
    """

    cos: Float[Array, "*b m d"]
    sin: Float[Array, "*b m d"]

    def __call__(self, x: Float[Array, "b n g d"]) -> Float[Array, "b n g d"]:
        first = x.shape[1] - self.cos.shape[-2]
        patches = x[:, first:].astype(jnp.float32)
        one, other = jnp.split(patches, 2, axis=-1)
        quarter_turn = jnp.concatenate([-other, one], axis=-1)
        turned = patches * self.cos[..., None, :] + quarter_turn * self.sin[..., None, :]
        return jnp.concatenate([x[:, :first], turned.astype(x.dtype)], axis=1)

    def of(self, patches: Int[Array, "b v"]) -> "Rotation":
        """Of some patches, which differ between examples."""
        return Rotation(self.cos[patches], self.sin[patches])


def rotation_2d(grid: tuple[int, int], head_dim: int, base: float = 100.0) -> Rotation:
    """Rotary positions of DINOv3 (arXiv:2508.10104): half of the angles from the row, half from
    the column of a patch's centre, in coordinates from -1 to 1 whatever the grid.

    Args:
      grid: (h, w).
      head_dim: d, a multiple of 4.
      base: ratio of the longest period to the shortest one, which is 1.
    """
    if head_dim % 4:
        raise InputError(
            f"a head has {head_dim} channels; allowed with rope positions: a multiple of 4."
        )
    centres = [2 * (jnp.arange(size) + 0.5) / size - 1 for size in grid]
    rows, columns = jnp.meshgrid(*centres, indexing="ij")
    periods = base ** (jnp.arange(head_dim // 4) / (head_dim // 4))
    angles = [2 * math.pi * axis.reshape(-1, 1) / periods for axis in (rows, columns)]
    angles = jnp.tile(jnp.concatenate(angles, axis=-1), 2)
    return Rotation(jnp.cos(angles), jnp.sin(angles))
