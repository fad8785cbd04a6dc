"""Optimizers, composed from Optax.

The update is: clip the gradient by its global norm, then AdamW, SGD with momentum or LARS, with
weight decay on the parameters whose path is chosen for it (`weight_decay`), and at last a factor
for each parameter (`rate_factors`).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import optax

from vit_jax import sections
from vit_jax.train import lars as trust
from vit_jax.train import moments, schedules
from vit_jax.train.rate_factors import check_factors, with_factors
from vit_jax.train.schedules import WHERE, Schedule
from vit_jax.train.weight_decay import DECAY_KERNELS, decayed_weights


class Optimizer(NamedTuple):
    transform: optax.GradientTransformation
    learning_rate: Schedule


def adamw(
    rate: Schedule,
    decay: optax.GradientTransformation,
    *,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
    moment_dtype: str = "float32",
    second_moment_dtype: str = "float32",
) -> optax.GradientTransformation:
    dtypes = dict(moment_dtype=moment_dtype, second_moment_dtype=second_moment_dtype)
    for name, dtype in dtypes.items():
        sections.choose(dict.fromkeys(("float32", "bfloat16")), dtype, where=f"{WHERE}.{name}")
    sections.check_ranges(WHERE, b1=(b1, 0, 1), b2=(b2, 0, 1), eps=(eps, 0, math.inf))
    adam = optax.scale_by_adam(b1, b2, eps, mu_dtype=moment_dtype)
    if second_moment_dtype == "bfloat16":
        adam = moments.second_moment_in_bfloat16(adam)
    return optax.chain(adam, decay, optax.scale_by_learning_rate(rate))  # as optax.adamw


def sgd(
    rate: Schedule,
    decay: optax.GradientTransformation,
    *,
    momentum: float = 0.9,
    nesterov: bool = False,
) -> optax.GradientTransformation:
    sections.check_ranges(WHERE, momentum=(momentum, 0, 1))
    return optax.chain(decay, optax.sgd(rate, momentum, nesterov))


def lars(
    rate: Schedule,
    decay: optax.GradientTransformation,
    *,
    momentum: float = 0.9,
    trust_coefficient: float = 0.001,
) -> optax.GradientTransformation:
    sections.check_ranges(
        WHERE,
        momentum=(momentum, 0, 1),
        trust_coefficient=(trust_coefficient, sections.TINY, math.inf),
    )
    return optax.chain(decay, trust.scale_by_trust(trust_coefficient), optax.sgd(rate, momentum))


OPTIMIZERS = {"adamw": adamw, "sgd": sgd, "lars": lars}


def build(
    *,
    num_steps: int,
    learning_rate: float,
    batch_size: int | None = None,
    num_examples: int | None = None,
    name: str = "adamw",
    schedule: str = "cosine",
    reference_batch_size: int | None = None,
    batch_scaling: str | None = None,
    warmup_steps: int = 0,
    warmup_epochs: float | None = None,
    end_learning_rate: float | None = None,
    timescale: int | None = None,
    cooldown_steps: int | None = None,
    weight_decay: float = 0.0,
    end_weight_decay: float | None = None,
    decay_patterns: Sequence[Any] = DECAY_KERNELS,
    clip_norm: float | None = None,
    b1: float | None = None,
    b2: float | None = None,
    eps: float | None = None,
    moment_dtype: str | None = None,
    second_moment_dtype: str | None = None,
    momentum: float | None = None,
    nesterov: bool | None = None,
    trust_coefficient: float | None = None,
    rate_patterns: Sequence[Any] = ((".*", 1.0),),
    layer_decay: float | None = None,
) -> Optimizer:
    """Returns the optimizer that `config.optimizer` describes.

    A key of an optimizer or schedule that is not the chosen one is refused, not ignored; None
    leaves it at the default.

    Args:
      num_steps: optimizer steps of the whole run.
      learning_rate: the peak, reached after the warm-up.
      batch_size: examples of a step, over all microbatches and hosts; needed with
        `reference_batch_size` and `warmup_epochs`.
      num_examples: of an epoch; needed with `warmup_epochs`.
      name: 'adamw' (decay decoupled, times the learning rate; arXiv:1711.05101), 'sgd' (momentum;
        the decay is added to the gradient) or 'lars' (the same, each matrix's gradient brought to
        its own length before, see `train.lars`).
      schedule: 'cosine', 'linear', 'rsqrt' or 'constant' after a linear warm-up from 0.
      reference_batch_size: examples of a step that `learning_rate` is meant for; that of another
        batch size follows from it, but not `end_learning_rate`. None where it is as it stands.
      batch_scaling: how it follows, see `schedules.scaled_rate`: 'linear' or 'sqrt'; 'linear'.
      warmup_steps: steps.
      warmup_epochs: the same in passes through the data, in place of `warmup_steps`.
      end_learning_rate: of 'cosine', 'linear' and the cooldown: the value at `num_steps`; 0.
      timescale: steps of 'rsqrt' (arXiv:2106.04560): the rate falls as
        sqrt(timescale / (timescale + steps after the warm-up)); 10,000.
      cooldown_steps: of 'rsqrt' and 'constant': the last steps, in which the rate goes down
        linearly to `end_learning_rate`; 0.
      weight_decay: the factor; applied where `decay_patterns` says so.
      end_weight_decay: its value at `num_steps`, along half a cosine from the first step on (DINO,
        arXiv:2104.14294); None where it stays.
      decay_patterns: ordered (path pattern, True, False or a factor of `weight_decay`); first match
        wins.
      clip_norm: the gradient's largest global L2 norm.
      b1, b2, eps: of 'adamw', 0.9, 0.999 and 1e-8.
      moment_dtype: of 'adamw', the first moment's, 'float32' or 'bfloat16'. A step moves it by a
        tenth, so rounding to bfloat16 costs little.
      second_moment_dtype: of 'adamw', the same; 'bfloat16' is rounded at random, see
        `train.moments`. 'float32' by default: that adds noise of up to 0.4 % to each element's
        rate and costs random bits, and published recipes do without it.
      momentum: of 'sgd' and 'lars', 0.9.
      nesterov: of 'sgd', False.
      trust_coefficient: of 'lars', the share of its length that a matrix moves in a step of
        learning rate 1; 0.001.
      rate_patterns: ordered (path pattern, factor of the learning rate); first match wins, 0
        freezes. [('head/.*', 1), ('.*', 0)] is a linear probe.
      layer_decay: a further factor, smaller the deeper a layer is below the head (see
        `rate_factors.layer_factors`); None for none.
    """
    limit = math.inf
    sections.check_ranges(
        WHERE,
        learning_rate=(learning_rate, 0, limit),
        weight_decay=(weight_decay, 0, limit),
        end_weight_decay=(end_weight_decay, 0, limit),
        clip_norm=(clip_norm, sections.TINY, limit),
        layer_decay=(layer_decay, sections.TINY, limit),
    )
    rate = sections.call_chosen(
        sections.choose(schedules.SCHEDULES, schedule, where="config.optimizer.schedule"),
        dict(
            end_learning_rate=end_learning_rate, timescale=timescale, cooldown_steps=cooldown_steps
        ),
        where=WHERE,
        choice=f"schedule {schedule!r}",
        peak=schedules.scaled_rate(
            learning_rate,
            batch_size=batch_size,
            reference_batch_size=reference_batch_size,
            batch_scaling=batch_scaling,
        ),
        num_steps=num_steps,
        warmup_steps=schedules.warmup_length(
            warmup_steps, warmup_epochs, num_examples=num_examples, batch_size=batch_size
        ),
    )
    decay = decay_schedule(weight_decay, end_weight_decay, num_steps)
    update = sections.call_chosen(
        sections.choose(OPTIMIZERS, name, where="config.optimizer.name"),
        dict(
            b1=b1,
            b2=b2,
            eps=eps,
            moment_dtype=moment_dtype,
            second_moment_dtype=second_moment_dtype,
            momentum=momentum,
            nesterov=nesterov,
            trust_coefficient=trust_coefficient,
        ),
        where=WHERE,
        choice=f"name {name!r}",
        rate=rate,
        decay=decayed_weights(decay, decay_patterns),
    )
    return Optimizer(wrapped(update, clip_norm, rate_patterns, layer_decay), rate)


def decay_schedule(begin: float, end: float | None, num_steps: int) -> float | Schedule:
    """The factor of the weight decay, which moves where it has an end."""
    if end is None:
        return begin
    return schedules.cosine(peak=begin, num_steps=num_steps, warmup_steps=0, end_learning_rate=end)


def wrapped(
    update: optax.GradientTransformation,
    clip_norm: float | None,
    rate_patterns: Sequence[Any],
    layer_decay: float | None,
) -> optax.GradientTransformation:
    """The update with what stands before it and behind it, where that does anything."""
    if clip_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(clip_norm), update)
    factors = check_factors(rate_patterns, where=f"{WHERE}.rate_patterns")
    if layer_decay is not None or factors != ((".*", 1.0),):
        update = with_factors(update, factors, layer_decay)
    return update
