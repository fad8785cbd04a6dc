"""Log lines hold merged means, and the first step that broke is the one that is told."""

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.core import Mean
from vit_jax.train.logger import NonFinite, RunLogger, sum_means
from vit_jax.train.profiling import StepTrace


class Lines:
    """A sink that remembers."""

    def __init__(self):
        self.written, self.is_closed = [], False

    def write(self, step, values):
        self.written.append((step, dict(values)))

    def close(self):
        self.is_closed = True


def logger_to(*sinks, **changed):
    settings = dict(start_step=0, every_steps=4, batch_size=8, learning_rate=lambda t: 10.0 * t)
    return RunLogger(sinks, **settings | changed)


def metrics(loss, weight=1.0, norm=1.0, **more):
    means = {"loss": (loss * weight, weight), "gradient_norm": (norm, 1.0), **more}
    return {name: Mean(jnp.float32(t), jnp.float32(w)) for name, (t, w) in means.items()}


def test_line_holds_the_mean_over_examples_not_over_steps():
    lines = Lines()
    logger = logger_to(lines)
    logger.record(metrics(1.0, 6, top1=(3, 6)))
    logger.record(metrics(4.0, 2, top1=(2, 2)))
    logger.flush(2)
    ((step, values),) = lines.written
    assert step == 2
    assert values["train/loss"] == (6 * 1 + 2 * 4) / 8
    assert values["train/top1"] == 5 / 8
    assert all(type(value) is float for value in values.values())


def test_each_line_covers_the_steps_since_the_last():
    lines = Lines()
    logger = logger_to(lines, start_step=10)
    for step in range(11, 17):
        logger.record(metrics(float(step)))
        if step % 3 == 0:
            logger.flush(step)
    assert [(step, values["train/loss"]) for step, values in lines.written] == [
        (12, 11.5),
        (15, 14),
    ]


def test_flush_without_new_steps_writes_nothing():
    lines = Lines()
    logger = logger_to(lines)
    logger.flush(0)
    logger.record(metrics(1.0))
    logger.flush(1)
    logger.flush(1)
    assert len(lines.written) == 1


def test_learning_rate_is_that_of_the_last_step():
    """The schedule counts the steps done before: step 3 was made with rate(2)."""
    lines = Lines()
    logger = logger_to(lines)
    logger.record(metrics(1.0))
    logger.flush(3)
    assert lines.written[0][1]["train/learning_rate"] == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", ["loss", "gradient_norm"])
def test_first_step_that_is_not_finite_is_told(which, bad):
    lines = Lines()
    logger = logger_to(lines, start_step=20)
    for step in range(21, 27):
        broken = bad if step >= 24 else 1.0
        logger.record(metrics(broken) if which == "loss" else metrics(1.0, norm=broken))
        if step == 22:
            logger.flush(22)
    with pytest.raises(NonFinite, match=rf"step 24: .*{which} = ") as error:
        logger.flush(26)
    assert error.value.step == 24
    assert error.value.values.keys() == {"loss", "gradient_norm"}
    assert not np.isfinite(error.value.values[which])
    assert [step for step, _ in lines.written] == [22]  # nothing of the broken steps


@pytest.mark.filterwarnings("ignore:invalid value encountered")  # 0 / 0 is meant
def test_other_metrics_may_be_nan():
    lines = Lines()
    logger = logger_to(lines)
    logger.record(metrics(1.0, auc=(0, 0)))
    logger.flush(1)
    assert np.isnan(lines.written[0][1]["train/auc"])


def test_batch_without_a_valid_row_does_not_end_the_run():
    """Its gradient is zero, see the step; its loss counts for nothing."""
    lines = Lines()
    logger = logger_to(lines)
    logger.record(metrics(2.0, 3))
    logger.record(metrics(0.0, 0, norm=0.0))
    logger.flush(2)
    assert lines.written[0][1]["train/loss"] == 2


def test_speed_counts_images_and_leaves_evaluation_and_saves_out(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("vit_jax.train.logger.time.perf_counter", lambda: now[0])
    lines = Lines()
    logger = logger_to(lines, batch_size=16, utilisation=lambda rate: rate / 100)

    def spend(what, seconds):
        with logger.timing(what):
            now[0] += seconds

    for _ in range(2):
        spend("data", 1.0)
        spend("evaluation", 100.0)
        spend("checkpoint", 50.0)
        spend("profile", 25.0)
        spend("device", 2.0)
        now[0] += 1.0  # unnamed
        logger.record(metrics(1.0))
        logger.record(metrics(1.0))
        logger.flush(2)
    for _, values in lines.written:
        assert values["speed/images_per_second"] == pytest.approx(2 * 16 / 4)
        assert values["speed/images_per_second_per_device"] == pytest.approx(1)
        assert values["speed/data_share"] == pytest.approx(1 / 4)
        assert values["speed/device_share"] == pytest.approx(2 / 4)
        assert values["speed/host_share"] == pytest.approx(1 / 4)
        assert values["speed/mfu"] == pytest.approx(0.08)


def test_utilisation_is_left_out_where_the_peak_is_unknown():
    lines = Lines()
    logger = logger_to(lines)
    logger.record(metrics(1.0))
    logger.flush(1)
    assert "speed/mfu" not in lines.written[0][1]


def test_all_sinks_get_every_line_and_are_closed():
    sinks = Lines(), Lines()
    logger = logger_to(*sinks)
    logger.record(metrics(1.0))
    logger.flush(1)
    logger.write(1, {"test/loss": 2.0})
    logger.close()
    assert sinks[0].written == sinks[1].written and len(sinks[0].written) == 2
    assert sinks[0].is_closed and sinks[1].is_closed


def test_due_steps():
    assert [step for step in range(1, 13) if logger_to().is_due(step)] == [4, 8, 12]


def test_long_sums_stay_exact():
    """2^24 + 1 has no float32."""
    weights = [2**24, 2**24, 2**24, 1]
    means = [Mean(np.float32(weight), np.float32(weight)) for weight in weights]
    assert int(sum_means(means).total) == 3 * 2**24 + 1
    assert int(sum_means(means).weight) == 3 * 2**24 + 1


def test_memory_is_on_every_line_and_compiling_on_the_first_alone():
    lines = Lines()
    logger = logger_to(lines, once={"speed/compile_seconds": 1.5})
    for step in range(1, 4):
        logger.record(metrics(1.0))
        logger.flush(step)
    found = [values for _, values in lines.written]
    assert [values.get("speed/compile_seconds") for values in found] == [1.5, None, None]
    marks = [values["memory/host_peak_bytes"] for values in found]
    assert marks == sorted(marks) and marks[0] > 0


class Trace(StepTrace):
    """Records what the logger asks of a trace of steps 2 and 3."""

    def __init__(self):
        self.begun, self.is_closed = [], False

    def ends_before(self, step):
        return step == 4

    def begin(self, step):
        self.begun.append(step)

    def close(self):
        self.is_closed = True


def test_a_trace_is_told_of_each_step_and_ends_when_its_last_is_computed(monkeypatch):
    waited = []
    wait = lambda pending: waited.append(len(pending))  # noqa: E731
    monkeypatch.setattr("vit_jax.train.logger.jax.block_until_ready", wait)
    trace = Trace()
    logger = logger_to(Lines(), trace=trace)
    for step in range(1, 6):
        logger.begin(step)
        assert waited == ([3] if step >= 4 else [])
        logger.record(metrics(float(step)))
    assert trace.begun == [1, 2, 3, 4, 5]
    logger.close()
    assert trace.is_closed
