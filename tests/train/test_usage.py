"""Memory that was used at most: of the process, and of devices that count it."""

import dataclasses

import jax
import numpy as np

from vit_jax.train.usage import high_water_marks


@dataclasses.dataclass
class Device:
    stats: dict | None

    def memory_stats(self):
        return self.stats


def test_the_process_is_counted_where_devices_do_not_count():
    marks = high_water_marks()
    assert marks.keys() == {"memory/host_peak_bytes"}
    assert marks["memory/host_peak_bytes"] > 50e6  # Python, NumPy and JAX alone need more


def test_the_mark_of_the_process_rises_with_what_it_holds_and_never_falls():
    before = high_water_marks()["memory/host_peak_bytes"]
    array = np.ones(int(before // 8) + 2**23)  # more than the process has ever held
    held = high_water_marks()["memory/host_peak_bytes"]
    assert held >= array.nbytes
    del array
    assert high_water_marks()["memory/host_peak_bytes"] >= held


def test_the_fullest_device_counts(monkeypatch):
    stats = [{"peak_bytes_in_use": 3, "bytes_in_use": 9}, {"peak_bytes_in_use": 5}, None, {}]
    monkeypatch.setattr(jax, "local_devices", lambda: list(map(Device, stats)))
    assert high_water_marks()["memory/device_peak_bytes"] == 5
