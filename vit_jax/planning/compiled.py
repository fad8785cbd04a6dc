"""The real training step, compiled for virtual CPU devices and not run.

Exact are the bytes of arguments and results on a device, and which collectives there are along
which axis. Two things are the CPU compiler's own. Temporary buffers: it fuses less, keeps
attention's weights, and computes much of bfloat16 in float32; and it widens sums of bfloat16 that
devices add up. The layers are compiled in one pass each, which changes none of the collectives and
takes seconds at any depth.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from vit_jax.analysis import collectives
from vit_jax.learner import Learner
from vit_jax.planning.model import setting
from vit_jax.planning.search import set_key
from vit_jax.planning.speed import Traffic
from vit_jax.train import sharding


class Compiled(NamedTuple):
    """What a compiled step says of itself; bytes are of one device."""

    seconds: float  # of tracing and compiling
    backend: str
    memory: Mapping[str, int]  # by part, see `train.compiling.CompiledStep`
    traffic: list[Traffic]
    is_exact: bool  # are all collectives' executions known?


def make_devices(count: int) -> bool:
    """Makes this process have so many virtual CPU devices; False if it has others already."""
    try:
        jax.config.update("jax_num_cpu_devices", count)
        jax.config.update("jax_platforms", "cpu")
    except RuntimeError:  # the backend has begun, and nothing was changed
        pass
    return jax.device_count() == count


def compile_step(
    config: Mapping[str, Any],
    batch_size: int,
    build: Callable[[Mapping[str, Any], Any], Learner],
    mesh_shape: Mapping[str, int],
) -> Compiled:
    """Compiles for this process's devices, which are as many as the mesh needs."""
    mesh = sharding.make_mesh(**mesh_shape)
    learner = build(config, mesh)
    if setting(learner, "unroll") is not None:
        learner = build(set_key(config, ("task", "model", "unroll"), 1), mesh)
    step = learner.compile_step(batch_size)
    found = collectives.find(step.call.as_text())
    return Compiled(
        seconds=step.seconds,
        backend=jax.default_backend(),
        memory=step.memory,
        traffic=add_up(found, mesh_shape),
        is_exact=all(one.is_exact for one in found),
    )


def add_up(found: list[collectives.Collective], mesh_shape: Mapping[str, int]) -> list[Traffic]:
    """By axes and kind, the largest first."""
    sizes, counts = defaultdict(int), defaultdict(int)
    for one in found:
        key = tuple(collectives.axis_of(one, mesh_shape).split("+")), one.kind
        sizes[key] += one.bytes * one.count
        counts[key] += one.count
    traffic = [Traffic(*key, sizes[key], counts[key]) for key in sizes]
    return sorted(traffic, key=lambda part: -part.bytes_per_step)
