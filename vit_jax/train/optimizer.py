"""Optimizers, composed from Optax.

The update is: clip the gradient by its global norm, then AdamW or SGD with momentum, with
weight decay on the parameters whose path is chosen for it.
"""

import functools
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.train import moments, patterns, schedules
from vit_jax.train.schedules import Schedule

WHERE = "config.optimizer"
# Of a Transformer's parameters: those of all layers together, and those before the first one.
BLOCKS = re.compile(r"(.*/)?encoder/blocks/.*")
BEFORE_BLOCKS = re.compile(
    r"(.*/)?(stem|patch_embedding|class_token|distillation_token|registers|position_embedding"
    r"|embedding_norm)(/.*)?"
)
# Matrices decay; biases, norms, class tokens and position embeddings do not.
DECAY_KERNELS = ((r"(.*/)?kernel", True), (r".*", False))


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


OPTIMIZERS = {"adamw": adamw, "sgd": sgd}


def build(
    *,
    num_steps: int,
    learning_rate: float,
    name: str = "adamw",
    schedule: str = "cosine",
    warmup_steps: int = 0,
    end_learning_rate: float | None = None,
    timescale: int | None = None,
    cooldown_steps: int | None = None,
    weight_decay: float = 0.0,
    decay_patterns: Sequence[Any] = DECAY_KERNELS,
    clip_norm: float | None = None,
    b1: float | None = None,
    b2: float | None = None,
    eps: float | None = None,
    moment_dtype: str | None = None,
    second_moment_dtype: str | None = None,
    momentum: float | None = None,
    nesterov: bool | None = None,
    rate_patterns: Sequence[Any] = ((".*", 1.0),),
    layer_decay: float | None = None,
) -> Optimizer:
    """Returns the optimizer that `config.optimizer` describes.

    A key of an optimizer or schedule that is not the chosen one is refused, not ignored; None
    leaves it at the default.

    Args:
      num_steps: optimizer steps of the whole run.
      learning_rate: the peak, reached after the warm-up.
      name: 'adamw' (decay decoupled, times the learning rate; arXiv:1711.05101) or 'sgd'
        (momentum; the decay is added to the gradient).
      schedule: 'cosine', 'linear', 'rsqrt' or 'constant' after a linear warm-up from 0.
      warmup_steps: steps.
      end_learning_rate: of 'cosine', 'linear' and the cooldown: the value at `num_steps`; 0.
      timescale: steps of 'rsqrt' (arXiv:2106.04560): the rate falls as
        sqrt(timescale / (timescale + steps after the warm-up)); 10,000.
      cooldown_steps: of 'rsqrt' and 'constant': the last steps, in which the rate goes down
        linearly to `end_learning_rate`; 0.
      weight_decay: the factor; applied where `decay_patterns` says so.
      decay_patterns: ordered (path pattern, True, False or a factor of `weight_decay`); first match
        wins.
      clip_norm: the gradient's largest global L2 norm.
      b1, b2, eps: of 'adamw', 0.9, 0.999 and 1e-8.
      moment_dtype: of 'adamw', the first moment's, 'float32' or 'bfloat16'. A step moves it by a
        tenth, so rounding to bfloat16 costs little.
      second_moment_dtype: of 'adamw', the same; 'bfloat16' is rounded at random, see
        `train.moments`. 'float32' by default: that adds noise of up to 0.4 % to each element's
        rate and costs random bits, and published recipes do without it.
      momentum, nesterov: of 'sgd', 0.9 and False.
      rate_patterns: ordered (path pattern, factor of the learning rate); first match wins, 0
        freezes. [('head/.*', 1), ('.*', 0)] is a linear probe.
      layer_decay: a further factor, smaller the deeper a layer is below the head (see
        `layer_factor`); None for none.
    """
    limit = math.inf
    sections.check_ranges(
        WHERE,
        learning_rate=(learning_rate, 0, limit),
        weight_decay=(weight_decay, 0, limit),
        warmup_steps=(warmup_steps, 0, limit),
        clip_norm=(clip_norm, sections.TINY, limit),
        layer_decay=(layer_decay, sections.TINY, limit),
    )
    given = dict(
        end_learning_rate=end_learning_rate, timescale=timescale, cooldown_steps=cooldown_steps
    )
    shape = sections.choose(schedules.SCHEDULES, schedule, where="config.optimizer.schedule")
    rate = sections.call_chosen(
        shape,
        given,
        where=WHERE,
        choice=f"schedule {schedule!r}",
        peak=learning_rate,
        num_steps=num_steps,
        warmup_steps=warmup_steps,
    )
    given = dict(
        b1=b1,
        b2=b2,
        eps=eps,
        moment_dtype=moment_dtype,
        second_moment_dtype=second_moment_dtype,
        momentum=momentum,
        nesterov=nesterov,
    )
    make = sections.choose(OPTIMIZERS, name, where="config.optimizer.name")
    update = sections.call_chosen(
        make,
        given,
        where=WHERE,
        choice=f"name {name!r}",
        rate=rate,
        decay=decayed_weights(weight_decay, decay_patterns),
    )
    if clip_norm is not None:
        update = optax.chain(optax.clip_by_global_norm(clip_norm), update)
    factors = check_factors(rate_patterns, where=f"{WHERE}.rate_patterns")
    if layer_decay is not None or factors != ((".*", 1.0),):
        update = with_factors(update, factors, layer_decay)
    return Optimizer(update, rate)


