"""The classifier's batch norm and its initial values, and the linear probe that they are for."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import (
    NUM_CLASSES,
    Logits,
    assert_trees_close,
    assert_trees_equal,
    classification,
    image_batch,
    new_state,
    normal,
)

from vit_jax.errors import InputError
from vit_jax.layers.head import classify
from vit_jax.train import optimizer, sharding
from vit_jax.train.step import make_train_step

PROBED = dict(pool="cls", head_norm="batch", head_std=0.01, depth=1)


class Head(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        return classify(x, 5, std=0.5, norm="batch", train=train)


def test_logits_are_of_the_normalised_batch_and_running_statistics_follow():
    """torch's BatchNorm1d(affine=False, eps=1e-6, momentum=0.1), whose variance is divided by b."""
    x = 3 + normal(64, 4, scale=2.0)
    variables = Head().init(jax.random.key(0), x)
    kernel, mean, var = variables["params"]["head"]["kernel"], np.zeros(4), np.ones(4)
    assert set(variables["params"]) == {"head"}
    for batch in (x[:32], x[32:]):
        logits, moved = Head().apply(variables, batch, train=True, mutable=["batch_stats"])
        expected = (batch - batch.mean(0)) / np.sqrt(batch.var(0) + 1e-6) @ kernel
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
        mean, var = (0.9 * a + 0.1 * b for a, b in ((mean, batch.mean(0)), (var, batch.var(0))))
        variables = {**variables, **moved}
    found = variables["batch_stats"]["head_norm"]
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(found["var"], var, rtol=1e-5)
    # In evaluation an example's logits do not depend on the others.
    logits = Head().apply(variables, x[:1])
    np.testing.assert_allclose(
        logits, (x[:1] - mean) / np.sqrt(var + 1e-6) @ kernel, rtol=1e-4, atol=1e-5
    )


def test_the_kernel_begins_as_asked():
    x = jnp.ones((1, 4000))
    kernel = Head().init(jax.random.key(0), x)["params"]["head"]["kernel"]
    # Of 20,000 numbers; the deviation's own is 0.5 / sqrt(2 n) = 0.0025.
    assert np.std(kernel) == pytest.approx(0.5, abs=0.0125)


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="head_norm is 'layer'; allowed: none, batch"):
        classification(dict(head_norm="layer"))


class Probed(nn.Module):
    """As a ViT's head reads what is before it."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Dense(6, name="backbone")(image.reshape(len(image), -1))
        return Logits(classify(x, NUM_CLASSES, norm="batch", train=train), x)


def probe():
    rules = [("head/.*", 1.0), (".*", 0.0)]
    settings = dict(num_steps=4, schedule="constant", learning_rate=6.4)
    return optimizer.build(name="lars", rate_patterns=rules, **settings).transform


def test_a_probe_moves_the_head_and_the_running_statistics_alone():
    """Bit for bit: the rest has no update, and its gradient is not even kept in the optimizer."""
    task, tx, batch = classification(PROBED), probe(), image_batch(16)
    before = new_state(task, tx, batch)
    step, state = jax.jit(make_train_step(task, tx)), before
    for _ in range(2):
        state, metrics = step(state, batch)
    assert np.isfinite(float(metrics["loss"].compute()))
    frozen, moved = ({k: p[k] for k in p if k != "head"} for p in (before.params, state.params))
    assert_trees_equal(frozen, moved)
    for leaf in ("kernel", "bias"):
        assert np.abs(state.params["head"][leaf] - before.params["head"][leaf]).max() > 0
    assert set(state.model_state) == {"batch_stats"}
    for name in ("mean", "var"):
        first, last = (s.model_state["batch_stats"]["head_norm"][name] for s in (before, state))
        assert np.abs(last - first).min() > 0


def test_the_statistics_are_of_all_devices_examples():
    """Eight devices with two examples each are one with sixteen."""
    tx, batch = probe(), image_batch(16)
    task = dataclasses.replace(classification(), model=Probed())
    train_step, mesh = make_train_step(task, tx), sharding.make_mesh()
    assert mesh.size == 8
    expected, _ = jax.jit(train_step)(new_state(task, tx, batch), batch)
    state = new_state(task, tx, batch)
    places = sharding.state_sharding(jax.eval_shape(lambda: state), mesh)
    step = jax.jit(
        train_step,
        in_shardings=(places, sharding.batch_sharding(mesh)),
        out_shardings=(places, sharding.replicated(mesh)),
    )
    found, _ = step(jax.device_put(state, places), batch)
    # Another order of summation, in float32.
    assert_trees_close(found.params["head"], expected.params["head"], rtol=1e-4, atol=1e-6)
    assert_trees_close(found.model_state, expected.model_state, rtol=1e-4, atol=1e-6)
