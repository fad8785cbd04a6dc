"""The training loop: the only `for step` in the repository."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import jax
from jax.experimental import multihost_utils

from vit_jax.core import Batch, StepFn, TrainState
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.logger import NonFinite, RunLogger
from vit_jax.train.preemption import Preempted

# Steps the host may run ahead of the devices. One would let them idle between steps; more only
# keeps more batches in device memory.
MAX_IN_FLIGHT = 2


@runtime_checkable
class Evaluator(Protocol):
    def is_due(self, step: int, *, is_last: bool) -> bool: ...

    def run(
        self, state: TrainState, *, stop_requested: Callable[[], bool]
    ) -> Mapping[str, float] | None:
        """Metrics by name, e.g. {'validation/top1': 0.98}; None if stopped before the end."""
        ...


def fit(
    step_fn: StepFn,
    state: TrainState,
    data: Callable[[int], Iterator[Batch]],
    *,
    evaluators: Sequence[Evaluator],
    checkpointer: Checkpointer,
    logger: RunLogger,
    num_steps: int,
    evaluated: Mapping[str, float] | None = None,
    stop_requested: Callable[[], bool] = lambda: False,
) -> tuple[TrainState, dict[str, float]]:
    """Trains from `state.step` to `num_steps`; returns the state and the last evaluation.

    Args:
      step_fn: jitted; may donate the state.
      data: `data(step)` yields the batches of step, step + 1, ... on the devices.
      evaluators, checkpointer, logger: say themselves when they are due.
      evaluated: what the evaluators found of the given state, where they have seen it already.
      stop_requested: asked after each step and during evaluations; True saves, leaves what
        evaluation is due to the run that continues, and raises `Preempted`.

    Raises:
      NonFinite: when loss, gradient or parameters are NaN or infinite; no such state is saved.
    """

    def evaluate(step: int) -> dict[str, float] | None:
        results: dict[str, float] = {}
        for evaluator in evaluators:
            if not evaluator.is_due(step, is_last=step == num_steps):
                continue
            with logger.timing("evaluation"):
                found = evaluator.run(state, stop_requested=stop_requested)
            if found is None:
                return None
            results |= found
        if results:
            logger.write(step, results)
        return results

    start, in_flight = int(state.step), collections.deque()
    results = dict(evaluated or {})
    if start and not results:  # it was stopped before its evaluation
        results = evaluate(start)
        if results is None:
            raise Preempted(start)
    batches = data(start)
    for step in range(start + 1, num_steps + 1):
        with logger.timing("data"):
            batch = next(batches)
        state, metrics = step_fn(state, batch)
        logger.record(metrics)
        in_flight.append(metrics)
        if len(in_flight) > MAX_IN_FLIGHT:
            with logger.timing("device"):
                jax.block_until_ready(in_flight.popleft())

        is_last, is_stop = step == num_steps, stop_requested()
        evaluates = any(evaluator.is_due(step, is_last=is_last) for evaluator in evaluators)
        saves = checkpointer.is_due(step) or is_last
        if evaluates or saves or is_stop or logger.is_due(step):
            try:
                logger.flush(step)  # before a save, so that a broken state is never kept
            except NonFinite as error:
                error.examples = example_indices(next(data(error.step - 1)))
                raise
        # Evaluation precedes saving, so that a checkpoint is kept or dropped by its own score;
        # but who asks to stop may not wait that long.
        results = {}
        if evaluates and not is_stop:
            found = evaluate(step)
            is_stop, results = found is None, found or {}
        if saves or is_stop:
            with logger.timing("checkpoint"):
                checkpointer.save(step, state, results)
        if is_stop and not (is_last and not evaluates):
            checkpointer.wait()
            raise Preempted(step)
    checkpointer.wait()
    return state, results


def example_indices(batch: Batch) -> list[int]:
    """Positions in the data set of a global batch's rows, those of other hosts included."""
    return multihost_utils.process_allgather(batch["index"], tiled=True).tolist()
