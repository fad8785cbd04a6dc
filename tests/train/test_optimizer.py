"""Schedules against closed forms, optimizers against a few lines of NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import assert_trees_close, classification, image_batch, new_state, random_like

from vit_jax.errors import InputError
from vit_jax.train import optimizer, patterns, sharding
from vit_jax.train.step import make_train_step

STEPS, WARMUP, PEAK, END = 100, 10, 2.0, 0.5


def rate(schedule, **settings):
    ends = schedule in ("cosine", "linear") or settings.get("cooldown_steps")
    settings = dict(end_learning_rate=END if ends else None, warmup_steps=WARMUP) | settings
    build = functools.partial(optimizer.build, num_steps=STEPS, learning_rate=PEAK)
    return build(schedule=schedule, **settings).learning_rate


def values(schedule, steps, **settings):
    return [float(rate(schedule, **settings)(t)) for t in steps]


# schedules


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
        optimizer.build(**{"num_steps": STEPS, "learning_rate": PEAK, **settings})


# optimizers

RNG = np.random.default_rng(0)
PARAMS = {
    "dense": {"kernel": RNG.normal(size=(3, 4)), "bias": RNG.normal(size=4)},
    "norm": {"scale": RNG.normal(size=4)},
}
GRADIENTS = [jax.tree.map(lambda p: RNG.normal(size=p.shape), PARAMS) for _ in range(3)]
DECAYS = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}


def float32(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)


def train(all_gradients=GRADIENTS, **settings):
    """The parameters after each of three steps with these gradients, and the last state."""
    settings = dict(num_steps=4, learning_rate=0.1, schedule="linear") | settings
    tx = optimizer.build(**settings).transform
    params, seen = float32(PARAMS), []
    state = tx.init(params)
    update = jax.jit(tx.update)
    for gradients in all_gradients:
        updates, state = update(float32(gradients), state, params)
        params = optax.apply_updates(params, updates)
        seen.append(params)
    return seen, state


def assert_equal_each_step(found, expected, rtol=1e-5):
    for step, (a, b) in enumerate(zip(found, expected, strict=True)):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=rtol, atol=1e-6, err_msg=f"step {step}")


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
    assert patterns.match(optimizer.DECAY_KERNELS, path, where="") is decays


# factors of the learning rate

RULES = {"probe": [("norm/.*", 1), (".*", 0)], "slower": [("dense/.*", 0.25), (".*", 1.0)]}
OWN = dict(adamw=dict(eps=1e-3), sgd=dict(momentum=0.7))


def arrays_of(state):
    """Everything in a state that has the shape of a parameter."""
    return [leaf for leaf in jax.tree.leaves(state) if jnp.ndim(leaf)]


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_frozen_parameters_never_move_and_have_no_state(name):
    settings = dict(name=name, weight_decay=0.3, decay_patterns=[(".*", True)], **OWN[name])
    found, state = train(rate_patterns=RULES["probe"], **settings)
    for params in found:
        for leaf in ("kernel", "bias"):
            np.testing.assert_array_equal(params["dense"][leaf], np.float32(PARAMS["dense"][leaf]))
    moments = dict(adamw=2, sgd=1)[name]
    assert [leaf.shape for leaf in arrays_of(state)] == [(4,)] * moments
    free, state = train(**settings)
    assert len(arrays_of(state)) == 3 * moments
    for a, b in zip(found, free, strict=True):
        # Compiled beside other parameters or alone: the last bit may differ.
        np.testing.assert_allclose(a["norm"]["scale"], b["norm"]["scale"], rtol=1e-6)


def test_frozen_gradients_do_not_count_where_the_norm_is_clipped():
    settings = dict(name="sgd", momentum=0.0, rate_patterns=RULES["probe"])
    found, _ = train(clip_norm=1e-2, **settings)
    first = np.float32(PARAMS["norm"]["scale"]) - found[0]["norm"]["scale"]
    # The rate is 0.1, and float32 keeps seven digits of numbers of about one.
    np.testing.assert_allclose(np.linalg.norm(first), 0.1 * 1e-2, rtol=1e-3)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_factor_scales_the_update_and_nothing_else(name):
    """The first update only: later ones see other parameters, by which they decay."""
    settings = dict(name=name, weight_decay=0.3, **OWN[name])

    def first(**more):
        tx = optimizer.build(num_steps=4, learning_rate=0.1, **settings, **more).transform
        params = float32(PARAMS)
        updates, _ = tx.update(float32(GRADIENTS[0]), tx.init(params), params)
        return updates

    whole, found = first(), first(rate_patterns=RULES["slower"])
    for leaf in ("kernel", "bias"):  # a power of two is exact
        np.testing.assert_array_equal(found["dense"][leaf], 0.25 * whole["dense"][leaf])
    np.testing.assert_array_equal(found["norm"]["scale"], whole["norm"]["scale"])


DEPTH, DECAY = 3, 0.5


def deep_model(**settings):
    settings = dict(depth=DEPTH, pool="cls", distillation_token=True, num_registers=1) | settings
    task = classification({**settings, "embedding_norm": True, "representation_dim": 4})
    return jax.eval_shape(task.init, jax.random.key(0), image_batch(2))["params"]


def expected_factor(path, layer):
    """BEiT's `get_num_layer_for_vit`: embeddings are layer 0, blocks 1 to depth, the rest above."""
    name = path.split("/")[0]
    before = ("stem", "patch_embedding", "class_token", "distillation_token", "registers")
    if name in (*before, "position_embedding", "embedding_norm"):
        number = 0
    else:
        number = 1 + layer if path.startswith("encoder/blocks/") else DEPTH + 1
    return DECAY ** (DEPTH + 1 - number)