def check_factors(rules: Sequence[Any], *, where: str) -> patterns.Rules:
    """Rules whose values are factors, 0 or more."""
    rules = patterns.check(rules, where=where)
    for pattern, factor in rules:
        if not isinstance(factor, (int, float)) or not 0 <= factor < math.inf:
            raise InputError(f"{where} has {factor!r} for {pattern!r}; allowed: 0 or more.")
    return rules


def decayed_weights(
    weight_decay: float, given_patterns: Sequence[Any]
) -> optax.GradientTransformation:
    """Adds to each update its parameter times `weight_decay` times the factor of its path."""
    where = f"{WHERE}.decay_patterns"
    rules = check_factors(given_patterns, where=where)

    def add(key_path: tuple, update: Any, parameter: Any) -> Any:
        factor = weight_decay * patterns.match(rules, patterns.path_of(key_path), where=where)
        return update + factor * parameter if factor else update

    decay = optax.stateless(functools.partial(jax.tree_util.tree_map_with_path, add))
    # The mask leaves nothing out. It gives the state the structure that earlier checkpoints have,
    # where optax's own decay stood here.
    return optax.masked(decay, True)


def with_factors(
    update: optax.GradientTransformation, rules: patterns.Rules, layer_decay: float | None
) -> optax.GradientTransformation:
    """The update times a factor for each parameter; where that is 0 there is no state either."""
    where = f"{WHERE}.rate_patterns"

    def chosen_factor(path: str, _: Any) -> float:
        return float(patterns.match(rules, path, where=where))

    def factors(params: Any) -> Any:
        chosen = patterns.map_paths(chosen_factor, params)
        if layer_decay is None:
            return chosen
        return jax.tree.map(lambda a, b: a * b, chosen, layer_factors(params, layer_decay))

    def labels(params: Any) -> Any:
        found = jax.tree.map(lambda f: "trained" if np.any(f) else "frozen", factors(params))
        if "trained" not in jax.tree.leaves(found):
            raise InputError(f"{where} freezes all parameters; allowed: at least one above 0.")
        return found

    def scale(updates: Any, params: Any) -> Any:
        return jax.tree.map(lambda u, f: u * jnp.asarray(f, u.dtype), updates, factors(params))

    groups = {"trained": update, "frozen": optax.set_to_zero()}
    return optax.chain(optax.partition(groups, labels), optax.stateless(scale))


def layer_factors(params: Any, decay: float) -> Any:
    """decay^(layers above), as in BEiT (arXiv:2106.08254) and MAE (arXiv:2111.06377).

    The head and the last norm have 1, the last block decay, the first one decay^depth, and what
    comes before the blocks decay^(depth + 1). A stacked leaf's factors stand along its first axis.
    """
    depths = patterns.map_paths(lambda p, x: x.shape[0] if BLOCKS.fullmatch(p) else 0, params)
    depth = max(jax.tree.leaves(depths), default=0)
    if not depth:
        raise InputError(f"{WHERE}.layer_decay is {decay}, but the model has no stacked blocks.")

    def factor(path: str, leaf: Any) -> Any:
        if BLOCKS.fullmatch(path):
            return (decay ** np.arange(depth, 0, -1.0)).reshape(depth, *(1,) * (leaf.ndim - 1))
        return decay ** (depth + 1) if BEFORE_BLOCKS.fullmatch(path) else 1.0

    return patterns.map_paths(factor, params)
