"""The same config gives the same numbers on every mesh: only where they are computed differs.

With everything random that a step has (mixup, dropout, stochastic depth), masked rows, averaged
weights and microbatches. Every array is split that can be, and eight heads let `tensor` be eight.
"""

import functools
import itertools

import jax
import numpy as np
import optax
import pytest
from learners import learner_on, mesh_of
from toys import MIXUP, assert_trees_close, assert_trees_equal, image_batch, random_like

from vit_jax.train import sharding

FACTORS = [axes for axes in itertools.product((1, 2, 4, 8), repeat=3) if np.prod(axes) == 8]
MODEL = dict(
    width=16, depth=2, mlp_dim=32, num_heads=8, unroll=1, dropout_rate=0.2, drop_path_rate=0.3
)
BATCH = 32
# Epsilon is far above the gradients' noise: around 1e-8 the update of a gradient that is zero but
# for rounding, such as the key bias's, would be the sign of that rounding.
ADAMW = optax.adamw(1e-2, eps=1e-3, weight_decay=0.1)


@pytest.fixture(autouse=True)
def split_all(monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)


def learner(mesh, accum_steps=1):
    settings = dict(accum_steps=accum_steps, ema_decay=0.9, seed=3)
    return learner_on(mesh, MODEL, tx=ADAMW, mixing=MIXUP, **settings)


@functools.cache
def jitted_step(mesh, accum_steps):
    """One for all tests, so that none compiles it again."""
    return learner(mesh, accum_steps).step_fn()


@functools.cache
def start():
    """A state on the host; every parameter random, or a head of zeros would hide the rest."""
    state = jax.device_get(learner(mesh_of()).init_state().replace(rng=None))
    params = jax.device_get(random_like(state.params))
    return state.replace(params=params, ema_params=params)


def batches():
    return (image_batch(BATCH, seed=seed, masked=(1, 2, 5, 30)) for seed in itertools.count())


def train(mesh, *, accum_steps=1, num_steps=1):
    """(the state, each step's metrics, where the first state was) of a few steps."""
    built, metrics = learner(mesh, accum_steps), []
    places = jax.tree.map(lambda x: x.sharding, built.abstract_state())
    host = start().replace(rng=jax.random.key(7))
    state = jax.device_put(host, places)
    step = jitted_step(mesh, accum_steps)
    for batch in itertools.islice(sharding.to_devices(batches(), mesh), num_steps):
        state, found = step(state, batch)
        metrics.append({name: float(mean.compute()) for name, mean in found.items()})
    return state, metrics, places


@functools.cache
def on_one_device(accum_steps, num_steps=1):
    state, metrics, _ = train(mesh_of(), accum_steps=accum_steps, num_steps=num_steps)
    return jax.device_get(state.replace(rng=None)), metrics


def adam(state):
    return state.opt_state[0]


# Compiling is what these tests cost, and microbatches hold all that one whole batch does.
CASES = [(axes, 2) for axes in FACTORS] + [((8, 1, 1), 1), ((2, 2, 2), 1)]


@pytest.mark.parametrize("axes, accum_steps", CASES, ids=str)
def test_a_step_on_eight_devices_equals_that_on_one(axes, accum_steps):
    """Adam's first moment after one step is a tenth of the gradient, the second its square's."""
    mesh = mesh_of(*axes)
    state, metrics, places = train(mesh, accum_steps=accum_steps)
    expected, expected_metrics = on_one_device(accum_steps)
    _, fsdp, tensor = axes
    query = places.params["encoder"]["blocks"]["attention"]["query"]["kernel"]
    assert query.num_devices == 8 and query.is_fully_replicated == (fsdp * tensor == 1)
    for name, value in expected_metrics[0].items():
        np.testing.assert_allclose(metrics[0][name], value, rtol=2e-6, err_msg=name)
    # Sums in another order: float32's precision times a few hundred terms.
    largest = max(np.abs(m).max() for m in jax.tree.leaves(adam(expected).mu))
    assert_trees_close(adam(state).mu, adam(expected).mu, rtol=0, atol=2e-6 * largest)
    assert_trees_close(adam(state).nu, adam(expected).nu, rtol=1e-4, atol=1e-12)
    assert_trees_close(state.params, expected.params, rtol=0, atol=2e-6)
    assert_trees_close(state.ema_params, expected.ema_params, rtol=0, atol=2e-6)
    assert int(state.step) == 1


@pytest.mark.parametrize("num_devices", [2, 4, 8])
def test_losses_of_several_steps_do_not_depend_on_the_number_of_devices(num_devices):
    """Batch, microbatches and learning rate are of the whole run, not of a device."""
    steps = dict(accum_steps=2, num_steps=4)
    _, metrics, _ = train(mesh_of(data=num_devices), **steps)
    _, expected = on_one_device(**steps)
    losses, expected = ([m["loss"] for m in found] for found in (metrics, expected))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    assert len(set(losses)) == 4


@pytest.mark.parametrize("axes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_a_new_state_is_the_same_on_every_mesh(axes):
    """Random numbers are those of their place in the whole array, not of the device."""
    states = [learner(mesh).init_state() for mesh in (mesh_of(), mesh_of(*axes))]
    assert_trees_equal(*jax.device_get([state.replace(rng=None) for state in states]))


def test_random_numbers_belong_to_the_whole_array():
    """What the tests above rest on; JAX's older default drew others where an array is split."""
    assert jax.config.jax_threefry_partitionable
    places = sharding.batch_sharding(mesh_of(2, 2, 2))
    key, draw = jax.random.key(0), lambda key: jax.random.uniform(key, (16, 24))
    split = jax.jit(draw, out_shardings=places)(key)
    np.testing.assert_array_equal(split, jax.jit(draw)(key))
