"""Schedules against closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.errors import InputError
from vit_jax.train import optimizer

STEPS, WARMUP, PEAK, END = 100, 10, 2.0, 0.5


def rate(schedule, **settings):
    ends = schedule in ("cosine", "linear") or settings.get("cooldown_steps")
    settings = dict(end_learning_rate=END if ends else None, warmup_steps=WARMUP) | settings
    build = functools.partial(optimizer.build, num_steps=STEPS, learning_rate=PEAK)
    return build(schedule=schedule, **settings).learning_rate


def values(schedule, steps, **settings):
    return [float(rate(schedule, **settings)(t)) for t in steps]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "rsqrt", "constant"])
def test_warmup_rises_linearly_from_zero_to_the_peak(schedule):
    np.testing.assert_allclose(values(schedule, [0, 1, 5, 10]), [0, 0.2, 1, PEAK], rtol=1e-6)
    assert values(schedule, [0], warmup_steps=0) == [PEAK]


@pytest.mark.parametrize(
    "schedule, middle, later, end",
    [
        ("cosine", (PEAK + END) / 2, END + (PEAK - END) * (1 + np.cos(0.9 * np.pi)) / 2, END),
        ("linear", (PEAK + END) / 2, END + (PEAK - END) * 0.1, END),
        ("constant", PEAK, PEAK, PEAK),
    ],
)
def test_values_at_middle_and_end(schedule, middle, later, end):
    """Of the 90 steps after the warm-up: at 45, at 81, at 90, and beyond."""
    found = values(schedule, [55, 91, 100, 150])
    np.testing.assert_allclose(found, [middle, later, end, end], rtol=1e-5)


def test_rsqrt_falls_with_the_root_of_the_steps_after_warmup():
    found = values("rsqrt", [10, 40, 100], timescale=10)
    np.testing.assert_allclose(found, [PEAK, PEAK / 2, PEAK / np.sqrt(10)], rtol=1e-6)
    found = values("rsqrt", [10, 40], warmup_steps=0)  # arXiv:2106.04560's 10,000
    np.testing.assert_allclose(found, PEAK / np.sqrt([1.001, 1.004]), rtol=1e-6)


@pytest.mark.parametrize("schedule", ["rsqrt", "constant"])
def test_cooldown_ramps_linearly_to_the_end_value(schedule):
    settings = dict(timescale=10) if schedule == "rsqrt" else {}
    plain = functools.partial(values, schedule, **settings)
    steps = [10, 79, 80, 90, 95, 100, 120]
    left = np.array([1, 1, 1, 0.5, 0.25, 0, 0])
    without = np.array(plain(steps, end_learning_rate=None))
    expected = END + (without - END) * left
    np.testing.assert_allclose(plain(steps, cooldown_steps=20), expected, rtol=1e-6)
    assert plain([100], cooldown_steps=20) == [END]


def test_rate_can_be_traced():
    schedule = rate("cosine")
    np.testing.assert_allclose(jax.jit(schedule)(jnp.int32(37)), schedule(37), rtol=1e-6)


# what the rate owes to the batch


@pytest.mark.parametrize(
    "scaling, factor",
    [(None, 4.0), ("linear", 4.0), ("sqrt", 2.0)],
    ids=["default", "linear", "sqrt"],
)
def test_the_peak_follows_the_batch_and_the_end_does_not(scaling, factor):
    """arXiv:1706.02677 and arXiv:2205.10287; as MAE and DINO, whose least rate is as it stands."""
    sizes = dict(batch_size=1024, reference_batch_size=256, batch_scaling=scaling)
    found = values("cosine", [10, 100], **sizes)
    np.testing.assert_allclose(found, [factor * PEAK, END], rtol=1e-6)
    (alone,) = values("cosine", [10], batch_size=1024)
    assert alone == PEAK


def test_a_warmup_in_epochs_is_as_long_as_they_are():
    whole = dict(warmup_steps=0, warmup_epochs=2.5, num_examples=1000, batch_size=100)
    np.testing.assert_allclose(
        values("cosine", [0, 5, 25], **whole), [0, PEAK / 5, PEAK], rtol=1e-6
    )


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(batch_scaling="sqrt"), "batch_scaling is 'sqrt', but from which .*reference_batch_s"),
        (dict(reference_batch_size=0), "reference_batch_size is 0; allowed: 1 or more"),
        (
            dict(reference_batch_size=256, batch_scaling="cubic"),
            "batch_scaling is 'cubic'; allowed: linear, sqrt",
        ),
        (dict(warmup_epochs=1.0), "warmup_steps=10 and warmup_epochs=1.0; allowed: one of them"),
        (dict(warmup_steps=0, warmup_epochs=-1.0), "warmup_epochs is -1.0; allowed: 0 or more"),
        (dict(warmup_steps=0, warmup_epochs=20.0), "has 200 warm-up and 0 cooldown"),
    ],
)
def test_mistakes_about_the_batch_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        rate("cosine", batch_size=100, num_examples=1000, **settings)
