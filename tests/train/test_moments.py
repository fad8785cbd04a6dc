"""Adam with its second moment in bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import assert_trees_equal

from vit_jax.errors import InputError
from vit_jax.train import moments, optimizer

B2 = 0.999


def adam(dtype, **settings):
    built = optimizer.build(
        num_steps=10, learning_rate=0.01, schedule="constant", second_moment_dtype=dtype, **settings
    )
    return built.transform


def second_moment(state):
    return optax.tree.get(state, "nu")


def run(tx, gradients, size):
    """The second moment after each of these gradients, the same for `size` parameters."""
    params = {"kernel": jnp.ones(size)}
    update = jax.jit(tx.update)
    state, seen = tx.init(params), []
    for gradient in gradients:
        _, state = update({"kernel": jnp.full(size, gradient)}, state, params)
        seen.append(np.asarray(second_moment(state)["kernel"], np.float32))
    return np.stack(seen)


def test_rounding_picks_a_neighbour_and_keeps_the_mean():
    """bfloat16's neighbours of 1 + t/128 are 1 and 1 + 1/128."""
    share, size = 0.3, 100_000
    x = jnp.full(size, 1 + share / 128)
    rounded = np.asarray(moments.round_stochastically(x, jax.random.key(0)), np.float32)
    assert set(rounded) == {1.0, 1 + 1 / 128}
    found = (rounded > 1).mean()
    assert abs(found - share) < 5 * np.sqrt(share * (1 - share) / size)  # standard deviations


@pytest.mark.parametrize("value", [0.0, 1.0, -2.5, 2.0**-126, np.inf, -np.inf])
def test_what_bfloat16_has_stays(value):
    x = jnp.full(64, value, jnp.float32)
    assert set(np.asarray(moments.round_stochastically(x, jax.random.key(1)), np.float32)) == {
        value
    }


def test_nan_stays_nan():
    bits = jnp.asarray([0x7FFFFFFF, 0x7FC00000, 0xFFFFFFFF], jnp.uint32)  # a carry would lose it
    x = jax.lax.bitcast_convert_type(bits, jnp.float32)
    assert np.isnan(np.asarray(moments.round_stochastically(x, jax.random.key(2)))).all()


def test_a_falling_moment_falls_where_rounding_to_the_nearest_holds_it():
    steps, size = 300, 4096
    gradients = [1.0] + [0.0] * steps
    exact = run(adam("float32"), gradients, 1)[:, 0]
    found = run(adam("bfloat16"), gradients, size)[-1]
    assert exact[-1] < 0.75 * exact[0]
    # Each step adds an error of at most 2^-8 of the moment, and they are independent.
    deviation = exact[0] * 2**-8 * np.sqrt(steps / size)
    assert abs(found.mean() - exact[-1]) < 5 * deviation

    nearest = jnp.bfloat16(exact[0])
    for _ in range(steps):
        nearest = (B2 * nearest.astype(jnp.float32)).astype(jnp.bfloat16)
    assert float(nearest) == float(jnp.bfloat16(exact[0]))


def test_the_first_update_is_that_of_float32_bit_for_bit():
    params = {"kernel": jnp.linspace(-1, 1, 64), "bias": jnp.ones(3)}
    gradients = jax.tree.map(jnp.cos, params)
    updates = []
    for dtype in ("float32", "bfloat16"):
        tx = adam(dtype, weight_decay=0.1, clip_norm=1.0)
        state = tx.init(params)
        assert {x.dtype for x in jax.tree.leaves(second_moment(state))} == {jnp.dtype(dtype)}
        update, after = jax.jit(tx.update)(gradients, state, params)
        assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)
        assert {x.dtype for x in jax.tree.leaves(second_moment(after))} == {jnp.dtype(dtype)}
        updates.append(update)
    assert_trees_equal(*updates)


def test_random_bits_repeat_with_the_run_and_differ_between_steps_and_parameters():
    first, again = (run(adam("bfloat16"), [0.7, 0.7], 512) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    rounded_up = first > first.min(axis=1, keepdims=True)
    assert 0 < rounded_up[0].mean() < 1 and (rounded_up[0] != rounded_up[1]).any()
    tx, params = adam("bfloat16"), {"a": jnp.ones(512), "b": jnp.ones(512)}
    _, state = tx.update(jax.tree.map(lambda x: 0.7 * x, params), tx.init(params), params)
    nu = second_moment(state)
    assert (np.asarray(nu["a"]) != np.asarray(nu["b"])).any()


@pytest.mark.parametrize("key", ["moment_dtype", "second_moment_dtype"])
def test_other_types_are_refused(key):
    with pytest.raises(InputError, match=f"optimizer.{key} is 'float16'.*float32, bfloat16"):
        optimizer.build(num_steps=1, learning_rate=0.1, **{key: "float16"})
    with pytest.raises(InputError, match=f"{key}.*'sgd' has no such setting"):
        optimizer.build(num_steps=1, learning_rate=0.1, name="sgd", **{key: "bfloat16"})


@pytest.mark.parametrize("settings", [dict(layer_decay=0.5), dict(rate_patterns=[(".*", 0.5)])])
def test_works_below_factors_of_the_rate(settings):
    params = {"encoder": {"blocks": {"mlp": {"kernel": jnp.ones((2, 8))}}}}
    tx = adam("bfloat16", **settings)
    _, state = jax.jit(tx.update)(params, tx.init(params), params)
    dtypes = {x.dtype for x in jax.tree.leaves(state) if x.ndim == 2}
    assert dtypes == {jnp.dtype("float32"), jnp.dtype("bfloat16")}
