"""The mesh and where each array lives on it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec
from toys import classification, image_batch, new_state

from vit_jax.errors import InputError
from vit_jax.train import sharding


@pytest.mark.parametrize(
    "axes, shape",
    [
        (dict(), (8, 1, 1)),
        (dict(data=-1, tensor=2), (4, 1, 2)),
        (dict(data=1, fsdp=-1), (1, 8, 1)),
        (dict(data=2, fsdp=2, tensor=-1), (2, 2, 2)),
        (dict(data=4, fsdp=2), (4, 2, 1)),
    ],
)
def test_minus_one_takes_what_the_others_leave(axes, shape):
    mesh = sharding.make_mesh(**axes)
    assert tuple(mesh.shape.values()) == shape
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert sorted(d.id for d in mesh.devices.flat) == list(range(8))


@pytest.mark.parametrize(
    "axes",
    [
        dict(data=3),
        dict(data=16),
        dict(data=4),
        dict(data=-1, fsdp=3),
        dict(data=-1, fsdp=16),
        dict(data=-1, fsdp=-1),
        dict(data=0),
        dict(data=-1, fsdp=0),
        dict(data=-2, fsdp=-4),
    ],
)
def test_meshes_that_do_not_fit_are_told_with_the_number_of_devices(axes):
    with pytest.raises(InputError, match="config.mesh is .*there are 8 devices; allowed"):
        sharding.make_mesh(**axes)


@dataclasses.dataclass
class Device:
    """What the order of devices depends on."""

    place: int
    process_index: int = 0
    platform: str = "cpu"


def test_devices_keep_their_order_and_those_of_a_process_stand_together():
    """So that the rows of one host are one block of the global batch."""
    for platform in ("cpu", "tpu"):
        devices = [Device(i, process, platform) for i, process in enumerate((1, 0, 1, 0))]
        found = sharding.order_devices(devices, (2, 2, 1))
        assert [device.place for device in found.flat] == [1, 3, 0, 2]


def test_a_tpu_of_one_process_is_ordered_by_its_torus(monkeypatch):
    """No TPU is at hand; this shows only that JAX is asked, and for what."""
    asked = []

    def order(sizes, devices, *, allow_split_physical_axes):
        asked.append((sizes, allow_split_physical_axes))
        return np.asarray(devices[::-1])

    monkeypatch.setattr(sharding.mesh_utils, "create_device_mesh", order)
    devices = [Device(i, platform="tpu") for i in range(4)]
    assert sharding.order_devices(devices, (2, 2, 1)).tolist() == devices[::-1]
    assert asked == [((2, 2, 1), True)]


# placement


def places_of(shape, path="x", **axes):
    mesh = sharding.make_mesh(**axes)
    *parents, leaf = path.split("/")
    tree = {leaf: jax.ShapeDtypeStruct(shape, jnp.float32)}
    for parent in reversed(parents):
        tree = {parent: tree}
    (place,) = jax.tree.leaves(sharding.state_sharding(tree, mesh))
    return place.spec


@pytest.mark.parametrize(
    "shape, spec",
    [
        ((256, 512), (None, "fsdp")),  # the largest axis
        ((512, 256), ("fsdp", None)),
        ((512, 257), ("fsdp", None)),
        ((513, 256), (None, "fsdp")),  # the largest that divides
        ((511, 257), (None, None)),  # none does
        ((3, 128, 3, 64), (None, "fsdp", None, None)),
        ((127, 128), (None, None)),  # smaller than SMALLEST_SPLIT
        ((128, 128), ("fsdp", None)),  # not smaller
        ((), ()),
    ],
)
def test_fsdp_splits_the_largest_axis_that_it_divides(shape, spec):
    assert places_of(shape, data=1, fsdp=8) == PartitionSpec(*spec)


def test_without_fsdp_nothing_is_split():
    assert places_of((512, 512)) == PartitionSpec(None, None)


BLOCKS = "params/encoder/blocks"


@pytest.mark.parametrize(
    "path, shape, spec",
    [
        ("attention/query/kernel", (2, 64, 4, 128), (None, None, "tensor", "fsdp")),
        ("attention/query/kernel", (2, 128, 4, 64), (None, "fsdp", "tensor", None)),
        ("attention/value/bias", (2, 4, 16), (None, "tensor", None)),
        ("attention/out/kernel", (2, 4, 64, 128), (None, "tensor", None, "fsdp")),
        ("mlp/up/kernel", (2, 128, 256), (None, "fsdp", "tensor")),
        ("mlp/up/bias", (2, 256), (None, "tensor")),
        ("mlp/gate/kernel", (2, 128, 256), (None, "fsdp", "tensor")),
        ("token_mlp/up/kernel", (2, 196, 256), (None, "fsdp", "tensor")),
        ("channel_mlp/down/bias", (2, 128), (None, None)),
        ("mlp/down/kernel", (2, 256, 128), (None, "tensor", "fsdp")),
        ("mlp/down/bias", (2, 128), (None, None)),
        ("attention/query/kernel", (2, 64, 3, 64), (None, "fsdp", None, None)),  # odd heads
    ],
)
def test_tensor_splits_heads_and_mlp_channels(path, shape, spec):
    found = places_of(shape, f"{BLOCKS}/{path}", data=2, fsdp=2, tensor=2)
    assert found == PartitionSpec(*spec)


@pytest.mark.parametrize("axes", [dict(data=1, fsdp=8), dict(data=2, fsdp=2, tensor=2)], ids=str)
def test_moments_and_averages_live_where_their_parameters_do(axes, monkeypatch):
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))
    task = classification({})
    state = jax.eval_shape(lambda: new_state(task, tx, image_batch(2), ema=True))
    places = sharding.state_sharding(state, sharding.make_mesh(**axes))
    is_adam = lambda node: isinstance(node, optax.ScaleByAdamState)  # noqa: E731
    adam = next(s for s in jax.tree.leaves(places.opt_state, is_leaf=is_adam) if is_adam(s))
    assert places.params == adam.mu == adam.nu == places.ema_params
    split = [place for place in jax.tree.leaves(places.params) if not place.is_fully_replicated]
    assert len(split) > len(jax.tree.leaves(places.params)) / 2
    for scalar in (places.step, places.rng, adam.count):
        assert scalar.is_fully_replicated


# batches


@pytest.mark.parametrize(
    "batch_size, accum_steps, axes",
    [(8, 1, dict()), (16, 2, dict()), (4, 1, dict(data=4, tensor=2)), (8, 1, dict(fsdp=2))],
)
def test_batch_sizes_that_devices_can_share_are_accepted(batch_size, accum_steps, axes):
    mesh = sharding.make_mesh(**{"data": -1, **axes})
    sharding.check_batch_size(batch_size, mesh, accum_steps=accum_steps, where="x")


@pytest.mark.parametrize(
    "batch_size, accum_steps, message",
    [
        (12, 1, r"config.b is 12; allowed: a positive multiple of 8 \(8 dev.* 1 acc.*next is 16;"),
        (24, 2, r"config.b is 24; allowed: a positive multiple of 16 \(8 dev.* 2 acc.*next is 32;"),
        (0, 1, "config.b is 0; allowed: a positive multiple of 8.*next is 8;"),
        (-8, 1, "config.b is -8; allowed: a positive"),
    ],
)
def test_other_batch_sizes_are_told_the_multiple(batch_size, accum_steps, message):
    mesh = sharding.make_mesh(data=4, fsdp=2)
    with pytest.raises(InputError, match=message):
        sharding.check_batch_size(batch_size, mesh, accum_steps=accum_steps, where="config.b")


@pytest.mark.parametrize("axes", [dict(), dict(data=2, fsdp=2, tensor=2)], ids=str)
def test_batches_go_to_the_devices_whole_and_in_order(axes):
    mesh = sharding.make_mesh(**axes)
    batches = [{"x": np.arange(16.0).reshape(8, 2) + i, "mask": np.ones(8, bool)} for i in range(3)]
    placed = list(sharding.to_devices(batches, mesh))
    assert len(placed) == 3
    for before, after in zip(batches, placed, strict=True):
        assert after["x"].sharding == sharding.batch_sharding(mesh)
        assert after["mask"].dtype == bool
        np.testing.assert_array_equal(after["x"], before["x"])
    rows = {shard.data.shape[0] for shard in placed[0]["x"].addressable_shards}
    assert rows == {8 // (mesh.shape["data"] * mesh.shape["fsdp"])}


def test_batches_are_fetched_one_at_a_time():
    taken = []

    def batches():
        for i in range(10):
            taken.append(i)
            yield {"x": np.zeros((8, 1))}

    next(sharding.to_devices(batches(), sharding.make_mesh()))
    assert taken == [0]
