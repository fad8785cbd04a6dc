"""Factors of the learning rate, of each parameter by its path and by the depth of its layer."""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.errors import InputError
from vit_jax.train import patterns
from vit_jax.train.schedules import WHERE

# Of a Transformer's parameters: those of all layers together, and those before the first one.
BLOCKS = re.compile(r"((?:.*/)?encoder/blocks)/.*")
BEFORE_BLOCKS = re.compile(
    r"(.*/)?(stem|patch_embedding|class_token|distillation_token|mask_token|registers"
    r"|position_embedding|embedding_norm)(/.*)?"
)


def check_factors(rules: Sequence[Any], *, where: str) -> patterns.Rules:
    """Rules whose values are factors, 0 or more."""
    rules = patterns.check(rules, where=where)
    for pattern, factor in rules:
        if not isinstance(factor, (int, float)) or not 0 <= factor < math.inf:
            raise InputError(f"{where} has {factor!r} for {pattern!r}; allowed: 0 or more.")
    return rules


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

    Raises:
      InputError: for parameters without blocks, and for those of an encoder and a decoder, of whose
        layers no paper says what is above what.
    """
    stacks = stacks_of_blocks(params)
    if not stacks:
        raise InputError(f"{WHERE}.layer_decay is {decay}, but the model has no stacked blocks.")
    if len(stacks) > 1:
        raise InputError(
            f"{WHERE}.layer_decay is {decay}, but the blocks are in {', '.join(stacks)}; allowed: "
            "parameters with one stack of blocks."
        )
    (depth,) = stacks.values()

    def factor(path: str, leaf: Any) -> Any:
        if BLOCKS.fullmatch(path):
            return (decay ** np.arange(depth, 0, -1.0)).reshape(depth, *(1,) * (leaf.ndim - 1))
        return decay ** (depth + 1) if BEFORE_BLOCKS.fullmatch(path) else 1.0

    return patterns.map_paths(factor, params)


def stacks_of_blocks(params: Any) -> dict[str, int]:
    """Path of each stack -> its depth."""
    found = {}

    def note(path: str, leaf: Any) -> None:
        if match := BLOCKS.fullmatch(path):
            found[match.group(1)] = leaf.shape[0]

    patterns.map_paths(note, params)
    return found
