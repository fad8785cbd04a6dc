"""What the compiled training step sends between devices, collective by collective.

Each device has five examples of a microbatch, and nothing else of the model below has a size that
is a multiple of five, so the arrays that have one are activations and the others are not.
"""

import functools
import re

import optax
import pytest
from learners import compiled_step, learner_on, mesh_of

from vit_jax.analysis import collectives, memory
from vit_jax.train import activations

ROWS = 5
DEPTH, WIDTH = 2, 128
MODEL = dict(width=WIDTH, depth=DEPTH, mlp_dim=4 * WIDTH, num_heads=4, patch_size=8)
SHAPE = (32, 32, 3)
TOKENS = f"f32[{ROWS},16,{WIDTH}]"
MESHES = {
    "all": dict(data=2, fsdp=2, tensor=2),
    "tensor": dict(data=2, fsdp=1, tensor=4),
    "fsdp": dict(data=1, fsdp=8, tensor=1),
}
# name -> mesh, model, microbatches
STEPS = {
    "stacked": ("all", dict(unroll=1), 1),
    "unrolled": ("all", dict(unroll=DEPTH), 1),
    "remat": ("all", dict(unroll=1, remat="full"), 1),
    "microbatches": ("all", dict(unroll=1), 3),
    "four heads, four devices": ("tensor", dict(unroll=1), 1),
    "fsdp alone": ("fsdp", dict(unroll=1), 1),
}
every_step = pytest.mark.parametrize("name", STEPS)
steps_with_fsdp = pytest.mark.parametrize("name", [n for n in STEPS if STEPS[n][0] != "tensor"])
steps_with_tensor = pytest.mark.parametrize("name", [n for n in STEPS if STEPS[n][0] != "fsdp"])


def learner(name):
    mesh, model, accum_steps = STEPS[name]
    mesh = mesh_of(**MESHES[mesh])
    # Whatever the optimizer, its update sends nothing; the simplest compiles fastest.
    return learner_on(mesh, MODEL | model, shape=SHAPE, accum_steps=accum_steps, tx=optax.sgd(0.1))


@functools.cache
def program(name):
    built = learner(name)
    shards = built.mesh.shape["data"] * built.mesh.shape["fsdp"]
    return compiled_step(built, ROWS * shards * built.settings.accum_steps).as_text()


@functools.cache
def found(name):
    """(axis, collective) of all that the step sends."""
    shape = MESHES[STEPS[name][0]]
    return [(collectives.axis_of(c, shape), c) for c in collectives.find(program(name))]


def dims(array):
    return [int(size) for size in re.findall(r"\d+", array.partition("[")[2])]


def is_activation(array):
    return any(size % ROWS == 0 for size in dims(array))


def block_bytes(name):
    """Bytes of the matrices of one layer that a device computes with: split by `tensor` alone."""
    blocks = learner(name).abstract_state().params["encoder"]["blocks"]
    matrices = {path: layer["kernel"] for path, layer in _denses(blocks)}
    assert len(matrices) == 6
    return memory.tree_bytes(matrices) // DEPTH // MESHES[STEPS[name][0]]["tensor"]


def _denses(tree):
    for part, layer in tree.items():
        if isinstance(layer, dict) and "kernel" in layer:
            yield part, layer
        elif isinstance(layer, dict):
            yield from _denses(layer)


def test_counts_are_exact():
    assert all(c.is_exact for name in STEPS for _, c in found(name))


@steps_with_tensor
def test_tensor_sums_activations_twice_forward_and_twice_backward_in_a_layer(name):
    """Behind attention and MLP, and the gradients before each (arXiv:1909.08053, figure 4).

    Full rematerialisation computes attention's sum once more: the MLP behind it needs that.
    """
    moved = [(axis, c) for axis, c in found(name) if any(map(is_activation, c.arrays))]
    assert {(axis, c.kind, c.arrays) for axis, c in moved} == {("tensor", "all-reduce", (TOKENS,))}
    a_layer = 5 if "remat" in STEPS[name][1] else 4
    passes = DEPTH * STEPS[name][2]
    assert sum(c.count for _, c in moved) == a_layer * passes


