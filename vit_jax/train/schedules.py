"""Learning rates: a linear warm-up from 0 to the peak, then one of four shapes.

And what they owe to the batch: the peak, and a warm-up in epochs.

Letters: t, steps after the warm-up.
"""

import math
from collections.abc import Callable

import jax.numpy as jnp

from vit_jax import sections
from vit_jax.errors import InputError

Schedule = Callable[[int], float]  # optimizer steps done -> learning rate

WHERE = "config.optimizer"


def cosine(
    *, peak: float, num_steps: int, warmup_steps: int, end_learning_rate: float = 0.0
) -> Schedule:
    return _decay(
        lambda share: 0.5 * (1 + jnp.cos(jnp.pi * share)),
        peak=peak,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        end=end_learning_rate,
    )


def linear(
    *, peak: float, num_steps: int, warmup_steps: int, end_learning_rate: float = 0.0
) -> Schedule:
    return _decay(
        lambda share: 1 - share,
        peak=peak,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        end=end_learning_rate,
    )


def rsqrt(
    *,
    peak: float,
    num_steps: int,
    warmup_steps: int,
    timescale: int = 10_000,
    cooldown_steps: int = 0,
    end_learning_rate: float | None = None,
) -> Schedule:
    sections.check_ranges(WHERE, timescale=(timescale, 1, math.inf))
    return _with_cooldown(
        lambda t: jnp.sqrt(timescale / (timescale + t)),
        peak=peak,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        cooldown_steps=cooldown_steps,
        end=end_learning_rate,
    )


def constant(
    *,
    peak: float,
    num_steps: int,
    warmup_steps: int,
    cooldown_steps: int = 0,
    end_learning_rate: float | None = None,
) -> Schedule:
    return _with_cooldown(
        jnp.ones_like,
        peak=peak,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
        cooldown_steps=cooldown_steps,
        end=end_learning_rate,
    )


SCHEDULES = {"cosine": cosine, "linear": linear, "rsqrt": rsqrt, "constant": constant}


# Examples of a step over those that the rate is meant for -> factor of the rate. A step over k
# times the examples stands for k steps of SGD: k times the rate (arXiv:1706.02677). Adam divides by
# the gradient's size, which is mostly noise, and that falls with the root of k: its steps have to
# be sqrt(k) times as long (arXiv:2205.10287). MAE and DINO take AdamW's linearly, too.
BATCH_SCALINGS = {"linear": lambda ratio: ratio, "sqrt": math.sqrt}


def scaled_rate(
    learning_rate: float,
    *,
    batch_size: int | None,
    reference_batch_size: int | None,
    batch_scaling: str | None,
) -> float:
    """The rate for `batch_size` of one that is meant for `reference_batch_size`, if that is told.

    Raises:
      InputError: for a `batch_scaling` without it.
    """
    sections.check_ranges(WHERE, reference_batch_size=(reference_batch_size, 1, math.inf))
    if reference_batch_size is None:
        if batch_scaling is not None:
            raise InputError(
                f"{WHERE}.batch_scaling is {batch_scaling!r}, but from which batch size is not "
                "told; allowed: with reference_batch_size."
            )
        return learning_rate
    rule = sections.choose(
        BATCH_SCALINGS, batch_scaling or "linear", where=f"{WHERE}.batch_scaling"
    )
    return learning_rate * rule(batch_size / reference_batch_size)


def warmup_length(
    steps: int, epochs: float | None, *, num_examples: int | None, batch_size: int | None
) -> int:
    """Steps of the warm-up, which is told in one of the two."""
    sections.check_ranges(WHERE, warmup_steps=(steps, 0, math.inf))
    sections.check_ranges(WHERE, warmup_epochs=(epochs, 0, math.inf))
    if epochs is None:
        return steps
    if steps:
        raise InputError(
            f"{WHERE} has warmup_steps={steps} and warmup_epochs={epochs}; allowed: one of them."
        )
    return round(epochs * num_examples / batch_size)


def _decay(
    shape: Callable, *, peak: float, num_steps: int, warmup_steps: int, end: float
) -> Schedule:
    """From `peak` to `end`; `shape` maps the share of the way, 0 to 1, to 1 ... 0."""
    check_lengths(num_steps, warmup_steps, 0)
    length = max(1, num_steps - warmup_steps)
    return _with_warmup(
        lambda t: end + (peak - end) * shape(jnp.minimum(t / length, 1)), peak, warmup_steps
    )


def _with_cooldown(
    shape: Callable,
    *,
    peak: float,
    num_steps: int,
    warmup_steps: int,
    cooldown_steps: int,
    end: float | None,
) -> Schedule:
    """peak · shape(steps after the warm-up), then linearly to `end` in the last steps."""
    check_lengths(num_steps, warmup_steps, cooldown_steps)
    if end is not None and not cooldown_steps:
        raise InputError(
            f"config.optimizer.end_learning_rate is {end}, but nothing leads there; allowed with "
            "this schedule: cooldown_steps of 1 or more."
        )
    end = end or 0.0

    def value(t):
        left = (num_steps - warmup_steps - t) / max(cooldown_steps, 1)
        left = jnp.clip(left, 0, 1) if cooldown_steps else 1.0
        return end * (1 - left) + peak * shape(t) * left

    return _with_warmup(value, peak, warmup_steps)


def _with_warmup(after: Callable, peak: float, warmup_steps: int) -> Schedule:
    """Linearly from 0 to `peak`, then `after(steps since then)`."""

    def rate(step):
        t = jnp.asarray(step, jnp.float32)
        rising = peak * t / max(warmup_steps, 1)
        return jnp.where(t < warmup_steps, rising, after(jnp.maximum(t - warmup_steps, 0)))

    return rate


def check_lengths(num_steps: int, warmup_steps: int, cooldown_steps: int) -> None:
    sections.check_ranges(WHERE, cooldown_steps=(cooldown_steps, 0, math.inf))
    if warmup_steps + cooldown_steps > num_steps:
        raise InputError(
            f"config.optimizer has {warmup_steps} warm-up and {cooldown_steps} cooldown steps; "
            f"allowed: at most config.train.num_steps = {num_steps} together."
        )
