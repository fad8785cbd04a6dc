"""What changes during a run of DINO: the teacher's momentum and temperature, the last layer.

And the rules that tie these to the batch size; that of the learning rate is the optimizer's,
`optimizer.reference_batch_size`.

- Momentum, after the EMA scaling rule (arXiv:2307.13813, definition 1.2): a batch r times as large
  takes r of the steps that the momentum was chosen for at once, so its momentum is m^r. DINO's own
  recipes do not follow it: they have 0.996 with 512 images and with 1,024, and main_dino.py's help
  advises 0.9995 with 256, where the rule says 0.998 from the one and 0.999 from the other.
  `configs/dino.py:S16_one_gpu` takes that advice.
- Temperature: DINO's recipe for batches of 1,024 warms up from 0.04 to 0.07, that for 512 stays at
  0.04 (its README), and sharper targets are the advice against collapse. So from the reference
  down to half of it the final temperature goes to the warm-up's, along a line over log2 of the
  batch size, and no further; larger batches have the reference's.

The last layer, the prototypes, has no gradient at first. The public code takes it out of the
optimizer's step altogether; a task knows nothing of its optimizer, so here some of it goes on:

- Weight decay. The prototypes' `kernel` gets shorter, but the head computes with the directions of
  its columns, and these stay. Learned magnitudes (`head.normalise_last=False`) do not decay where
  `optimizer.decay_patterns` is the default, kernels alone. Where the patterns name everything else
  they shrink by the sum of rate times decay: 0.5 % in the first epoch of DINO's ViT-S recipe, in
  which 1,251 steps warm up to 0.0002 with decay 0.04.
- Adam's count of steps. At the thaw the prototypes' moments are zero, but their correction, the
  division by 1 - b^t, has all steps before behind it, and the second moment catches up later than
  the first. With the default b's and a constant gradient the steps become up to 6.6 times as long
  (12 steps after the thaw; 1.2 times after 1,000). In the published recipes that falls into the
  warm-up of the learning rate.

Letters: t steps done, r batch size over the reference.
"""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vit_jax import sections
from vit_jax.core import Mean, Tree

WHERE = "config.task"


@dataclass(frozen=True, kw_only=True)
class DinoSchedules:
    """Functions of the step.

    Attributes:
      num_steps: of the whole run.
      steps_per_epoch: not whole, in general.
      momentum, end_momentum: of the teacher, in the first step and after the last, of a run with
        the reference batch size.
      teacher_temperature: after the warm-up, the same.
      warmup_teacher_temperature: in the first step.
      temperature_warmup_epochs: how long it goes from the one to the other.
      freeze_last_layer_epochs: how long the prototypes stay as they are.
      batch_ratio: r.
    """

    num_steps: int
    steps_per_epoch: float
    momentum: float
    end_momentum: float
    teacher_temperature: float
    warmup_teacher_temperature: float
    temperature_warmup_epochs: float
    freeze_last_layer_epochs: float
    batch_ratio: float = 1.0

    def __post_init__(self):
        limit, above_one = math.inf, math.nextafter(1, 2)
        sections.check_ranges(
            WHERE,
            momentum=(self.momentum, 0, 1),  # 1 is a teacher that never learns
            end_momentum=(self.end_momentum, 0, above_one),
            teacher_temperature=(self.teacher_temperature, sections.TINY, limit),
            warmup_teacher_temperature=(self.warmup_teacher_temperature, sections.TINY, limit),
            temperature_warmup_epochs=(self.temperature_warmup_epochs, 0, limit),
            freeze_last_layer_epochs=(self.freeze_last_layer_epochs, 0, limit),
        )

    def teacher_momentum(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """Half a cosine from `momentum` to `end_momentum`, to the power of r.

        `step` counts those done before the update, so that the first has `momentum`.
        """
        share = 0.5 * (1 + jnp.cos(jnp.pi * step / self.num_steps))
        value = self.end_momentum + (self.momentum - self.end_momentum) * share
        return value**self.batch_ratio

    def temperature(self, step: Int[Array, ""]) -> Float[Array, ""]:
        """A line over the steps of the warm-up, whose last has the final value, as in DINOv2.

        DINO's own code moves the temperature once an epoch.
        """
        warm, final = self.warmup_teacher_temperature, self.final_temperature
        last = round(self.temperature_warmup_epochs * self.steps_per_epoch) - 1
        share = jnp.minimum(step / last, 1) if last > 0 else 1.0
        return jnp.asarray(warm + (final - warm) * share, jnp.float32)

    @property
    def final_temperature(self) -> float:
        """After the warm-up, by the rule for the batch size."""
        share = min(max(1 + math.log2(self.batch_ratio), 0), 1)
        warm, reference = self.warmup_teacher_temperature, self.teacher_temperature
        return warm + (reference - warm) * share

    def is_last_layer_frozen(self, step: Int[Array, ""]) -> Bool[Array, ""]:
        return step < round(self.freeze_last_layer_epochs * self.steps_per_epoch)

    def freeze_last_layer(self, params: Tree, step: Int[Array, ""]) -> Tree:
        """The same, without gradient for the prototypes while they are frozen."""
        is_frozen = self.is_last_layer_frozen(step)

        def freeze(leaf: Array) -> Array:
            return jnp.where(is_frozen, jax.lax.stop_gradient(leaf), leaf)

        heads = [name for name in ("head", "patch_head") if name in params]
        frozen = {
            name: {**params[name], "last": jax.tree.map(freeze, params[name]["last"])}
            for name in heads
        }
        return {**params, **frozen}

    def metrics(self, step: Int[Array, ""]) -> dict[str, Mean]:
        """What a line of the log has of this."""
        return {
            "teacher_momentum": Mean.of(self.teacher_momentum(step)),
            "teacher_temperature": Mean.of(self.temperature(step)),
        }