@steps_with_tensor
def test_nothing_else_runs_along_tensor_but_numbers_and_the_patch_kernel(name):
    """XLA gathers the patch embedding's kernel by way of `tensor`, once before the layers."""
    patch_kernel = 8 * 8 * 3 * WIDTH * 4
    for axis, c in found(name):
        if "tensor" not in axis or c.arrays == (TOKENS,):
            continue
        if "patch_embedding" in c.source and c.kind != "all-reduce":
            assert c.bytes <= patch_kernel and c.count <= STEPS[name][2]
        else:
            assert c.kind == "all-reduce" and set(c.arrays) == {"f32[]"}, c  # the norms


@pytest.mark.parametrize("name", ["fsdp alone"])
def test_fsdp_alone_moves_no_activations_at_all(name):
    assert not [c for _, c in found(name) if any(map(is_activation, c.arrays))]


@steps_with_fsdp
def test_fsdp_gathers_each_layers_weights_once_forward_and_once_backward(name):
    gathers = [c for axis, c in found(name) if "blocks" in c.source and axis == "fsdp"]
    gathers = [c for c in gathers if c.kind != "all-reduce"]
    assert {c.kind for c in gathers} == {"all-gather"}
    passes = DEPTH * STEPS[name][2]
    layers = sum(c.bytes * c.count for c in gathers) / block_bytes(name) / passes
    # What full rematerialisation computes again needs its weights again, but for the last matrix.
    assert layers == 2 if "remat" not in STEPS[name][1] else 2 < layers < 3


@every_step
def test_gradients_are_summed_once_for_each_microbatch(name):
    """Of the matrices; along `fsdp` first, after which each device goes on with its own part.

    The CPU has no reduce-scatter: XLA there sums and cuts, elsewhere it makes one of the two.
    """
    shape, _, accum_steps = MESHES[STEPS[name][0]], *STEPS[name][1:]
    sums = [(axis, c) for axis, c in found(name) if axis in ("data", "fsdp", "data+fsdp")]
    sums = [(axis, c) for axis, c in sums if c.kind in ("all-reduce", "reduce-scatter")]
    # Vectors and the embeddings are less than a tenth of it.
    layers = DEPTH * accum_steps * block_bytes(name)
    along = {axis: sum(c.bytes * c.count for a, c in sums if axis in a) for axis in shape}
    if shape["fsdp"] > 1:
        assert layers <= along["fsdp"] < 1.3 * layers
    if shape["data"] > 1:
        assert layers / shape["fsdp"] <= along["data"] < 1.6 * layers / shape["fsdp"]


@every_step
def test_along_data_nothing_but_sums(name):
    assert {c.kind for axis, c in found(name) if "data" in axis} <= {"all-reduce"}


@steps_with_fsdp
def test_no_device_ever_holds_all_layers_of_a_matrix(name):
    """Neither the parameters nor the sum of their gradients: both stay split."""
    blocks = learner(name).abstract_state().params["encoder"]["blocks"]
    for _, layer in _denses(blocks):
        whole = ",".join(map(str, layer["kernel"].shape))
        part = ",".join(map(str, layer["kernel"].sharding.shard_shape(layer["kernel"].shape)))
        assert f"f32[{whole}]" not in program(name)
        assert f"f32[{part}]" in program(name)


def test_left_to_itself_xla_moves_activations_along_fsdp(monkeypatch):
    """Guards the tests above, and shows what the constraints are for."""
    monkeypatch.setattr(activations, "keep_examples", lambda function, mesh: function)
    text = compiled_step(learner("stacked"), ROWS * 4).as_text()
    moved = [c for c in collectives.find(text) if any(map(is_activation, c.arrays))]
    assert {"fsdp"} <= {collectives.axis_of(c, MESHES["all"]) for c in moved}


def test_one_device_is_left_alone():
    def function(x):
        return x

    assert activations.keep_examples(function, mesh_of()) is function
