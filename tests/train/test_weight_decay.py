"""Which parameters decay, and how the decay changes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizing import GRADIENTS, PARAMS, assert_equal_each_step, build, float32, train

from vit_jax.errors import InputError
from vit_jax.train import optimizer, patterns, weight_decay


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_first_decay_pattern_that_matches_wins(name):
    # Lists, not tuples, as a stored config has them.
    rules = [["dense/.*", False], [".*(kernel|scale)", True], [".*", False]]
    settings = dict(name=name, weight_decay=0.3)
    found, _ = train(decay_patterns=rules, **settings)
    plain, _ = train(name=name)
    np.testing.assert_array_equal(found[0]["dense"]["kernel"], plain[0]["dense"]["kernel"])
    np.testing.assert_allclose(
        found[0]["norm"]["scale"],
        plain[0]["norm"]["scale"] - 0.1 * 0.3 * PARAMS["norm"]["scale"],
        rtol=1e-5,
    )


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_decay_pattern_may_have_a_factor(name):
    rules = [("dense/kernel", 2.5), (".*", False)]
    found, _ = train(name=name, weight_decay=0.3, decay_patterns=rules)
    expected, _ = train(
        name=name, weight_decay=0.75, decay_patterns=[("dense/kernel", True), (".*", False)]
    )
    assert_equal_each_step(found, expected)


@pytest.mark.parametrize("factor", [-1, "kernel", float("nan"), None])
def test_decay_factors_are_0_or_more(factor):
    with pytest.raises(InputError, match="decay_patterns has .* for '.x'; allowed: 0 or more"):
        train(decay_patterns=[(".x", factor)], weight_decay=0.1)


def test_parameter_that_no_decay_pattern_matches_is_an_error():
    with pytest.raises(InputError, match="decay_patterns: no pattern matches 'norm/scale'"):
        train(decay_patterns=[("dense/.*", True)], weight_decay=0.1)


@pytest.mark.parametrize(
    "path, decays",
    [
        ("encoder/blocks/attention/query/kernel", True),
        ("kernel", True),
        ("head/kernel", True),
        ("head/bias", False),
        ("class_token", False),
        ("position_embedding", False),
        ("encoder/norm/scale", False),
        ("pool/probe", False),
    ],
)
def test_matrices_decay_by_default_and_nothing_else(path, decays):
    assert patterns.match(weight_decay.DECAY_KERNELS, path, where="") is decays


# a decay that changes

START, END, STEPS = 0.04, 0.4, 4


def dino_schedule():
    """The loop of DINO's `cosine_scheduler` over the run's steps."""
    return [END + 0.5 * (START - END) * (1 + np.cos(np.pi * i / STEPS)) for i in range(STEPS)]


def scheduled(**settings):
    return train(weight_decay=START, end_weight_decay=END, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        dict(name="adamw", eps=1e-3),
        dict(name="sgd", momentum=0.7),
        dict(name="lars", trust_coefficient=0.1),
        dict(name="adamw", eps=1e-3, rate_patterns=[("norm/.*", 0), ("dense/.*", 0.25), (".*", 1)]),
        dict(name="sgd", clip_norm=0.5, decay_patterns=[("dense/.*", 2.0), (".*", False)]),
    ],
    ids=["adamw", "sgd", "lars", "factors", "patterns"],
)
def test_each_step_decays_as_by_the_loop(settings):
    """Steps with the decay of the schedule equal steps of optimizers with a constant one."""
    found, _ = scheduled(**settings)
    params, states = float32(PARAMS), None
    for step, decay in enumerate(dino_schedule()[: len(GRADIENTS)]):
        tx = build(weight_decay=decay, **settings)
        states = tx.init(params) if states is None else states
        updates, states = tx.update(float32(GRADIENTS[step]), states, params)
        params = optax.apply_updates(params, updates)
        assert_equal_each_step([found[step]], [params])
    constant, _ = train(weight_decay=START, **settings)
    assert np.abs(constant[-1]["dense"]["kernel"] - found[-1]["dense"]["kernel"]).max() > 1e-4


def test_layers_decay_at_their_own_rates():
    """A decay of the rate by depth scales that of the weights with it."""
    params = {"encoder": {"blocks": {"kernel": jnp.ones((2, 3, 3))}}}
    settings = dict(num_steps=STEPS, learning_rate=1.0, schedule="constant", name="sgd")
    tx = optimizer.build(
        weight_decay=START, end_weight_decay=END, layer_decay=0.5, momentum=0.0, **settings
    ).transform
    state = tx.init(params)
    for decay in dino_schedule():
        zeros = jax.tree.map(jnp.zeros_like, params)
        updates, state = tx.update(zeros, state, params)
        found = updates["encoder"]["blocks"]["kernel"][:, 0, 0]
        np.testing.assert_allclose(found, [-0.25 * decay, -0.5 * decay], rtol=1e-6)


def test_the_end_of_a_decay_is_0_or_more():
    with pytest.raises(InputError, match="end_weight_decay is -0.1; allowed: 0 or more"):
        train(weight_decay=0.1, end_weight_decay=-0.1)
