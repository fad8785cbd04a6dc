"""Optimizers against a few lines of NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizing import DECAYS, GRADIENTS, PARAMS, assert_equal_each_step, train

from vit_jax.errors import InputError
from vit_jax.train import optimizer


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(schedule="step"), "schedule is 'step'.*allowed: cosine, linear, rsqrt, constant"),
        (dict(name="adam"), r"name is 'adam' \(did you mean 'adamw'\?\); allowed: adamw, sgd"),
        (dict(warmup_steps=101), "101 warm-up and 0 cooldown steps; allowed: at most .* = 100"),
        (
            dict(schedule="rsqrt", warmup_steps=60, cooldown_steps=41),
            "60 warm-up and 41 cooldown",
        ),
        (
            dict(cooldown_steps=5),
            "cooldown_steps is 5, but schedule 'cosine' has no such setting; allowed with it: "
            "end_learning_rate",
        ),
        (dict(schedule="linear", cooldown_steps=5), "5, but schedule 'linear' has no such"),
        (dict(timescale=5), "timescale is 5, but schedule 'cosine' has no such"),
        (dict(schedule="constant", timescale=5), "timescale is 5, but schedule 'constant'"),
        (dict(schedule="constant", end_learning_rate=0.1), "nothing leads there; .*cooldown_steps"),
        (dict(schedule="rsqrt", cooldown_steps=-1), "cooldown_steps is -1; allowed: 0 or more"),
        (dict(schedule="rsqrt", timescale=0), "timescale is 0; allowed: 1 or more"),
        (
            dict(momentum=0.8),
            "momentum is 0.8, but name 'adamw' has no .*b1, b2, eps, moment_dtype",
        ),
        (dict(nesterov=True), "nesterov is True, but name 'adamw'"),
        (dict(name="sgd", b2=0.9), "b2 is 0.9, but name 'sgd' has no .*: momentum, nesterov"),
        (dict(b1=1.0), "b1 is 1.0; allowed: 0 or more, less than 1"),
        (dict(name="sgd", momentum=-0.1), "momentum is -0.1; allowed: 0 or more, less than 1"),
        (dict(warmup_steps=-1), "warmup_steps is -1; allowed: 0 or more"),
        (dict(clip_norm=0.0), "clip_norm is 0.0; allowed: more than 0"),
        (dict(learning_rate=-1.0), "learning_rate is -1.0; allowed: 0 or more"),
        (dict(decay_patterns=[("(", True)]), r"decay_patterns is .*allowed: a list of"),
        (dict(decay_patterns=["kernel"]), "decay_patterns is .*allowed: a list of"),
        (dict(moment_dtype="float99"), "moment_dtype is 'float99'.*allowed: float32, bfloat16"),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(settings, message):
    with pytest.raises(InputError, match=message):
        optimizer.build(**{"num_steps": 100, "learning_rate": 2.0, **settings})


def adamw_by_hand(*, b1, b2, eps, decay, decays=DECAYS):
    params = PARAMS
    m = v = jax.tree.map(np.zeros_like, params)
    seen = []
    for t, g in enumerate(GRADIENTS, 1):
        lr = 0.1 * (1 - (t - 1) / 4)
        m = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, m, g)
        v = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g**2, v, g)

        def moved(p, m, v, d, t=t, lr=lr):
            m_hat, v_hat = m / (1 - b1**t), v / (1 - b2**t)
            return p - lr * (m_hat / (np.sqrt(v_hat) + eps) + decay * d * p)

        params = jax.tree.map(moved, params, m, v, decays)
        seen.append(params)
    return seen


def test_adamw_equals_its_definition_with_decoupled_decay_of_kernels_only():
    settings = dict(b1=0.8, b2=0.95, eps=1e-3)
    found, _ = train(weight_decay=0.3, **settings)
    assert_equal_each_step(found, adamw_by_hand(decay=0.3, **settings))


def test_adamw_defaults_are_the_papers():
    found, _ = train()
    assert_equal_each_step(found, adamw_by_hand(b1=0.9, b2=0.999, eps=1e-8, decay=0))


def test_moments_can_be_bfloat16():
    rough, state = train(moment_dtype="bfloat16")
    adam = next(s for s in jax.tree.leaves(state, is_leaf=is_adam) if is_adam(s))
    assert {m.dtype for m in jax.tree.leaves(adam.mu)} == {jnp.dtype("bfloat16")}
    assert {n.dtype for n in jax.tree.leaves(adam.nu)} == {jnp.dtype("float32")}
    exact, _ = train()
    # An update is about the learning rate 0.1, and a moment is rounded by 2^-9 of itself.
    for a, b in zip(jax.tree.leaves(rough), jax.tree.leaves(exact), strict=True):
        np.testing.assert_allclose(a, b, atol=3 * 0.1 * 2**-7)


def is_adam(node):
    return isinstance(node, optax.ScaleByAdamState)


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_equals_its_definition(nesterov):
    """Decay is added to the gradient, momentum sums them, the rate scales the sum."""
    found, _ = train(name="sgd", momentum=0.7, nesterov=nesterov, weight_decay=0.3)
    params, expected = PARAMS, []
    trace = jax.tree.map(np.zeros_like, params)
    for t, g in enumerate(GRADIENTS):
        lr = 0.1 * (1 - t / 4)
        g = jax.tree.map(lambda g, p, d: g + 0.3 * d * p, g, params, DECAYS)
        trace = jax.tree.map(lambda v, g: 0.7 * v + g, trace, g)
        used = jax.tree.map(lambda v, g: 0.7 * v + g, trace, g) if nesterov else trace
        params = jax.tree.map(lambda p, u, lr=lr: p - lr * u, params, used)
        expected.append(params)
    assert_equal_each_step(found, expected)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
@pytest.mark.parametrize("share", [0.5, 2.0])
def test_clipping_scales_gradients_longer_than_the_norm_and_no_others(name, share):
    """Before the decay is added, over all parameters together."""
    lengths = [np.sqrt(sum((g**2).sum() for g in jax.tree.leaves(tree))) for tree in GRADIENTS]
    limit = share * min(lengths)
    own = dict(adamw=dict(eps=1e-1), sgd=dict(momentum=0.5))[name]
    settings = dict(name=name, weight_decay=0.3, **own)
    clipped = [
        jax.tree.map(lambda g, n=n: g * min(1, limit / n), tree)
        for tree, n in zip(GRADIENTS, lengths, strict=True)
    ]
    found, _ = train(clip_norm=limit, **settings)
    expected, _ = train(clipped, **settings)
    assert_equal_each_step(found, expected)
    unclipped, _ = train(**settings)
    difference = jnp.abs(found[-1]["dense"]["kernel"] - unclipped[-1]["dense"]["kernel"]).max()
    # At twice the shortest length some of the three are clipped or none.
    assert (difference > 1e-3) == (limit < max(lengths))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_the_state_has_the_structure_of_earlier_checkpoints(name):
    """Which had optax's own decay under a mask."""
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    rate, mask = optax.constant_schedule(0.1), lambda p: jax.tree.map(lambda _: True, p)
    before = {
        "adamw": optax.adamw(rate, mask=mask),
        "sgd": optax.chain(optax.add_decayed_weights(0.1, mask), optax.sgd(rate, 0.9)),
    }
    made = optimizer.build(
        name=name, learning_rate=0.1, schedule="constant", weight_decay=0.1, num_steps=10
    )
    state = made.transform.init(params)
    assert jax.tree.structure(state) == jax.tree.structure(before[name].init(params))
