"""The time of a training step by roofline (doi:10.1145/1498765.1498785), kernel by kernel.

A product takes the longer of its operations and its memory traffic, every other kernel its
traffic; kernels follow one another. This is an estimate: it knows nothing of tiles
that fit badly, or of waiting for data. The shares of the peaks below are what large kernels reach,
from measurements on Hopper GPUs, and are taken for every device.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from vit_jax.analysis.devices import Device
from vit_jax.analysis.kernels import Kernel

# Of the peak FLOP/s: a bfloat16 product of 8192³ random numbers ran at 788 of an H200's 989e12.
PRODUCT_SHARE = 0.8
MEMORY_SHARE = 0.76  # of the memory bandwidth: 3.65e12 of an H200's 4.8e12 bytes/s
LINK_SHARE = 0.7  # of the links' bandwidth
KERNEL_SECONDS = 3e-6  # least time of a kernel, which has to be launched
# Collectives of parameters and gradients run beside the computing, up to this share of its time.
HIDDEN_SHARE = 0.5

# Bytes that a device takes in, as multiples of (g - 1) / g times the whole array, on a ring of g.
ROUNDS = {"all-reduce": 2}

ASSUMPTIONS = (
    f"the time is an estimate by roofline: products reach {PRODUCT_SHARE:.0%} of the peak, passes "
    f"over memory {MEMORY_SHARE:.0%} and collectives {LINK_SHARE:.0%} of the bandwidth; those of "
    f"parameters and gradients hide behind up to {HIDDEN_SHARE:.0%} of the computing, those of "
    f"activations behind none; no kernel takes less than {KERNEL_SECONDS * 1e6:g} µs; waiting for "
    "data is not counted",
)


def product_seconds(kernels: Iterable[Kernel], device: Device) -> float:
    """Of the matrix products and convolutions, the slower of arithmetic and traffic for each."""
    bandwidth = MEMORY_SHARE * device.memory_bandwidth
    return sum(
        max(
            k.flops / (PRODUCT_SHARE * peak(device, k.itemsize)),
            k.bytes / bandwidth,
            k.count * KERNEL_SECONDS,
        )
        for k in kernels
        if k.itemsize
    )


def pass_seconds(kernels: Iterable[Kernel], device: Device) -> float:
    """Of everything between the products: norms, activations, softmax, casts, sums."""
    return sum(
        max(memory_seconds(k.bytes, device), k.count * KERNEL_SECONDS)
        for k in kernels
        if not k.itemsize
    )


def memory_seconds(moved: float, device: Device) -> float:
    return moved / (MEMORY_SHARE * device.memory_bandwidth)


def peak(device: Device, itemsize: int) -> float:
    """FLOP/s of products of numbers with this many bytes."""
    if itemsize == 1:
        return device.peak_flops_fp8 or device.peak_flops
    return device.peak_flops if itemsize == 2 else device.peak_flops_float32


def collective_seconds(kind: str, size: float, bandwidth: float, group_size: int) -> float:
    """Of a collective over `size` bytes, the whole array's, among `group_size` devices."""
    rounds = ROUNDS.get(kind, 1)
    return rounds * size * (group_size - 1) / group_size / (LINK_SHARE * bandwidth)


def bandwidth(axes: Sequence[str], mesh: Mapping[str, int], device: Device) -> float:
    """Bytes/s that each device takes in along axes of the mesh, whose devices fill the nodes.

    Where a group has several devices in a node, their links to other nodes serve it together.
    """
    numbers = np.arange(math.prod(mesh.values())).reshape(tuple(mesh.values()))
    others = tuple(0 if name not in axes else slice(None) for name in mesh)
    nodes = numbers[others].reshape(-1) // device.devices_per_node
    _, members = np.unique(nodes, return_counts=True)
    if len(members) == 1:
        return device.bandwidth_within
    return min(device.bandwidth_within, device.bandwidth_across * int(members.max()))


def exposed_seconds(hideable: float, exposed: float, computing: float) -> float:
    """What collectives add to the computing."""
    return exposed + max(0.0, hideable - HIDDEN_SHARE * computing)
