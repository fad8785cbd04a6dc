"""Which patches iBOT's loss hides: blocks, drawn on the device.

A law like BEiT's (arXiv:2106.08254, algorithm 1), in a form that needs no loop until enough is
masked and always masks the number asked for:

    n = floor(ratio · patches), the ratio uniform in a range
    for each of 16 blocks:
        area uniform between 4 patches and n (or n, if that is less), the ratio of its sides
        log-uniform between 0.3 and 1/0.3, both sides rounded and at most the grid's
        placed uniformly where it fits in the grid
    mask the first block, then the second, ..., each row by row, until n patches are masked

so the last block may be left incomplete. BEiT redraws a block that is too large, and may end with
fewer than n. Should 16 blocks not cover n patches, the rest is taken row by row from the top.

Letters: b examples; g global views; m patches; t patches taken; n masked ones.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key

from vit_jax import sections
from vit_jax.errors import InputError

NUM_BLOCKS = 16
SMALLEST_BLOCK = 4  # patches; DINOv2's
SMALLEST_ASPECT = 0.3  # of height / width; the largest is its reciprocal


class Hidden(NamedTuple):
    masked: Bool[Array, "b g m"]
    taken: Int[Array, "b g t"]  # the masked patches, and then some others
    is_masked: Bool[Array, "b g t"]  # of those taken


@dataclass(frozen=True, kw_only=True)
class PatchLoss:
    """`config.task.patch_loss`, iBOT's loss as DINOv2 has it.

    Attributes:
      weight: of the loss beside that of the class tokens.
      mask_probability: of a global view to have patches masked at all.
      mask_ratio: least and largest share of patches masked in such a view, uniform between.
      own_head: has the loss a head of its own, of the same size?
    """

    weight: float = 1.0
    mask_probability: float = 0.5
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    own_head: bool = False

    def __post_init__(self):
        where = "config.task.patch_loss"
        sections.check_ranges(where, weight=(self.weight, sections.TINY, math.inf))
        if not 0 < self.mask_probability <= 1:
            raise InputError(
                f"{where}.mask_probability is {self.mask_probability}; allowed: more than 0 and "
                "at most 1."
            )
        low, high = self.mask_ratio
        if not 0 < low <= high < 1:
            raise InputError(
                f"{where}.mask_ratio is {self.mask_ratio}; allowed: two numbers with 0 < least <= "
                "largest < 1."
            )

    def hide(self, keys: Key[Array, " b"], num_views: int, grid: tuple[int, int]) -> Hidden:
        """What to mask in the global views of each example."""
        t = max(1, int(self.mask_ratio[1] * math.prod(grid)))

        def of_view(key: Key[Array, ""]) -> Hidden:
            is_any, ratio, blocks = jax.random.split(key, 3)
            low, high = self.mask_ratio
            share = jax.random.uniform(ratio, minval=low, maxval=high)
            number = jnp.clip(jnp.int32(share * math.prod(grid)), 1, t)
            number *= jax.random.bernoulli(is_any, self.mask_probability)
            masked = block_mask(blocks, number, grid).reshape(-1)
            taken = jnp.argsort(~masked, stable=True)[:t]
            return Hidden(masked, taken, jnp.arange(t) < number)

        return jax.vmap(lambda key: jax.vmap(of_view)(jax.random.split(key, num_views)))(keys)


def block_mask(
    key: Key[Array, ""], number: Int[Array, ""], grid: tuple[int, int]
) -> Bool[Array, "rows columns"]:
    """True for exactly `number` patches of the grid, by the law above."""
    covers = _blocks(key, number.astype(jnp.float32), grid)
    first = jnp.where(covers.any(0), jnp.argmax(covers, axis=0), NUM_BLOCKS).reshape(-1)
    order = jnp.argsort(first, stable=True)  # within a block row by row
    rank = jnp.zeros_like(order).at[order].set(jnp.arange(order.size))
    return (rank < number).reshape(grid)


def _blocks(
    key: Key[Array, ""], number: Float[Array, ""], grid: tuple[int, int]
) -> Bool[Array, "blocks rows columns"]:
    """The patches that each of the random blocks covers."""
    draws = jax.random.uniform(key, (4, NUM_BLOCKS))
    least = jnp.minimum(SMALLEST_BLOCK, number)
    area = least + draws[0] * (number - least)
    aspect = jnp.exp((2 * draws[1] - 1) * math.log(1 / SMALLEST_ASPECT))
    lengths = (jnp.sqrt(area * aspect), jnp.sqrt(area / aspect))
    covers = []
    for side, length, place in zip(grid, lengths, draws[2:], strict=True):
        length = jnp.clip(jnp.round(length), 1, side)
        start = jnp.floor(place * (side - length + 1))[:, None]
        position = jnp.arange(side)
        covers.append((position >= start) & (position < start + length[:, None]))
    return covers[0][:, :, None] & covers[1][:, None, :]
