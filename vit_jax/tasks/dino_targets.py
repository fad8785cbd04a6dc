"""What DINO's student is to predict, and the centres that keep it from being the same for all.

Targets are made of the teacher's logits, for views and for patches alike; each of the two has a
centre of its own, a running mean of those logits in the task's state.

Letters: k prototypes.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax import sections
from vit_jax.core import Mean
from vit_jax.losses.self_distillation import centred_targets
from vit_jax.losses.sinkhorn import sinkhorn

# 'none' does not keep targets from collapsing, and is there to show what then happens.
CENTRINGS = ("centre", "sinkhorn", "none")


@dataclass(frozen=True, kw_only=True)
class Targets:
    """`config.task.centring` and `config.task.centre_momentum`, see `dino.build`."""

    centring: str = "centre"
    centre_momentum: float = 0.9

    def __post_init__(self):
        sections.choose(dict.fromkeys(CENTRINGS), self.centring, where="config.task.centring")
        sections.check_ranges("config.task", centre_momentum=(self.centre_momentum, 0, 1))

    @property
    def mixes_examples(self) -> bool:
        return self.centring == "sinkhorn"

    def of(
        self,
        logits: Float[Array, "*b k"],
        counts: Bool[Array, "*b"],
        *,
        centre: Float[Array, " k"] | None,
        temperature: Float[Array, ""],
    ) -> Float[Array, "*b k"]:
        """Distributions over prototypes, from logits of the teacher.

        Args:
          counts: False for logits that must not have an influence.
          centre: of 'centre'.
          temperature: the teacher's.
        """
        if self.mixes_examples:
            return sinkhorn(logits / temperature, counts)
        centre = jnp.zeros(logits.shape[-1:]) if centre is None else centre
        return centred_targets(logits, centre, temperature)

    def moved(
        self, centres: Mapping[str, Array], seen: Mapping[str, Mean]
    ) -> dict[str, Float[Array, " k"]]:
        """The centres after a batch; as they were where nothing of the batch counted."""
        c, new = self.centre_momentum, {}
        for name, mean in seen.items():
            moved = c * centres[name] + (1 - c) * mean.compute()
            new[name] = jnp.where(mean.weight > 0, moved, centres[name])
        return new


def sums(x: Float[Array, "*b k"], counts: Bool[Array, "*b"]) -> Mean:
    """The mean over rows that count, f32[k] as its two sums."""
    axes = tuple(range(counts.ndim))
    return Mean(jnp.where(counts[..., None], x, 0).sum(axes), counts.sum().astype(jnp.float32))
