"""Factors of the learning rate by path and by depth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizing import GRADIENTS, PARAMS, float32, train
from toys import assert_trees_close, classification, image_batch, new_state, random_like

from vit_jax.errors import InputError
from vit_jax.train import optimizer, patterns, rate_factors, sharding
from vit_jax.train.step import make_train_step

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
    found = rate_factors.layer_factors(params, DECAY)
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


def test_layers_of_an_encoder_and_a_decoder_have_no_order():
    blocks = {"encoder": {"blocks": {"kernel": jnp.zeros((DEPTH, 2))}}}
    alone = {"backbone": blocks, "head": {"kernel": jnp.zeros(2)}}
    factors = rate_factors.layer_factors(alone, DECAY)
    found = factors["backbone"]["encoder"]["blocks"]["kernel"]
    np.testing.assert_array_equal(found[:, 0], [DECAY**3, DECAY**2, DECAY])
    message = "blocks are in backbone/encoder/blocks, decoder/encoder/blocks; allowed: .* one stack"
    with pytest.raises(InputError, match=message):
        rate_factors.layer_factors({"backbone": blocks, "decoder": blocks}, DECAY)


def test_a_stems_layers_are_before_the_blocks():
    task = classification(dict(stem="conv_1gf", patch_size=1, depth=DEPTH))
    batch = image_batch(2, shape=(32, 32, 3))
    params = jax.eval_shape(task.init, jax.random.key(0), batch)["params"]
    factors = rate_factors.layer_factors(params, DECAY)
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


def is_adam(node):
    return isinstance(node, optax.ScaleByAdamState)


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
