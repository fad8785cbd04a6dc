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

How many views have masks, and their ratios, are spread evenly within a group of views, as in
DINOv2, whose group is what one device has:

    of g views with probability p, p·g have masks (rounded down or up at random, to have this mean)
    the i-th of v such views has its ratio uniform in the i-th of v equal parts of the range
    these ratios go to the views in random order

Here the group is the global views of one example, so that its masks do not depend on which others
are beside it. For two views with probability 1/2 one of them has masks. What a view has by itself,
its probability and the uniform ratio, is as asked for; and what is computed of the patches, logits
of the student and the teacher over all prototypes, needs the room of the group's largest sum:
half a view's patches an example at DINOv2's ratios of 0.1 to 0.5, where 0.3 are masked in the mean.

Letters: b examples; g global views; m patches of one; t patches taken of an example; n masked ones.
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
    taken: Int[Array, "b t"]  # of the g·m patches all that are masked, and then some others
    weight: Float[Array, "b t"]  # in the loss: 1 / (g · masked patches of the view); 0 of others


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
        most = self._most(num_views, math.prod(grid))

        def of_example(key: Key[Array, ""]) -> Hidden:
            how_many, blocks = jax.random.split(key)
            numbers = self._numbers(how_many, most, math.prod(grid))
            keys = jax.random.split(blocks, num_views)
            masked = jax.vmap(lambda k, n: block_mask(k, n, grid).reshape(-1))(keys, numbers)
            weight = masked / (num_views * jnp.maximum(numbers, 1)[:, None])
            taken = jnp.argsort(~masked.reshape(-1), stable=True)[: max(map(sum, most))]
            return Hidden(masked, taken, weight.reshape(-1)[taken])

        return jax.vmap(of_example)(keys)

    def _numbers(
        self, key: Key[Array, ""], most: list[list[int]], num_patches: int
    ) -> Int[Array, " g"]:
        """Masked patches of each view of an example."""
        is_more, order, ratio = jax.random.split(key, 3)
        g, (low, high) = len(most[0]), self.mask_ratio
        share, fewest = math.modf(self._masked_views(g))
        is_more = jax.random.bernoulli(is_more, share).astype(jnp.int32)
        views = jnp.maximum(int(fewest) + is_more, 1)
        rank = jax.random.permutation(order, g)
        part = (rank + jax.random.uniform(ratio, (g,))) / views
        number = jnp.int32((low + (high - low) * part) * num_patches)
        return jnp.minimum(jnp.maximum(number, 1), jnp.asarray(most)[is_more, rank])

    def _most(self, num_views: int, num_patches: int) -> list[list[int]]:
        """Largest numbers of masked patches, by the rank of a view; for both roundings of p·g."""
        low, high = self.mask_ratio
        fewest = int(self._masked_views(num_views))
        of_both = []
        for views in (fewest, min(fewest + 1, num_views)):
            ratios = [low + (high - low) * (rank + 1) / views for rank in range(views)]
            numbers = [max(1, int(ratio * num_patches)) for ratio in ratios]
            of_both.append(numbers + [0] * (num_views - views))
        return of_both if self._masked_views(num_views) > fewest else of_both[:1]

    def _masked_views(self, num_views: int) -> float:
        """p·g; rounded, since a product such as 0.7 · 10 may be above 7 by float's error alone."""
        return round(self.mask_probability * num_views, 9)


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
