"""Random keys of examples, for choices that must not depend on how a batch is split.

The keys that a step hands to its microbatches differ between them; those made here belong to an
example and a step, whatever microbatch or device the example is on.
"""

import jax
from jaxtyping import Array, Int, Key

from vit_jax.core import TrainState

# No step's numbers, since the keys that a step hands out are of fold_in(rng, step).
MIXING = 2**32 - 1
MASKS = 2**32 - 2


def step_key(state: TrainState, purpose: int) -> Key[Array, ""]:
    """One for the whole batch of a step, the same in every microbatch."""
    return jax.random.fold_in(jax.random.fold_in(state.rng, purpose), state.step)


def example_keys(
    state: TrainState, index: Int[Array, " b"], *, purpose: int, train: bool
) -> Key[Array, " b"]:
    """One a row; in evaluation an example has the same key at every step.

    Args:
      index: the batch's `index`, positions in the data set.
      purpose: tells this use of keys from others; a constant above.
    """
    if not train:
        return evaluation_keys(state.rng, index, purpose=purpose)
    return _each(step_key(state, purpose), index)


def evaluation_keys(
    rng: Key[Array, ""], index: Int[Array, " b"], *, purpose: int
) -> Key[Array, " b"]:
    """Those of `example_keys` in evaluation, where there is no state but its `rng`."""
    return _each(jax.random.fold_in(rng, purpose), index)


def _each(key: Key[Array, ""], index: Int[Array, " b"]) -> Key[Array, " b"]:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, index)