def test_layer_decay_equals_its_definition_as_a_loop():
    params = deep_model()
    found = optimizer.layer_factors(params, DECAY)
    seen = set()

    def compare(path, factor, leaf):
        for layer in range(DEPTH):
            slice_ = np.broadcast_to(factor, leaf.shape)[layer if "blocks" in path else ...]
            np.testing.assert_array_equal(slice_, expected_factor(path, layer), err_msg=path)
        seen.add(path.split("/")[0])

    paths = patterns.map_paths(lambda path, _: path, params)
    jax.tree.map(compare, paths, found, params)
    assert seen == {
        *("patch_embedding", "class_token", "distillation_token", "registers"),
        *("position_embedding", "embedding_norm", "encoder", "representation"),
        *("head", "distillation_head"),
    }


def test_a_stems_layers_are_before_the_blocks():
    task = classification(dict(stem="conv_1gf", patch_size=1, depth=DEPTH))
    batch = image_batch(2, shape=(32, 32, 3))
    params = jax.eval_shape(task.init, jax.random.key(0), batch)["params"]
    factors = optimizer.layer_factors(params, DECAY)
    assert set(jax.tree.leaves(factors["stem"])) == {DECAY ** (DEPTH + 1)}


def test_layer_decay_and_rate_patterns_multiply():
    params = random_like(deep_model())
    rules = [("head/.*", 4.0), ("encoder/blocks/mlp/.*", 0.0), (".*", 1.0)]
    settings = dict(num_steps=4, learning_rate=1.0, schedule="constant", name="sgd", momentum=0.0)
    tx = optimizer.build(rate_patterns=rules, layer_decay=DECAY, **settings).transform
    ones = jax.tree.map(jnp.ones_like, params)
    updates, _ = tx.update(ones, tx.init(params), params)
    np.testing.assert_array_equal(updates["head"]["kernel"], -4.0)
    np.testing.assert_array_equal(updates["encoder"]["blocks"]["mlp"]["up"]["kernel"], 0.0)
    for layer in range(DEPTH):
        found = updates["encoder"]["blocks"]["attention"]["query"]["kernel"][layer]
        np.testing.assert_array_equal(found, -(DECAY ** (DEPTH - layer)))
    np.testing.assert_array_equal(updates["class_token"], -(DECAY ** (DEPTH + 1)))


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(rate_patterns=[("haed/.*", 1.0)]), "rate_patterns: no pattern matches 'dense/bias'"),
        (dict(layer_decay=0.75), "layer_decay is 0.75, but the model has no stacked blocks"),
        (dict(layer_decay=0.0), "layer_decay is 0.0; allowed: more than 0"),
        (dict(layer_decay=-0.5), "layer_decay is -0.5; allowed: more than 0"),
        (dict(rate_patterns=["head"]), "rate_patterns is .*allowed: a list of"),
        (dict(rate_patterns=[("(", 1.0)]), "rate_patterns is .*allowed: a list of"),
        (
            dict(rate_patterns=[(".*", "fast")]),
            "rate_patterns has 'fast' for '.*'; allowed: 0 or more",
        ),
        (dict(rate_patterns=[(".*", -1.0)]), "rate_patterns has -1.0 for .*allowed: 0 or more"),
        (dict(rate_patterns=[(".*", 0.0)]), "rate_patterns freezes all parameters"),
    ],
    ids=str,
)
def test_mistakes_in_factors_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        train(**settings)


