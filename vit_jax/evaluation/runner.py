"""What evaluates during training and after it: a task's own metrics, or a protocol's.

Either scores each example of a split exactly once. A third, of another kind, is in throughput.py.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jaxtyping import Array

from vit_jax.core import Batch, Mean, Task, TrainState, Tree
from vit_jax.errors import InputError
from vit_jax.evaluation.passes import Lazy, Passes, Stopped
from vit_jax.evaluation.protocol import (
    TEST,
    Protocol,
    Report,
    Request,
    SplitOutputs,
    check_unique,
)

COUNTS = ("examples", "unreadable", "scored")  # which metrics may not be called


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scheduled:
    """What is measured now and then during training.

    Attributes:
      name: prefix of the metrics, e.g. 'test'.
      every_steps: steps between evaluations; 0 for after the last step only.
    """

    name: str
    every_steps: int = 0

    def is_due(self, step: int, *, is_last: bool) -> bool:
        return is_last or (bool(self.every_steps) and step % self.every_steps == 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluator(Scheduled):
    """Scores a state on one split; with the averaged weights where the run keeps them.

    Attributes (besides those of `Scheduled`):
      batches: makes the batches of the split on the devices; padding has `mask` False.
      num_examples: of the split, to be compared with what was scored.
      abstract_batch: shapes and types of a batch.
      compile: `jax.jit`, or the learner's, which knows where and how to compute.
    """

    task: Task
    batches: Callable[[], Iterable[Batch]]
    num_examples: int
    abstract_batch: Tree = None
    compile: Callable[[Callable[..., Any]], Callable[..., Any]] = jax.jit

    def __post_init__(self):
        object.__setattr__(self, "_step", self.compile(self._score))

    def metric_names(self, state: Tree) -> list[str]:
        """'loss', 'top1', ...: what `run` measures, told from shapes alone."""
        return list(jax.eval_shape(self._metrics, state, self.abstract_batch))

    def run(
        self, state: TrainState, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """{'name/loss': ..., 'name/top1': ..., and the counts below}.

        Of `name/examples`, `name/scored` count in the loss; the rest are `name/unreadable`, which
        `skip_bad_examples` let by, or have nothing to be scored by, such as no label at all.
        None as soon as `stop_requested()`, which is asked after each batch.
        """
        # The optimizer's moments are not needed, and need not travel into the compiled call.
        state = state.replace(opt_state=(), params=state.variables(averaged=True)["params"])
        totals: dict[str, Mean] = {}
        unreadable = 0
        for batch in self.batches():
            metrics, num_unreadable = jax.device_get(self._step(state, batch))
            unreadable += int(num_unreadable)
            totals = {n: totals[n] + m if totals else m for n, m in metrics.items()}
            if stop_requested():
                return None
        if not totals:
            raise InputError(f"evaluation {self.name!r} has no examples; allowed: at least one.")
        values = {name: float(mean.compute()) for name, mean in totals.items()}
        values["scored"] = float(totals["loss"].weight)
        values |= {"examples": self.num_examples, "unreadable": unreadable}
        return {f"{self.name}/{name}": value for name, value in values.items()}

    def _metrics(self, state: TrainState, batch: Batch) -> dict[str, Mean]:
        loss, aux = self.task.loss(state.params, state, batch, state.rng, train=False)
        return {"loss": loss, **aux.metrics}

    def _score(self, state: TrainState, batch: Batch) -> tuple[dict[str, Mean], Array]:
        """The metrics of a batch, and how many of its examples could not be read."""
        is_unreadable = ~batch["mask"] & (batch["index"] >= 0)  # padding has no index
        return self._metrics(state, batch), is_unreadable.sum()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProtocolEvaluator(Scheduled):
    """Measures a state by a protocol; with the averaged weights where the run keeps them.

    Attributes (besides those of `Scheduled`):
      protocol: what is measured.
      requests: of the protocol, by role.
      passes: shared by the evaluators of a run, so that a split is gone through once.
      last_step: of the run; None where whoever asks is due.
      keep: takes what was found, e.g. to write it to files.
    """

    protocol: Protocol
    requests: dict[str, Request]
    passes: Passes
    last_step: int | None = None
    keep: Callable[[str, Report], None] = lambda name, report: None

    def __post_init__(self):
        check_unique([*self.protocol.metric_names(), *COUNTS])
        sources = {}
        for role, request in self.requests.items():
            data = self.passes.expect(request, self.protocol.reads, is_due=self._comes)
            self.protocol.check(role, data.spec)
            sources[role] = data.source
        self.protocol.check_sources(sources)

    def metric_names(self, state: Tree) -> list[str]:
        del state
        return self.protocol.metric_names()

    def run(
        self, state: TrainState, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """{'name/METRIC': ...} and the counts of `Evaluator.run`; None if stopped."""
        seen: dict[str, dict[str, Any]] = {}

        def outputs(role: str) -> SplitOutputs:
            request = self.requests[role]
            found = self.passes.outputs(state, request, stop_requested=stop_requested)
            read, number = len(found.index), found.num_examples
            seen[role] = {"data": found.name, "examples": number, "unreadable": number - read}
            return found

        try:
            report = self.protocol.measure(Lazy(outputs, self.requests))
            if TEST in self.requests and TEST not in seen:
                outputs(TEST)
        except Stopped:
            return None
        self.passes.finish(self.requests.values())
        tests = [of_role for role, of_role in seen.items() if role.startswith(TEST)]
        counts = {name: sum(t[name] for t in tests) for name in ("examples", "unreadable")}
        read = counts["examples"] - counts["unreadable"]
        counts["scored"] = read if report.scored is None else report.scored
        about = {"step": int(state.step), "scored": counts["scored"], "splits": seen}
        about["settings"] = dataclasses.asdict(self.protocol)
        self.keep(self.name, dataclasses.replace(report, about=about))
        return {f"{self.name}/{name}": value for name, value in (report.metrics | counts).items()}

    def _comes(self, step: int) -> bool:
        return self.last_step is None or self.is_due(step, is_last=step == self.last_step)
