"""A plan beside the step that XLA makes for eight virtual devices."""

import functools

import jax
import pytest
from plans import TINY, TOLD, make_config

from vit_jax.planning import plan

# Large enough that parameters are split, and that activations are most of the memory.
MODEL = TINY | dict(width=256, mlp_dim=512, num_heads=4, depth=3)
MESHES = {
    "data": dict(data=8),
    "fsdp": dict(data=2, fsdp=4),
    "tensor": dict(data=2, fsdp=1, tensor=4),
    "all": dict(data=2, fsdp=2, tensor=2),
}


@functools.cache
def card(mesh, accum_steps=1):
    config = make_config(
        model=MODEL,
        data=dict(batch_size=256, image_size=32),
        train=dict(num_steps=9, accum_steps=accum_steps),
        mesh=MESHES[mesh],
    )
    return plan(config, told=TOLD, num_devices=8, compiles=True)


def sent(found, axis, *kinds):
    return sum(
        part["bytes_per_step"]
        for part in found["collectives"]
        if axis in part["axes"] and part["kind"] in kinds
    )


@pytest.mark.parametrize("mesh", MESHES)
def test_bytes_of_arguments_are_exact(mesh):
    memory, step = card(mesh)["memory_bytes"], card(mesh)["compiled"]
    state = sum(memory[name] for name in ("parameters", "optimizer", "other_state"))
    key_and_step = jax.random.key_data(jax.random.key(0)).nbytes + 4
    unread = 4 * card(mesh)["run"]["microbatch_per_device"]  # the rows' index, which jit leaves out
    compiled = step["memory_bytes"]
    assert compiled["arguments"] == state + memory["batch"] + key_and_step - unread
    metrics = compiled["results"] - compiled["donated"]
    assert 0 < metrics < 1024  # the new state takes the old one's place


@pytest.mark.parametrize("mesh", MESHES)
def test_peak_is_near_what_the_compiled_step_needs(mesh):
    """The trace knows neither which buffers XLA shares nor what it fuses, and tests compile with
    most optimisations off (conftest.py): 1.13 to 1.17 times when this was written."""
    planned, step = card(mesh)["memory_bytes"]["total"], card(mesh)["compiled"]
    assert 0.9 < planned / step["memory_bytes"]["total"] < 1.4


def test_fsdp_sends_what_it_must():
    """Each split parameter is gathered for the forward and for the backward pass, and its gradient
    summed; what XLA gathers once for both, or besides, is a tenth at most."""
    found = card("fsdp")
    needed, step = sent(found, "fsdp", "all-gather"), found["compiled"]
    assert sent(step, "fsdp", "all-gather") == pytest.approx(needed, rel=0.1)
    gradients = sent(found, "fsdp", "reduce-scatter")
    assert sent(step, "fsdp", "reduce-scatter", "all-reduce") == pytest.approx(gradients, rel=0.1)
    assert not any("need not" in note for note in found["notes"])


@pytest.mark.parametrize("mesh", ["data", "fsdp"])
def test_gradients_are_summed_along_data(mesh):
    found = card(mesh)
    needed = sent(found, "data", "all-reduce")
    assert sent(found["compiled"], "data", "all-reduce") == pytest.approx(needed, rel=0.05)


def test_tensor_parallelism_sums_what_the_trace_says():
    """XLA may add up the sums of a layer's two branches, or those of a bias, too."""
    found = card("tensor")
    needed = sent(found, "tensor", "all-reduce")
    assert sent(found["compiled"], "tensor", "all-reduce") == pytest.approx(needed, rel=0.2)


def test_microbatches_send_parameters_again():
    once, twice = (sent(card("fsdp", k), "fsdp", "all-gather") for k in (1, 2))
    assert twice == 2 * once
    step = card("fsdp", 2)["compiled"]
    assert sent(step, "fsdp", "all-gather") == pytest.approx(twice, rel=0.15)


def test_tensor_axis_splits_activations():
    whole, split = (card(mesh)["activation_bytes_per_image"] for mesh in ("data", "tensor"))
    assert whole / 4 < split < 0.7 * whole
