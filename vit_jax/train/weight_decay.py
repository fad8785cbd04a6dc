"""Weight decay: which parameters, how much, and how it changes along the run."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax.train import patterns
from vit_jax.train.rate_factors import check_factors
from vit_jax.train.schedules import WHERE, Schedule

# Matrices decay; biases, norms, class tokens and position embeddings do not.
DECAY_KERNELS = ((r"(.*/)?kernel", True), (r".*", False))


def decayed_weights(
    weight_decay: float | Schedule, given_patterns: Sequence[Any]
) -> optax.GradientTransformation:
    """Adds to each update its parameter times `weight_decay` times the factor of its path.

    Args:
      weight_decay: constant, or of the optimizer steps done; only then there is a state, which
        counts them.
      given_patterns: ordered (path pattern, True, False or a factor); first match wins.
    """
    where = f"{WHERE}.decay_patterns"
    rules = check_factors(given_patterns, where=where)

    def add(decay: Any, key_path: tuple, update: Any, parameter: Any) -> Any:
        factor = patterns.match(rules, patterns.path_of(key_path), where=where)
        return update + decay * factor * parameter if factor else update

    def added(decay: Any, updates: Any, params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(functools.partial(add, decay), updates, params)

    if callable(weight_decay):
        return _scheduled(added, weight_decay)
    rules = [(pattern, weight_decay * factor) for pattern, factor in rules]
    # The mask leaves nothing out. It gives the state the structure that earlier checkpoints have,
    # where optax's own decay stood here.
    return optax.masked(optax.stateless(functools.partial(added, 1.0)), True)


def _scheduled(added: Any, weight_decay: Schedule) -> optax.GradientTransformation:
    def init(params: Any) -> optax.ScaleByScheduleState:
        del params
        return optax.ScaleByScheduleState(count=jnp.zeros([], jnp.int32))

    def update(updates: Any, state: optax.ScaleByScheduleState, params: Any) -> tuple[Any, Any]:
        updates = added(weight_decay(state.count), updates, params)
        return updates, optax.ScaleByScheduleState(count=optax.safe_increment(state.count))

    return optax.GradientTransformation(init, update)
