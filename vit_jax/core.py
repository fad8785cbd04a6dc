"""The contract: what the loop, the step and the checkpoints know of a method of learning.

A `Task` says what is learned and holds no arrays; a `TrainState` holds every array and
nothing else; a loss or a metric is a `Mean`, a ratio of two sums, so that microbatches,
hosts and padded evaluation batches merge exactly by addition.

Letters: f32[], i32[] are scalars; `Tree` is any nest of arrays.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import struct

Tree = Any
# At least `mask`: bool[b], False where a row must not count.
Batch = Mapping[str, jax.Array]
Variables = dict[str, Tree]  # Flax collections: {'params': ..., 'batch_stats': ..., ...}
Outputs = dict[str, jax.Array]  # what `predict` returns, by name: logits, boxes, masks, tokens, ...


@struct.dataclass
class Mean:
    """A weighted mean kept as its two sums: total f32[], or f32[k] in a carry; weight f32[]."""

    total: jax.Array
    weight: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weights: jax.Array | float = 1.0) -> "Mean":
        """The mean of `values` under `weights`, which broadcast against them."""
        values = jnp.asarray(values, jnp.float32)
        weights = jnp.broadcast_to(jnp.asarray(weights, jnp.float32), values.shape)
        # A row of weight zero may hold anything, even NaN, and still must not count.
        return cls(jnp.sum(jnp.where(weights == 0, 0, values * weights)), jnp.sum(weights))

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.weight + other.weight)

    def compute(self) -> jax.Array:
        """total / weight, f32[]; NaN where nothing was counted."""
        return self.total / self.weight


@struct.dataclass
class TrainState:
    """Exactly what a checkpoint holds."""

    step: jax.Array  # i32[], optimizer steps done
    rng: jax.Array  # key[], never changes; the key of a step is fold_in(rng, step)
    params: Tree
    opt_state: Tree
    model_state: Tree  # the model's other Flax collections, e.g. batch_stats
    task_state: Tree  # arrays a task moves without gradients: a teacher, a centre, a queue
    ema_params: Tree | None = None  # averaged weights for evaluation, owned by the step

    def variables(self, *, averaged: bool = False) -> Variables:
        """What a Flax module's `apply` takes; with the averaged weights if asked and kept."""
        use_ema = averaged and self.ema_params is not None
        return {"params": self.ema_params if use_ema else self.params, **self.model_state}


class Aux(NamedTuple):
    """What a loss returns beside itself."""

    model_state: Tree  # the new one
    metrics: dict[str, Mean]
    carry: dict[str, Mean]  # sums that `update_task_state` needs, e.g. a batch centre


class Task:
    """What is learned. Subclasses are `@dataclass(frozen=True, kw_only=True)`, without arrays."""

    # True where examples meet in the loss (contrastive, Sinkhorn): the mean over a batch is
    # then no mean over its microbatches, and gradient accumulation is refused.
    mixes_examples: bool = False
    # Where in the parameters those of `config.task.model` are: all of them, or a part.
    model_path: tuple[str, ...] = ()

    def init(self, rng: jax.Array, batch: Batch) -> Variables:
        """New variables for a batch of this shape."""
        raise NotImplementedError

    def init_task_state(self, params: Tree) -> Tree:
        del params
        return {}

    def loss(
        self, params: Tree, state: TrainState, batch: Batch, rng: jax.Array, *, train: bool
    ) -> tuple[Mean, Aux]:
        """The loss of a (micro)batch; `params` is what is differentiated, not `state.params`.

        `rng` differs between microbatches. Randomness that must not depend on how a batch is
        split (mixing) comes from `state.rng` and `state.step` instead.
        """
        raise NotImplementedError

    def update_task_state(self, state: TrainState, carry: dict[str, Mean]) -> Tree:
        """The next `task_state`; called after the optimizer, so `state.params` are the new ones."""
        del carry
        return state.task_state

    def variables(self, state: TrainState) -> Variables:
        """Averaged parameters by default; a task with a moving teacher returns the teacher's."""
        return state.variables(averaged=True)

    def predict(self, variables: Variables, batch: Batch, rng: jax.Array) -> Outputs:
        raise NotImplementedError

    def diagnose(self, metrics: Mapping[str, float]) -> list[str]:
        """What a log line's metrics say has gone wrong: a sentence each, with what to change."""
        del metrics
        return []


StepFn = Callable[[TrainState, Batch], tuple[TrainState, dict[str, Mean]]]
