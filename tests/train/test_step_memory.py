"""Bytes of the compiled training step on one device: what XLA set aside, not an estimate."""

import functools

import jax
import pytest
from learners import learner_on, mesh_of

from vit_jax.analysis import memory

SHAPE = (32, 32, 3)
MODEL = dict(width=128, depth=2, mlp_dim=512, num_heads=4, patch_size=8, unroll=1)
BATCH = 64
MESHES = {"fsdp": dict(fsdp=8), "all": dict(data=2, fsdp=2, tensor=2)}


def learner(mesh, accum_steps):
    return learner_on(
        mesh_of(**MESHES[mesh]), MODEL, shape=SHAPE, accum_steps=accum_steps, ema_decay=0.9
    )


@functools.cache
def sizes(mesh, accum_steps):
    built = learner(mesh, accum_steps)
    lowered = built.step_fn().lower(built.abstract_state(), built.abstract_batch(BATCH))
    return lowered.compile().memory_analysis()


@pytest.mark.parametrize("mesh, accum_steps", [("fsdp", 1), ("fsdp", 4), ("all", 1)])
def test_the_step_takes_over_the_whole_state_and_holds_its_shards_alone(mesh, accum_steps):
    """Donated: old and new state share their bytes. Nothing is whole that its sharding splits."""
    built = learner(mesh, accum_steps)
    state, found = built.abstract_state(), sizes(mesh, accum_steps)
    shards = memory.device_bytes(state)
    assert found.alias_size_in_bytes == shards
    rows = BATCH // (built.mesh.shape["data"] * built.mesh.shape["fsdp"])
    batch = built.abstract_batch(rows)
    del batch["index"]  # which the step does not read, so it is no argument
    assert found.argument_size_in_bytes == shards + memory.tree_bytes(batch)
    # Parameters, averages and two moments, a part each; vectors and embeddings are whole.
    split = {"fsdp": 8, "all": 4}[mesh]
    whole = memory.tree_bytes(state)
    assert whole / split <= shards < 1.5 * whole / split


def test_microbatches_need_less_memory_beside_the_state():
    """Activations are a quarter; the sum of gradients is added, in parts like the parameters."""
    whole, parts = (sizes("fsdp", k).temp_size_in_bytes for k in (1, 4))
    params = learner("fsdp", 1).abstract_state().params
    assert parts < 0.6 * whole
    assert memory.device_bytes(params) < 0.25 * memory.tree_bytes(params)


def test_gradients_are_summed_in_float32_whatever_the_computation():
    """In bfloat16 the sum of many microbatches would lose the later ones."""
    model = MODEL | dict(dtype="bfloat16")
    built = learner_on(mesh_of(), model, shape=SHAPE, accum_steps=4)
    state, batch = built.abstract_state(), built.abstract_batch(BATCH)
    jaxpr = jax.make_jaxpr(built._step())(state, batch).jaxpr
    (scan,) = [e for e in jaxpr.eqns if e.primitive.name == "scan" and e.params["length"] == 4]
    carried = [v.aval for v in scan.outvars[: scan.params["num_carry"]]]
    kernels = [x for x in jax.tree.leaves(state.params) if x.ndim > 2]
    for kernel in kernels:
        assert [x.dtype for x in carried if x.shape == kernel.shape], kernel
        assert {str(x.dtype) for x in carried if x.shape == kernel.shape} == {"float32"}
