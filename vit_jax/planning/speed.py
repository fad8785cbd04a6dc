"""The time of a planned step: kernels of each microbatch, the optimizer, collectives.

Collectives are those that the mesh must cause; what a compiler really makes is `compiled.py`'s.
Bytes are of whole arrays on one device, as in `analysis.collectives`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax

from vit_jax.analysis import memory, roofline
from vit_jax.analysis.devices import Device
from vit_jax.core import Task
from vit_jax.planning.work import Work

# Times that optimizer state and parameters cross the memory bus: each is read and written.
READ_AND_WRITE = 2


class Traffic(NamedTuple):
    """Collectives of a kind along mesh axes, in a step."""

    axes: tuple[str, ...]
    kind: str
    bytes_per_step: float
    count: int | None  # executions; None where a compiler chooses it


class StepTime(NamedTuple):
    """Seconds of a step, by part."""

    products: float
    passes: float  # over memory, between products
    optimizer: float
    collectives: float  # all of them
    exposed: float  # what of them adds to the step

    @property
    def total(self) -> float:
        return self.products + self.passes + self.optimizer + self.exposed


def expected_traffic(work: Work, accum_steps: int) -> list[Traffic]:
    """What data, fsdp and tensor parallelism have to send in a step."""
    learner, found = work.learner, []
    split = whole = 0
    for leaf in jax.tree.leaves(work.state.params):
        size = memory.device_bytes(leaf)
        is_split = "fsdp" in tuple(leaf.sharding.spec)
        split += size * learner.mesh.shape["fsdp"] if is_split else 0
        whole += 0 if is_split else size
    if (ways := learner.mesh.shape["fsdp"]) > 1:
        # Parameters for the forward and for the backward pass; gradients once.
        found.append(Traffic(("fsdp",), "all-gather", 2.0 * split * accum_steps, None))
        found.append(Traffic(("fsdp",), "reduce-scatter", 1.0 * split * accum_steps, None))
    if learner.mesh.shape["data"] > 1:
        size = (split / ways + whole) * accum_steps
        found.append(Traffic(("data",), "all-reduce", size, None))
    if learner.mesh.shape["tensor"] > 1:
        sums = sum(k.summed_bytes for k in work.kernels(work.rows // accum_steps))
        found.append(Traffic(("tensor",), "all-reduce", sums * accum_steps, None))
    return found


def step_time(work: Work, accum_steps: int, device: Device, traffic: Sequence[Traffic]) -> StepTime:
    kernels = work.kernels(work.rows // accum_steps)
    products = accum_steps * roofline.product_seconds(kernels, device)
    passes = accum_steps * roofline.pass_seconds(kernels, device)
    optimizer = roofline.memory_seconds(update_bytes(work, accum_steps), device)
    mesh = dict(work.learner.mesh.shape)
    seconds = {part: link_seconds(part, mesh, device) for part in traffic}
    exposed = sum(s for part, s in seconds.items() if "tensor" in part.axes)
    hideable = sum(seconds.values()) - exposed
    added = roofline.exposed_seconds(hideable, exposed, products + passes)
    return StepTime(products, passes, optimizer, hideable + exposed, added)


def link_seconds(part: Traffic, mesh: Mapping[str, int], device: Device) -> float:
    group_size = math.prod(mesh[axis] for axis in part.axes)
    bandwidth = roofline.bandwidth(part.axes, mesh, device)
    return roofline.collective_seconds(part.kind, part.bytes_per_step, bandwidth, group_size)


def update_bytes(work: Work, accum_steps: int) -> int:
    """What the optimizer, and summing the gradients of microbatches, move in a step."""
    state = work.state
    parameters = memory.device_bytes(state.params)
    kept = parameters + memory.device_bytes((state.opt_state, state.ema_params))
    # A teacher that follows the student; one that stands still is neither read here nor written.
    if type(work.learner.task).update_task_state is not Task.update_task_state:
        kept += memory.device_bytes(state.task_state)
    # A sum over microbatches is read and written for each, whose own gradient is read.
    sums = 3 * parameters * accum_steps if accum_steps > 1 else 0
    return READ_AND_WRITE * kept + parameters + sums
