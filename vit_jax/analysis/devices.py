"""What the devices that runs are planned for can do, from their vendors' data sheets.

FLOP/s are dense (data sheets of NVIDIA's list twice as much, "with sparsity"), bytes are counted
in powers of ten, and a bandwidth is what one device can take in while it sends as much, in
bytes/s. A node is what the fast interconnect joins: the GPUs of a server, or a TPU slice of the
largest size. A device is what JAX calls one: of TPU v3 a core, of later ones a chip.

Sources. NVIDIA's data sheets of the V100, A100, H100 (SXM, PCIe, NVL), H200 (SXM) and DGX B200:
peaks, memory, NVLink (half of what they print, which adds both directions). NVIDIA's data sheets of
the DGX-1 (4 × 100 Gbit/s), DGX A100 (8 × 200) and DGX H100, H200, B200 (8 × 400): `across`, shared
by eight GPUs. Google Cloud's documentation, pages TPU v3, v4, v5e, v5p, v6e: peaks, memory, slice
sizes. "How to Scale Your Model" (Austin et al. 2025), chapter "How to Think About TPUs": the TPUs'
links, of which one axis of the torus is counted in both directions, and `across`, between slices.
"""

import dataclasses

from vit_jax import sections


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """One device.

    Attributes:
      kinds: parts of `device.device_kind` in lower case by which JAX's devices are known.
      peak_flops: FLOP/s in bfloat16 (V100: float16); None where it is not known.
      peak_flops_fp8: FLOP/s in 8-bit floats; None where products of these have no hardware.
      peak_flops_float32: FLOP/s of float32 at JAX's default precision: TensorFloat-32 on GPUs
        that have it, bfloat16 on TPUs.
      memory_bytes, memory_bandwidth: of the device's own memory.
      bandwidth_within, bandwidth_across: bytes/s of a device within and between nodes.
      devices_per_node: see above.
      backend: as JAX names it: 'gpu', 'tpu' or 'cpu'.
    """

    kinds: tuple[str, ...]
    backend: str
    peak_flops: float | None = None
    peak_flops_fp8: float | None = None
    peak_flops_float32: float | None = None
    memory_bytes: float | None = None
    memory_bandwidth: float | None = None
    bandwidth_within: float | None = None
    bandwidth_across: float | None = None
    devices_per_node: int = 1


def _gpu(
    *kinds: str,
    peak: float,
    float32: float,
    memory: tuple[float, float],
    links: tuple[float, float],
    **more,
):
    return Device(
        kinds=kinds,
        backend="gpu",
        peak_flops=peak,
        peak_flops_float32=float32,
        memory_bytes=memory[0],
        memory_bandwidth=memory[1],
        bandwidth_within=links[0],
        bandwidth_across=links[1],
        devices_per_node=8,
        **more,
    )


def _tpu(
    *kinds: str, peak: float, memory: tuple[float, float], links: tuple[float, float], slice: int
):
    return Device(
        kinds=kinds,
        backend="tpu",
        peak_flops=peak,
        peak_flops_float32=peak,
        memory_bytes=memory[0],
        memory_bandwidth=memory[1],
        bandwidth_within=links[0],
        bandwidth_across=links[1],
        devices_per_node=slice,
    )


GIB = 2**30  # Google's pages say GiB, or mean it
# The order counts: the first whose kind is a part of the device's own name is the one.
DEVICES = {
    "b200": _gpu(
        "b200",
        peak=2250e12,
        float32=1100e12,
        peak_flops_fp8=4500e12,
        memory=(180e9, 8e12),
        links=(900e9, 50e9),
    ),
    "h200": _gpu(
        "h200",
        peak=989e12,
        float32=494e12,
        peak_flops_fp8=1979e12,
        memory=(141e9, 4.8e12),
        links=(450e9, 50e9),
    ),
    # Cards meet over PCIe 5, but for bridged pairs; a server is taken to have 2 × 400 Gbit/s.
    "h100-pcie": _gpu(
        "h100 pcie",
        peak=756e12,
        float32=378e12,
        peak_flops_fp8=1513e12,
        memory=(80e9, 2e12),
        links=(64e9, 12.5e9),
    ),
    "h100-nvl": _gpu(
        "h100 nvl",
        peak=835e12,
        float32=417e12,
        peak_flops_fp8=1671e12,
        memory=(94e9, 3.9e12),
        links=(64e9, 12.5e9),
    ),
    "h100": _gpu(
        "h100",
        peak=989e12,
        float32=494e12,
        peak_flops_fp8=1979e12,
        memory=(80e9, 3.35e12),
        links=(450e9, 50e9),
    ),
    "a100-40": _gpu(
        "a100-sxm4-40",
        "a100-pcie-40",
        peak=312e12,
        float32=156e12,
        memory=(40e9, 1.555e12),
        links=(300e9, 25e9),
    ),
    "a100": _gpu("a100", peak=312e12, float32=156e12, memory=(80e9, 2.039e12), links=(300e9, 25e9)),
    "v100-32": _gpu(
        "v100-sxm2-32", peak=125e12, float32=15.7e12, memory=(32e9, 900e9), links=(150e9, 6.25e9)
    ),
    "v100": _gpu("v100", peak=125e12, float32=15.7e12, memory=(16e9, 900e9), links=(150e9, 6.25e9)),
    "v6e": _tpu(
        "tpu v6", peak=918e12, memory=(32 * GIB, 1.638e12), links=(180e9, 12.5e9), slice=256
    ),
    "v5e": _tpu(  # the first is what it calls itself
        *("tpu v5 lite", "tpu v5e"),
        peak=197e12,
        memory=(16 * GIB, 819e9),
        links=(90e9, 3.125e9),
        slice=256,
    ),
    "v5p": _tpu(  # calls itself v5
        "tpu v5", peak=459e12, memory=(95 * GIB, 2.765e12), links=(180e9, 6.25e9), slice=8960
    ),
    "v4": _tpu("tpu v4", peak=275e12, memory=(32 * GIB, 1.2e12), links=(90e9, 6.25e9), slice=4096),
    "v3": _tpu(  # a core: half of a chip's 123e12, 32 GiB, 900e9 bytes/s and links
        "tpu v3", peak=61.5e12, memory=(16 * GIB, 450e9), links=(100e9, 3.125e9), slice=2048
    ),
    "cpu": Device(kinds=("cpu",), backend="cpu"),
}


def find(name: str, *, where: str = "--device") -> Device:
    """The device of this name, in lower or upper case; `InputError` lists the names."""
    return sections.choose(DEVICES, name.lower(), where=where)


def name_of(kind: str) -> str | None:
    """The table's name of what JAX or PyTorch call a device; None for what is not in it."""
    kind = kind.lower()
    matches = (name for name, d in DEVICES.items() if any(part in kind for part in d.kinds))
    return next(matches, None)
