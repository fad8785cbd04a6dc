"""Rates are images over the time that was waited for, by a clock that the test moves."""

import numpy as np
import pytest
from toys import empty_state

from vit_jax.errors import InputError
from vit_jax.evaluation.throughput import Throughput, ThroughputEvaluator

SECONDS = {"read": 0.3, "compute": 0.2}


class World:
    """A clock that reading and computing move; the first calls take longer."""

    def __init__(self):
        self.now, self.computed, self.read = 0.0, 0, 0

    def batches(self):
        for _ in range(3):
            self.now += SECONDS["read"]
            self.read += 1
            yield {"number": np.zeros(1)}

    def forward(self, state, batch):
        self.computed += 1
        self.now += SECONDS["compute"] * (100 if self.computed == 1 else 1)
        return np.zeros(2)

    def evaluator(self, **changed):
        settings = Throughput(repetitions=4, calls=6, warm_up=1)
        given = dict(name="speed", settings=settings, batch_size=8, num_examples=20)
        return ThroughputEvaluator(
            **(given | changed),
            batches=self.batches,
            forward=self.forward,
            clock=lambda: self.now,
        )


def test_rates_are_those_of_the_clock():
    world, kept = World(), {}
    found = world.evaluator(mfu_of_one=0.01, keep=kept.__setitem__).run(empty_state(3))
    assert found["speed/images_per_second"] == pytest.approx(8 / 0.2)
    # Six batches are the split of 20 twice: 8, 8 and 4.
    assert found["speed/images_per_second_with_data"] == pytest.approx(40 / (6 * 0.5))
    assert found["speed/mfu"] == pytest.approx(0.4)
    assert world.computed == 2 * 5 * 6
    report = kept["speed"]
    assert len(report.tables["images_per_second"]["repetitions"]) == 4
    assert report.about["step"] == 3 and report.about["batch_size"] == 8


def test_spread_is_that_of_the_repetitions():
    world = World()
    world.forward = lambda state, batch: setattr(world, "now", world.now + 1 + world.now / 1e3)
    kept = {}
    world.evaluator(keep=kept.__setitem__).run(empty_state(0))
    table = kept["speed"].tables["images_per_second"]
    assert table["lower_quartile"] < table["median"] < table["upper_quartile"]
    interval = kept["speed"].intervals["images_per_second"]
    assert interval.low <= table["median"] <= interval.high


def test_names_are_told_before_and_mfu_where_the_peak_is_known():
    world = World()
    found = world.evaluator().run(empty_state(0))
    names = world.evaluator().metric_names(None)
    assert list(found) == [f"speed/{name}" for name in names] and "mfu" not in names
    assert "mfu" in world.evaluator(mfu_of_one=1e-9).metric_names(None)


def test_stop_is_asked_for_after_each_repetition():
    asked = []
    stop = lambda: asked.append(1) or len(asked) == 3  # noqa: E731
    assert World().evaluator().run(empty_state(0), stop_requested=stop) is None
    assert len(asked) == 3


@pytest.mark.parametrize("name", ["repetitions", "calls", "warm_up"])
def test_nothing_is_no_measurement(name):
    with pytest.raises(InputError, match=f"throughput.{name} is 0"):
        Throughput(**{name: 0})
