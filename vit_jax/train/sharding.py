"""Where arrays live: a mesh of devices and rules from parameter path to layout.

The mesh has three axes. `data` and `fsdp` both split the batch; `fsdp` also splits every
large array of the state (arXiv:1910.02054); `tensor` splits heads and MLP channels. The
arithmetic of a step does not change with the mesh, only where it happens.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
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
    (r".*blocks/mlp/up/kernel", (None, None, "tensor")),
    (r".*blocks/mlp/up/bias", (None, "tensor")),
    (r".*blocks/mlp/down/kernel", (None, "tensor", None)),
    (r".*", ()),
)


def make_mesh(*, data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """A mesh over all devices; one axis may be -1, which takes what the others leave."""
    devices = jax.devices()
    sizes = _axis_sizes(len(devices), data, fsdp, tensor)
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def make_abstract_mesh(
    *, num_devices: int, data: int = -1, fsdp: int = 1, tensor: int = 1
) -> AbstractMesh:
    """The same over devices that need not be there; shapes can be placed on it, but no arrays."""
    return AbstractMesh(_axis_sizes(num_devices, data, fsdp, tensor), AXES)


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
        spec = patterns.match(rules, path, where="config.mesh.rules")
        return NamedSharding(mesh, _fit(spec, leaf.shape, mesh))

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
    if batch_size < 1 or batch_size % (shards * accum_steps):
        raise InputError(
            f"{where} is {batch_size}; allowed: a positive multiple of {shards * accum_steps} "
            f"({shards} devices that share the batch × {accum_steps} accumulation steps)."
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


def _fit(spec: tuple, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Drops axes that do not divide; adds `fsdp` along the largest axis that it divides."""
    axes = list(spec)[: len(shape)] + [None] * (len(shape) - len(spec))
    axes = [a if a and d % mesh.shape[a] == 0 else None for a, d in zip(axes, shape, strict=True)]
    fsdp = mesh.shape["fsdp"]
    if fsdp > 1 and math.prod(shape) >= SMALLEST_SPLIT:
        free = [i for i, a in enumerate(axes) if a is None and shape[i] % fsdp == 0]
        if free:
            axes[max(free, key=lambda i: shape[i])] = "fsdp"
    return PartitionSpec(*axes)