FACTORS = dict(
    rate_patterns=[("patch_embedding/.*", 0.0), ("head/.*", 2.0), (".*", 1.0)], layer_decay=0.5
)


def factored(name="adamw"):
    settings = dict(num_steps=9, learning_rate=1e-2, schedule="constant", weight_decay=0.1)
    return optimizer.build(name=name, **settings, **FACTORS).transform


def is_frozen(node):
    return isinstance(node, optax.MaskedNode)


def test_moments_of_what_is_trained_live_where_their_parameters_do(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)
    state = jax.eval_shape(lambda: new_state(classification({}), factored(), image_batch(2)))
    places = sharding.state_sharding(state, sharding.make_mesh(data=1, fsdp=8))
    adam = next(s for s in jax.tree.leaves(places.opt_state, is_leaf=is_adam) if is_adam(s))
    moments = jax.tree_util.tree_leaves_with_path(adam.mu, is_leaf=is_frozen)
    params = jax.tree_util.tree_leaves_with_path(places.params)
    assert len(moments) == len(params)
    for (path, moment), (_, place) in zip(moments, params, strict=True):
        if "patch_embedding" in jax.tree_util.keystr(path):
            assert is_frozen(moment)
        else:
            assert moment == place, path
    assert any(not place.is_fully_replicated for _, place in params)


@pytest.mark.parametrize("axes, accum_steps", [(dict(data=-1), 2), (dict(data=2, fsdp=4), 1)])
def test_accumulated_and_sharded_steps_equal_a_whole_one(axes, accum_steps, monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)
    # SGD: Adam would turn rounding errors of tiny gradients into whole updates.
    tx, task, batch = factored("sgd"), classification({}), image_batch(16)
    expected, _ = jax.jit(make_train_step(task, tx))(new_state(task, tx, batch), batch)
    mesh = sharding.make_mesh(**axes)
    state = new_state(task, tx, batch)
    places = sharding.state_sharding(jax.eval_shape(lambda: state), mesh)
    step = jax.jit(
        make_train_step(task, tx, accum_steps=accum_steps),
        in_shardings=(places, sharding.batch_sharding(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
    )
    before = state.params["patch_embedding"]["kernel"]
    found, _ = step(jax.device_put(state, places), batch)
    np.testing.assert_array_equal(found.params["patch_embedding"]["kernel"], before)
    # Another order of summation, in float32.
    assert_trees_close(found.params, expected.params, rtol=1e-4, atol=1e-5)
    assert jax.tree.structure(found.opt_state) == jax.tree.structure(state.opt_state)


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
