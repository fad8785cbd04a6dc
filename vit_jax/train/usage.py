"""The most memory that this process has used so far, in bytes."""

import resource
import sys

import jax

# getrusage counts in KiB, but on macOS in bytes.
RSS_UNIT = 1 if sys.platform == "darwin" else 1024


def high_water_marks() -> dict[str, float]:
    """By name:

    memory/device_peak_bytes: of the fullest of this process's devices, as its allocator counts;
      absent where a backend has no such count (CPUs).
    memory/host_peak_bytes: the process's largest resident set, without its data workers. On CPUs
      this holds the arrays of all devices, too.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [found["peak_bytes_in_use"] for found in stats if "peak_bytes_in_use" in found]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    marks = {"memory/device_peak_bytes": float(max(peaks))} if peaks else {}
    return marks | {"memory/host_peak_bytes": float(host)}
