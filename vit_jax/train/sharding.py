"""Where arrays live: a mesh of devices and rules from parameter path to layout.

The mesh has three axes. `data` and `fsdp` both split the batch; `fsdp` also splits every
large array of the state (arXiv:1910.02054); `tensor` splits heads and MLP channels. The
arithmetic of a step does not change with the mesh, only where it happens.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import InputError
from vit_jax.train import patterns

AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
# Below this many elements splitting an array costs more in messages than it saves in memory.
SMALLEST_SPLIT = 2**14

# Leaves of the encoder are stacked, so their first axis is depth.
TENSOR_RULES = (
    (r".*blocks/attention/(query|key|value)/kernel", (None, None, "tensor", None)),
    (r".*blocks/attention/(query|key|value)/bias", (None, "tensor", None)),
    (r".*blocks/attention/out/kernel", (None, "tensor", None, None)),
    (r".*blocks/(mlp|token_mlp|channel_mlp)/(up|gate)/kernel", (None, None, "tensor")),
    (r".*blocks/(mlp|token_mlp|channel_mlp)/(up|gate)/bias", (None, "tensor")),
    (r".*blocks/(mlp|token_mlp|channel_mlp)/down/kernel", (None, "tensor", None)),
    (r".*", ()),
)


def make_mesh(*, data: int = -1, fsdp: int = 1, tensor: int = 1, rules: Sequence[Any] = ()) -> Mesh:
    """`config.mesh`: a mesh over all devices.

    Args:
      data, fsdp, tensor: sizes of the axes; one may be -1, which takes what the others leave.
      rules: of one's own, in front of `TENSOR_RULES`; see `read_rules`, which the state's
        placement has to be given.
    """
    read_rules(rules)
    devices = jax.devices()
    return Mesh(order_devices(devices, _axis_sizes(len(devices), data, fsdp, tensor)), AXES)


def order_devices(devices: Sequence[Any], sizes: tuple[int, ...]) -> np.ndarray:
    """The devices in the shape of the mesh.

    Those of one process stand together, so that its rows of a batch are one block. On the TPUs of
    a single process the order follows their torus instead.
    """
    devices = sorted(devices, key=lambda device: device.process_index)
    if devices[0].platform == "tpu" and devices[-1].process_index == devices[0].process_index:
        # A physical axis may have to serve several of ours.
        return mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    return np.asarray(devices).reshape(sizes)


def make_abstract_mesh(
    *,
    num_devices: int,
    data: int = -1,
    fsdp: int = 1,
    tensor: int = 1,
    rules: Sequence[Any] = (),
) -> AbstractMesh:
    """The same over devices that need not be there; shapes can be placed on it, but no arrays."""
    read_rules(rules)
    return AbstractMesh(_axis_sizes(num_devices, data, fsdp, tensor), AXES)


def read_rules(given: Sequence[Any] = ()) -> patterns.Rules:
    """`config.mesh.rules` and then the built-in ones; the first that matches a path holds.

    A rule is (pattern, axes). The pattern matches the end of a parameter's path, from the start of
    a name on. The axes say for each axis of the parameter along which axis of the mesh it is split:
    'tensor', 'fsdp', a list of several, or None; `fsdp` is added where it is free. In place of the
    axes None leaves a parameter whole.
    """
    where = "config.mesh.rules"
    own = []
    for pattern, axes in patterns.check(given, where=where):
        is_list = isinstance(axes, (list, tuple))
        parts = [a if isinstance(a, (list, tuple)) else [a] for a in axes or ()] if is_list else []
        names = [a for part in parts for a in part if a is not None or len(part) > 1]
        is_known = all(isinstance(n, str) and n in AXES for n in names) and len(set(names)) == len(
            names
        )
        if not is_known or not (is_list or axes is None):
            raise InputError(
                f"{where} has {axes!r} for {pattern!r}; allowed: None, or a list with None, one or "
                f"several of {', '.join(AXES)} for each axis of the parameter, none of them twice."
            )
        if is_list:
            axes = tuple(tuple(a) if isinstance(a, list) else a for a in axes)
        own.append((rf"(?:.*/)?(?:{pattern})", axes))
    return (*own, *TENSOR_RULES)


def _axis_sizes(num_devices: int, *given: int) -> tuple[int, ...]:
    sizes = list(given)
    rest = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and rest > 0:
        sizes[sizes.index(-1)] = num_devices // rest
    if min(sizes) < 1 or math.prod(sizes) != num_devices:
        raise InputError(
            f"config.mesh is {dict(zip(AXES, given, strict=True))}, but there are {num_devices} "
            f"devices; allowed: axes whose product is {num_devices}, one of which may be -1."
        )
    return tuple(sizes)


def state_sharding(
    state: Any, mesh: Mesh | AbstractMesh, rules: patterns.Rules = TENSOR_RULES
) -> Any:
    """A tree of `NamedSharding` for a tree of arrays or shapes.

    Optimizer moments and averages carry the parameter's path at the end of their own, so one
    list of rules places all of them alike.
    """

    def place(path: str, leaf: Any) -> NamedSharding:
        axes = patterns.match(rules, path, where="config.mesh.rules")
        return NamedSharding(mesh, _fit(axes, leaf.shape, mesh))

    return patterns.map_paths(place, state)


def num_batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Devices that share a batch; those along `tensor` hold the same examples."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def check_batch_size(
    batch_size: int, mesh: Mesh | AbstractMesh, *, accum_steps: int = 1, where: str
) -> None:
    """Raises unless every device gets equally many rows of every microbatch."""
    shards = num_batch_shards(mesh)
    step = shards * accum_steps
    if batch_size < 1 or batch_size % step:
        above = max(1, -(-batch_size // step)) * step
        raise InputError(
            f"{where} is {batch_size}; allowed: a positive multiple of {step} ({shards} devices "
            f"that share the batch × {accum_steps} accumulation steps), the next is {above}; or a "
            "mesh that shares it among fewer (config.mesh.tensor)."
        )


def to_devices(batches: Iterable[Mapping[str, Any]], mesh: Mesh) -> Iterator[dict[str, jax.Array]]:
    """Turns this host's rows into arrays of the global batch.

    JAX only begins the transfer here: it runs beside the steps that are in flight.
    """
    sharding = batch_sharding(mesh)
    for batch in batches:
        yield {
            name: jax.make_array_from_process_local_data(sharding, rows)
            for name, rows in batch.items()
        }


def _fit(wanted: tuple | None, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Drops axes that do not divide; adds `fsdp` along the largest axis that it divides."""
    if wanted is None:
        return PartitionSpec()
    axes = list(wanted)[: len(shape)] + [None] * (len(shape) - len(wanted))
    axes = [a if d % num_parts(a, mesh) == 0 else None for a, d in zip(axes, shape, strict=True)]
    fsdp, is_used = mesh.shape["fsdp"], "fsdp" in jax.tree.leaves(axes)
    if fsdp > 1 and not is_used and math.prod(shape) >= SMALLEST_SPLIT:
        free = [i for i, a in enumerate(axes) if a is None and shape[i] % fsdp == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)


def num_parts(axes: str | tuple[str, ...] | None, mesh: Mesh | AbstractMesh) -> int:
    """Parts of an axis of an array that these axes of the mesh make."""
    return math.prod(mesh.shape[axis] for axis in jax.tree.leaves(axes))
