"""From the metrics of each step to lines in the run's log.

Metrics stay on the devices between two log lines, so logging costs no waiting; at each line
they are fetched together, checked for NaN step by step, and merged as the `Mean`s they are.
"""

import collections
import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from vit_jax.core import Mean
from vit_jax.train.sinks import Sink

# Non-finite values of these mean that the parameters are, or are about to be, lost. The norm of
# the updated parameters is among them, so a step that passes left a state that is finite.
WATCHED = ("loss", "gradient_norm", "update_norm", "parameter_norm")


class NonFinite(Exception):
    """A watched metric was not finite; `examples` are the batch's positions in the data set."""

    on_every_host = True  # metrics are the same everywhere

    def __init__(self, step: int, values: Mapping[str, float]):
        bad = ", ".join(f"{name} = {value}" for name, value in values.items())
        super().__init__(f"step {step}: {bad}")
        self.step, self.values, self.examples = step, dict(values), []


class RunLogger:
    """Collects the metrics of each step and writes their means every `every_steps`.

    Args:
      sinks: where each line goes.
      start_step: optimizer steps already done.
      every_steps: steps between lines.
      batch_size: examples of a global batch.
      learning_rate: steps done -> learning rate.
      utilisation: images/s -> model FLOPs utilisation, where the devices' peak is known.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        start_step: int,
        every_steps: int,
        batch_size: int,
        learning_rate: Callable[[int], float],
        utilisation: Callable[[float], float] | None = None,
    ):
        self._sinks, self._every = sinks, every_steps
        self._batch_size, self._rate = batch_size, learning_rate
        self._utilisation = utilisation
        self._flushed, self._pending = start_step, []
        self._seconds: dict[str, float] = collections.defaultdict(float)
        self._since = time.perf_counter()

    def is_due(self, step: int) -> bool:
        return step % self._every == 0

    @contextlib.contextmanager
    def timing(self, what: str) -> Iterator[None]:
        """Counts the seconds spent inside under `what`: data, device, evaluation, checkpoint."""
        start = time.perf_counter()
        yield
        self._seconds[what] += time.perf_counter() - start

    def record(self, metrics: Mapping[str, Mean]) -> None:
        """Takes the metrics of one step, without waiting for them."""
        self._pending.append(metrics)

    def flush(self, step: int) -> None:
        """Writes the mean of the steps since the last line.

        Raises:
          NonFinite: for the first step whose loss, gradient or parameters were not finite.
        """
        if not self._pending:
            return
        with self.timing("device"):
            fetched = jax.device_get(self._pending)
        self._pending = []
        for i, metrics in enumerate(fetched):
            # A batch without a valid row has a loss of 0 / 0, but its gradient is zero.
            counted = [name for name in WATCHED if name in metrics and metrics[name].weight != 0]
            watched = {name: float(metrics[name].compute()) for name in counted}
            if not all(map(math.isfinite, watched.values())):
                raise NonFinite(self._flushed + i + 1, watched)
        merged = {name: sum_means([m[name] for m in fetched]) for name in fetched[0]}
        values = {f"train/{name}": float(mean.compute()) for name, mean in merged.items()}
        values["train/learning_rate"] = float(self._rate(step - 1))
        self.write(step, values | self._speed(len(fetched)))
        self._flushed = step

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for sink in self._sinks:
            sink.write(step, values)

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()

    def _speed(self, num_steps: int) -> dict[str, float]:
        """Images per second and where a training second goes; evaluation and saves not counted."""
        now = time.perf_counter()
        away = self._seconds["evaluation"] + self._seconds["checkpoint"]
        seconds = max(now - self._since - away, 1e-9)
        images = num_steps * self._batch_size / seconds
        data, device = self._seconds["data"] / seconds, self._seconds["device"] / seconds
        values = {
            "speed/images_per_second": images,
            "speed/images_per_second_per_device": images / jax.device_count(),
            # Waiting for the next batch, for the devices, and Python's own work in between.
            "speed/data_share": data,
            "speed/device_share": device,
            "speed/host_share": max(1 - data - device, 0.0),
        }
        if self._utilisation is not None:
            values["speed/mfu"] = self._utilisation(images)
        self._since = now
        self._seconds.clear()
        return values


def sum_means(means: Sequence[Mean]) -> Mean:
    """Merges on the host; in float64, so that long runs of counts stay exact."""
    total = np.sum([mean.total for mean in means], dtype=np.float64)
    return Mean(total, np.sum([mean.weight for mean in means], dtype=np.float64))
