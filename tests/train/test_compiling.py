"""A step is compiled once, ahead of time, and then serves as the jitted one would."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import Regression, assert_trees_equal, new_state, regression_batch

from vit_jax.train.compiling import compile_step
from vit_jax.train.step import make_train_step

TX = optax.adam(0.01)


def jitted():
    """A new function each time, of which JAX knows no compilation."""
    return jax.jit(make_train_step(Regression(), TX, ema_decay=0.9), donate_argnums=0)


def fresh_state():
    return new_state(Regression(), TX, regression_batch(), ema=True)


def shapes(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


def compile_ahead():
    return compile_step(jitted(), shapes(fresh_state()), shapes(regression_batch()))


def compilations(caplog):
    return sum("Finished XLA compilation of jit(step_fn)" in line for line in caplog.messages)


def test_same_bits_as_the_jitted_step():
    ahead, usual, step = fresh_state(), fresh_state(), jitted()
    compiled = compile_ahead()
    for seed in range(3):
        ahead, found = compiled.call(ahead, regression_batch(seed=seed))
        usual, expected = step(usual, regression_batch(seed=seed))
        assert_trees_equal(found, expected)
    assert_trees_equal(ahead, usual)


def test_nothing_is_compiled_twice(caplog):
    caplog.set_level(logging.WARNING)
    with jax.log_compiles():
        compiled = compile_ahead()
        assert compilations(caplog) == 1
        state = fresh_state()
        for seed in range(3):
            state, _ = compiled.call(state, regression_batch(seed=seed))
    assert compilations(caplog) == 1 and int(state.step) == 3


def test_the_state_is_taken_over():
    state = fresh_state()
    compile_ahead().call(state, regression_batch())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))


def test_another_shape_is_refused_instead_of_compiled_again():
    with pytest.raises(TypeError, match=r"float32\[8,3\].*float32\[4,3\]"):
        compile_ahead().call(fresh_state(), regression_batch(4))


def test_time_and_memory_are_told():
    """Memory to the byte, as far as it follows from the shapes."""
    compiled, state = compile_ahead(), fresh_state()
    assert compiled.seconds > 0
    state = state.replace(rng=jax.random.key_data(state.rng))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    # What a step does not read is no argument: the index, and what the task writes anew.
    unread = (state.task_state["seen"], regression_batch()["index"])
    read = size + sum(leaf.nbytes for leaf in regression_batch().values())
    memory = compiled.memory
    assert memory["arguments"] == read - sum(leaf.nbytes for leaf in unread)
    assert 0 < memory["donated"] <= size < memory["results"]  # metrics come beside the state
    rest = memory["arguments"] + memory["results"] + memory["temporary"]
    assert memory["total"] == rest - memory["donated"]


def test_a_backend_that_does_not_tell_its_memory_is_no_error(monkeypatch):
    monkeypatch.setattr(jax.stages.Compiled, "memory_analysis", lambda _: None)
    assert compile_ahead().memory == {}


def test_the_persistent_cache_is_read(tmp_path):
    """As a second process would: JAX's own memory is cleared between."""
    from jax.experimental.compilation_cache import compilation_cache

    hits = []
    options = {
        "jax_compilation_cache_dir": str(tmp_path),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": 0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    listen = lambda event, **_: hits.append(event)  # noqa: E731
    try:
        for name, value in options.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        step = jitted()
        compile_step(step, shapes(fresh_state()), shapes(regression_batch()))
        assert any(tmp_path.iterdir())
        jax.monitoring.register_event_listener(listen)
        found = compile_ahead()
    finally:
        jax.monitoring.clear_event_listeners()
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
    assert hits.count("/jax/compilation_cache/cache_hits") == 1
    state, metrics = found.call(fresh_state(), regression_batch())
    assert np.isfinite(metrics["loss"].compute()) and jnp.int32(state.step) == 1
