"""Processes that were not given one and the same run are told so before anything is compiled."""

import threading

import pytest
from helpers import train_arguments
from together import Together

from vit_jax import one_run
from vit_jax.errors import InputError
from vit_jax.train import hosts


def test_another_config_or_workdir_is_refused_by_all(tmp_path):
    command = ["-m", "vit_jax", *train_arguments(tmp_path / "run")]
    last = ["--config.optimizer.learning_rate=0.5", "--config.data.prefetch=1"]
    last += [f"--workdir={tmp_path / 'elsewhere'}"]
    run = Together(command, tmp_path, "alike", last=last)
    assert run.codes() == [2, 2], run.texts()
    said = [text.strip().splitlines()[-1] for text in run.texts()]
    assert said[0] == said[1]
    assert said[0].startswith("error: process 1: was given another run than process 0")
    assert "learning_rate: 0.002 there, 0.5 now" in said[0] and "elsewhere" in said[0]
    assert "prefetch" not in said[0]  # may differ
    assert not (tmp_path / "run").exists() and not (tmp_path / "elsewhere").exists()


def test_a_file_may_appear_late_or_not_at_all(tmp_path):
    path = tmp_path / "lock"
    assert not one_run.appears(path, seconds=0)
    timer = threading.Timer(0.3, path.touch)
    timer.start()
    assert one_run.appears(path, seconds=60)
    timer.join()


def test_a_process_that_does_not_see_the_folder_is_told(tmp_path, monkeypatch):
    """Process 1 of two, were process 0 to have its lock on another disk."""
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    monkeypatch.setattr(one_run, "PATIENCE_SECONDS", 0)
    refused = pytest.raises(InputError, match="a file system that all hosts share")
    with refused, one_run.claimed(tmp_path, {}):
        pass


def test_processes_have_as_many_devices(monkeypatch):
    monkeypatch.setattr(hosts, "count", lambda: 2)
    hosts.check_devices([0, 0, 1, 1])
    for owners in ([0, 1, 1, 1], [1, 1]):
        with pytest.raises(InputError, match="as many for each"):
            hosts.check_devices(owners)
