"""Mixup and CutMix on the device, inside the step.

Example i is mixed with example i + b/2 (modulo b), and one ratio serves the whole batch, as
in the authors' code of both papers. Since microbatches take every k-th row, the partner half a
batch away is in the same microbatch, so accumulation changes nothing; and the ratio comes from
a key that all microbatches share.

Letters: b examples; h, w, c pixels and channels; k classes.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Num

from vit_jax.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
    """How batches are mixed.

    Attributes:
      mixup_alpha: Beta(alpha, alpha) gives the ratio of mixup (arXiv:1710.09412); 0 for none.
      cutmix_alpha: the same for CutMix (arXiv:1905.04899).
      probability: of mixing a batch at all.
      switch_probability: of CutMix where both are on.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0
    switch_probability: float = 0.5

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, limit = getattr(self, field.name), 1 if "probability" in field.name else None
            if value < 0 or (limit is not None and value > limit):
                allowed = ">= 0" if limit is None else "between 0 and 1"
                raise InputError(f"config.task.mixing.{field.name} is {value}; allowed: {allowed}.")

    @property
    def is_active(self) -> bool:
        return self.probability > 0 and max(self.mixup_alpha, self.cutmix_alpha) > 0

    def __call__(
        self,
        rng: Array,
        image: Num[Array, "b h w c"],
        target: Float[Array, "b k"],
        mask: Bool[Array, " b"],
    ) -> tuple[Num[Array, "b h w c"], Float[Array, "b k"]]:
        """Mixed images and targets; a row whose partner is masked stays as it is."""
        if not self.is_active:
            return image, target
        b, h, w, _ = image.shape
        if b % 2:
            raise InputError(
                f"mixing pairs the halves of a batch, and a (micro)batch has {b} examples; "
                "allowed: an even number."
            )
        keys = jax.random.split(rng, 5)
        use_cutmix = jax.random.bernoulli(keys[0], self._cutmix_share())
        mixup_ratio = _beta(keys[1], self.mixup_alpha)
        box = cutmix_box(keys[2], _beta(keys[3], self.cutmix_alpha), (h, w))
        is_mixed = jax.random.bernoulli(keys[4], self.probability)

        # Share of the own pixel, f32[b, h, w, 1].
        own = jnp.where(use_cutmix, 1.0 - box, jnp.full((h, w), mixup_ratio))
        has_partner = jnp.roll(mask, b // 2) & is_mixed
        own = jnp.where(has_partner[:, None, None], own, 1.0)[..., None]
        share = own.mean(axis=(1, 2))  # the box is clipped at the border: its true share
        image = own * image + (1 - own) * jnp.roll(image, b // 2, axis=0)
        return image, share * target + (1 - share) * jnp.roll(target, b // 2, axis=0)

    def _cutmix_share(self) -> float:
        if not self.cutmix_alpha:
            return 0.0
        return self.switch_probability if self.mixup_alpha else 1.0


def cutmix_box(rng: Array, ratio: Float[Array, ""], size: tuple[int, int]) -> Float[Array, "h w"]:
    """1 inside a box of the image's shape, of area 1 - ratio, around a uniform centre."""
    inside = []
    for key, length in zip(jax.random.split(rng), size, strict=True):
        extent = jnp.floor(length * jnp.sqrt(1 - ratio)).astype(int)
        start = jax.random.randint(key, (), 0, length) - extent // 2
        position = jnp.arange(length)
        inside.append((position >= start) & (position < start + extent))
    return jnp.outer(*inside).astype(jnp.float32)


def _beta(rng: Array, alpha: float) -> Float[Array, ""]:
    return jax.random.beta(rng, alpha, alpha) if alpha else jnp.float32(1.0)
