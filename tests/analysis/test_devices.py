"""The table of devices is consistent with itself and with what devices call themselves."""

import jax
import pytest

from vit_jax.analysis.devices import DEVICES, find, name_of
from vit_jax.errors import InputError


@pytest.mark.parametrize(
    "called, name",
    [
        ("NVIDIA B200", "b200"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H100 NVL", "h100-nvl"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
        ("NVIDIA A100-SXM4-40GB", "a100-40"),
        ("Tesla V100-SXM2-16GB", "v100"),
        ("Tesla V100-SXM2-32GB", "v100-32"),
        ("TPU v3", "v3"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5e", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("AMD Instinct MI300X", None),
    ],
)
def test_devices_are_known_by_the_name_they_give_themselves(called, name):
    """TPU names as in jax/_src/pallas/mosaic/tpu_info.py."""
    assert name_of(called) == name


def test_this_machines_cpu_is_known_and_has_no_peak():
    name = name_of(jax.devices("cpu")[0].device_kind)
    assert name == "cpu" and find(name).peak_flops is None


def test_units_and_ratios_are_those_of_real_devices():
    """A slip of a thousand, or of bits for bytes, breaks one of these."""
    for name, device in DEVICES.items():
        if name == "cpu":
            continue
        operations_per_byte = device.peak_flops / device.memory_bandwidth
        assert 100 < operations_per_byte < 600, name
        assert 10e9 < device.memory_bytes < 200e9, name
        # Filling the memory once takes 10 to 50 ms; nodes are farther apart than neighbours.
        assert 0.01 < device.memory_bytes / device.memory_bandwidth < 0.05, name
        assert device.memory_bandwidth > device.bandwidth_within > 5 * device.bandwidth_across, name
        if device.peak_flops_fp8:
            assert device.peak_flops_fp8 == pytest.approx(2 * device.peak_flops, rel=0.01), name


def test_unknown_device_is_one_sentence():
    assert find("H100") is DEVICES["h100"]
    with pytest.raises(InputError, match="--device is 'h1000'.*did you mean 'h100'.*allowed: b200"):
        find("h1000")
