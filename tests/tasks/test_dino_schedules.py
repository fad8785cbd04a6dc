"""Momentum, temperature and freezing, against the public code's lists, and the batch rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.tasks.dino_schedules import DinoSchedules

RECIPE = dict(
    num_steps=40,
    steps_per_epoch=4.0,
    momentum=0.996,
    end_momentum=1.0,
    teacher_temperature=0.07,
    warmup_teacher_temperature=0.04,
    temperature_warmup_epochs=3.0,
    freeze_last_layer_epochs=1.5,
)


def values(method, **changed):
    function = getattr(DinoSchedules(**{**RECIPE, **changed}), method)
    return np.asarray(jax.jit(jax.vmap(function))(jnp.arange(40)))


def test_momentum_is_half_a_cosine_over_the_run():
    expected = [1 - 0.004 * (1 + np.cos(np.pi * t / 40)) / 2 for t in range(40)]
    np.testing.assert_allclose(values("teacher_momentum"), expected, rtol=1e-6)


@pytest.mark.parametrize("ratio", [0.25, 4.0])
def test_momentum_follows_the_ema_scaling_rule(ratio):
    """Steps of small batches leave as much of the old teacher as one of a large batch."""
    once, often = values("teacher_momentum"), values("teacher_momentum", batch_ratio=ratio)
    np.testing.assert_allclose(often ** (1 / ratio), once, rtol=1e-5)


@pytest.mark.parametrize("epochs", [0.0, 0.25, 3.0])
def test_temperature_rises_in_a_line_and_stays(epochs):
    steps = round(4 * epochs)
    rising = np.linspace(0.04, 0.07, steps) if steps > 1 else np.full(steps, 0.07)
    expected = np.concatenate([rising, np.full(40 - steps, 0.07)])
    found = values("temperature", temperature_warmup_epochs=epochs)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "batch_size, expected",
    [(4096, 0.07), (1024, 0.07), (724, 0.055), (512, 0.04), (64, 0.04)],
)
def test_the_temperature_s_rule_meets_both_public_recipes(batch_size, expected):
    found = DinoSchedules(**RECIPE, batch_ratio=batch_size / 1024).final_temperature
    np.testing.assert_allclose(found, expected, rtol=1e-3)


def test_the_last_layer_is_frozen_for_one_and_a_half_epochs():
    assert values("is_last_layer_frozen").tolist() == [True] * 6 + [False] * 34
    assert not values("is_last_layer_frozen", freeze_last_layer_epochs=0.0).any()
