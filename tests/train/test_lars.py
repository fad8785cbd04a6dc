"""LARS against the loop that MoCo v3 and MAE train their probes with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from optimizing import GRADIENTS, PARAMS, assert_equal_each_step, train

from vit_jax.errors import InputError
from vit_jax.train import optimizer


def by_hand(*, trust, momentum, decay):
    """Each array alone: decay, ratio, momentum, rate; those of one axis without the first two."""
    params = jax.tree.map(np.copy, PARAMS)
    leaves, structure = jax.tree.flatten(params)
    buffers = [np.zeros_like(leaf) for leaf in leaves]
    for step, tree in enumerate(GRADIENTS):
        for leaf, buffer, gradient in zip(leaves, buffers, jax.tree.leaves(tree), strict=True):
            if leaf.ndim > 1:
                gradient = gradient + decay * leaf
                gradient = gradient * trust * np.linalg.norm(leaf) / np.linalg.norm(gradient)
            buffer *= momentum
            buffer += gradient
            leaf -= 0.1 * (1 - step / 4) * buffer
        yield structure.unflatten([leaf.copy() for leaf in leaves])


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_lars_equals_its_definition(decay):
    found, _ = train(name="lars", trust_coefficient=0.2, momentum=0.7, weight_decay=decay)
    assert_equal_each_step(found, list(by_hand(trust=0.2, momentum=0.7, decay=decay)))


def test_the_defaults_are_the_published_ones():
    found, _ = train(name="lars")
    assert_equal_each_step(found, list(by_hand(trust=0.001, momentum=0.9, decay=0.0)))


def first_update(params, gradients):
    tx = optimizer.build(num_steps=2, learning_rate=1.0, schedule="constant", name="lars").transform
    updates, _ = tx.update(gradients, tx.init(params), params)
    return updates


@pytest.mark.parametrize("own, new", [(0.0, 2.0), (2.0, 0.0), (0.0, 0.0)])
def test_a_length_of_0_leaves_the_update_as_it_is(own, new):
    params, gradients = ({"kernel": jnp.full((2, 3), value)} for value in (own, new))
    np.testing.assert_array_equal(first_update(params, gradients)["kernel"], -new)


def test_each_layer_of_a_stack_has_its_own_ratio():
    """Its biases, of two axes for the heads, have none."""
    layers = jnp.array([1.0, 10.0])
    kernel, bias = layers[:, None, None] * jnp.ones((2, 3, 4)), jnp.ones((2, 3, 4))
    params = {"encoder": {"blocks": {"kernel": kernel, "bias": bias}}}
    gradients = jax.tree.map(lambda x: 5.0 * jnp.ones_like(x), params)
    found = first_update(params, gradients)["encoder"]["blocks"]
    # 0.001 · |w| in the gradient's direction, whose elements are all alike.
    np.testing.assert_allclose(found["kernel"], -0.001 * kernel, rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], -5.0)


def test_a_probe_by_lars_moves_the_head_alone():
    rules = [("dense/.*", 1.0), (".*", 0.0)]
    found, state = train(name="lars", rate_patterns=rules)
    free, _ = train(name="lars")
    np.testing.assert_array_equal(found[-1]["norm"]["scale"], np.float32(PARAMS["norm"]["scale"]))
    np.testing.assert_allclose(found[-1]["dense"]["kernel"], free[-1]["dense"]["kernel"], rtol=1e-6)
    traces = [leaf for leaf in jax.tree.leaves(state) if jnp.ndim(leaf)]
    assert sorted(leaf.shape for leaf in traces) == [(3, 4), (4,)]


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(trust_coefficient=0.0), "trust_coefficient is 0.0; allowed: more than 0"),
        (dict(b1=0.9), "b1 is 0.9, but name 'lars' has no .*: momentum, trust_coefficient"),
        (dict(name="sgd", trust_coefficient=0.1), "0.1, but name 'sgd' has no"),
    ],
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        train(**{"name": "lars", **settings})


def test_the_norm_is_clipped_before():
    """As every optimizer's; the ratio then hides it from matrices."""
    found, _ = train(name="lars", clip_norm=1e-3)
    free, _ = train(name="lars")
    np.testing.assert_allclose(found[0]["dense"]["kernel"], free[0]["dense"]["kernel"], rtol=1e-6)
    moved = optax.tree.norm(jax.tree.map(lambda a, b: a - b, found[0]["norm"], PARAMS["norm"]))
    assert 0 < moved < 1e-3
