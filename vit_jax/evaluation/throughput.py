"""How many images a model takes in a second: the forward pass alone, and with the data.

Alone: the split's first batch stays on the devices and is computed again and again, several calls
behind one another, as an accelerator is kept busy. With data: batches are read, decoded, moved and
computed one by one, as evaluations do it. Each repetition is timed by itself; what is told is their
median, with quartiles, after repetitions that do not count: they compile and fill the read-ahead.
The first computation of a process or of an accelerator that was idle is slower, and so is a machine
that others use: the spread shows it.

The measure is that of timm's `benchmark.py`: images over the wall time of calls whose results were
waited for.
"""

import dataclasses
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from vit_jax import sections
from vit_jax.core import Batch, TrainState, Tree
from vit_jax.evaluation.bootstrap import interval_of
from vit_jax.evaluation.protocol import Interval, Report
from vit_jax.evaluation.runner import Scheduled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """Keys of an evaluation whose protocol is `throughput`.

    Attributes:
      repetitions: timings of which the median is told.
      calls: batches of a repetition.
      warm_up: repetitions before, which do not count.
    """

    repetitions: int = 10
    calls: int = 5
    warm_up: int = 2

    def __post_init__(self):
        for name in ("repetitions", "calls", "warm_up"):
            sections.positive_int(getattr(self, name), f"throughput.{name}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ThroughputEvaluator(Scheduled):
    """Times a state's forward pass.

    Attributes:
      settings: what is repeated how often.
      batches: makes the batches of the split on the devices.
      batch_size: rows of a batch.
      num_examples: of the split.
      forward: the compiled forward pass.
      mfu_of_one: share of the devices' peak that one image a second takes; None where the peak is
        not known.
      keep: see `ProtocolEvaluator`.
      clock: seconds.
    """

    settings: Throughput
    batches: Callable[[], Iterable[Batch]]
    batch_size: int
    num_examples: int
    forward: Callable[[TrainState, Batch], Tree]
    mfu_of_one: float | None = None
    keep: Callable[[str, Report], None] = lambda name, report: None
    clock: Callable[[], float] = time.perf_counter

    def metric_names(self, state: Tree) -> list[str]:
        del state
        names = ["images_per_second", "images_per_second_with_data"]
        return names if self.mfu_of_one is None else [*names, "mfu"]

    def run(
        self, state: TrainState, *, stop_requested: Callable[[], bool] = lambda: False
    ) -> dict[str, float] | None:
        """{'name/images_per_second': ..., ...}; None if stopped, asked after each repetition."""
        state = state.replace(opt_state=())
        timings = {"images_per_second": self._alone, "images_per_second_with_data": self._with_data}
        rates: dict[str, np.ndarray] = {}
        for name, repetitions in timings.items():
            found = []
            for rate in itertools.islice(repetitions(state), self._number):
                found.append(rate)
                if stop_requested():
                    return None
            rates[name] = np.asarray(found[self.settings.warm_up :])
        report = self._report(state, rates)
        self.keep(self.name, report)
        return {f"{self.name}/{name}": value for name, value in report.metrics.items()}

    @property
    def _number(self) -> int:
        return self.settings.warm_up + self.settings.repetitions

    def _alone(self, state: TrainState) -> Iterator[float]:
        """Images/s of each repetition, without end; padding does not count."""
        batch = next(iter(self.batches()))
        while True:
            began = self.clock()
            found = [self.forward(state, batch) for _ in range(self.settings.calls)]
            jax.block_until_ready(found)
            yield self.settings.calls * self._sizes()[0] / (self.clock() - began)

    def _with_data(self, state: TrainState) -> Iterator[float]:
        """The same; the split is begun anew as often as needed, and padding does not count."""
        sizes, batches = itertools.cycle(self._sizes()), self._endless()
        while True:
            began, number = self.clock(), 0
            for batch in itertools.islice(batches, self.settings.calls):
                jax.block_until_ready(self.forward(state, batch))
                number += next(sizes)
            yield number / (self.clock() - began)

    def _endless(self) -> Iterator[Batch]:
        while True:
            yield from self.batches()

    def _sizes(self) -> list[int]:
        """Examples of each batch of the split."""
        size, number = self.batch_size, self.num_examples
        return [min(size, number - k * size) for k in range(math.ceil(number / size))]

    def _report(self, state: TrainState, rates: dict[str, np.ndarray]) -> Report:
        metrics = {name: float(np.median(values)) for name, values in rates.items()}
        intervals = {name: interval_of(np.median, values) for name, values in rates.items()}
        if self.mfu_of_one is not None:
            metrics["mfu"] = metrics["images_per_second"] * self.mfu_of_one
            ends = (x * self.mfu_of_one for x in intervals["images_per_second"])
            intervals["mfu"] = Interval(*ends)
        device = jax.devices()[0]
        about = {
            "step": int(state.step),
            "batch_size": self.batch_size,
            "devices": f"{jax.device_count()} x {device.device_kind}",
            "settings": dataclasses.asdict(self.settings),
        }
        tables = {name: spread(values) for name, values in rates.items()}
        return Report(metrics=metrics, intervals=intervals, tables=tables, about=about)


def spread(values: Float[np.ndarray, " n"]) -> dict[str, Any]:
    """Median and quartiles of repeated timings, and each of them."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {
        "median": float(median),
        "lower_quartile": float(low),
        "upper_quartile": float(high),
        "repetitions": values.tolist(),
    }
