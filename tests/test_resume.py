"""Killed, preempted or damaged, a run ends with the bits of an uninterrupted one."""

import os
import random
import signal
import time

import numpy as np
import pytest
from finished_runs import assert_same_run, final_leaves, steps_on_disk, train_rows
from helpers import NUM_STEPS, ROOT, finish, start, train_arguments

from vit_jax.train.preemption import EXIT_PREEMPTED


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    code, text = finish(train_arguments(folder / "run"), folder / "out.txt")
    assert code == 0, text
    return folder / "run"


def test_killed_at_any_moment_ends_bit_identical(whole_run, tmp_path):
    """SIGKILL three times: after the first checkpoint, and then at random moments."""
    workdir, output = tmp_path / "run", tmp_path / "out.txt"
    moment = random.Random(0)
    kills = 0
    for _ in range(3):
        process = start(train_arguments(workdir), output)
        deadline = time.monotonic() + 120
        known = set(steps_on_disk(workdir))
        while set(steps_on_disk(workdir)) <= known and process.poll() is None:
            assert time.monotonic() < deadline, output.read_text()
            time.sleep(0.005)
        time.sleep(moment.uniform(0, 0.05))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert kills, "the run was over before it could be killed: make it longer"
    code, text = finish(train_arguments(workdir), output)
    assert code == 0, text
    assert "resuming after step" in output.read_text()
    assert_same_run(whole_run, workdir)


METHODS = {
    "mae": [
        f"--config={ROOT / 'configs' / 'mae.py'}:digits",
        "--config.task.model.depth=1",
        "--config.task.decoder.depth=1",
        "--config.data.batch_size=16",
        "--config.train.num_epochs=None",
    ],
    "dino": [
        f"--config={ROOT / 'configs' / 'dino_small.py'}:digits",
        "--config.task.model.depth=1",
        "--config.data.batch_size=16",
        "--config.train.num_epochs=None",
    ],
}
# Eleven checkpoints come after the first, behind which the run is killed: time enough.
MANY_STEPS = [
    "--config.train.num_steps=48",
    "--config.optimizer.warmup_steps=2",
    "--config.train.log_every=4",
    "--config.train.checkpoint_every=4",
]


@pytest.mark.parametrize("arguments", METHODS.values(), ids=METHODS)
def test_a_method_without_labels_killed_once_ends_bit_identical(arguments, tmp_path):
    arguments = [*arguments, *MANY_STEPS]
    whole, workdir, output = (tmp_path / name for name in ("whole", "run", "out.txt"))
    code, text = finish(["train", *arguments, f"--workdir={whole}"], output)
    assert code == 0, text
    arguments = ["train", *arguments, f"--workdir={workdir}"]
    process, deadline = start(arguments, output), time.monotonic() + 120
    while not steps_on_disk(workdir):
        assert time.monotonic() < deadline and process.poll() is None, output.read_text()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    code, text = finish(arguments, output)
    assert code == 0 and "resuming after step" in text
    assert_same_run(whole, workdir)


def test_sigterm_saves_and_exits_with_its_own_code(whole_run, tmp_path):
    workdir, output = tmp_path / "run", tmp_path / "out.txt"
    # No periodic checkpoints: what is resumed is what SIGTERM saved.
    arguments = train_arguments(workdir, train__checkpoint_every=0, train__log_every=1)
    process = start(arguments, output)
    deadline = time.monotonic() + 120
    while not (workdir / "metrics.jsonl").exists() or not (workdir / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline and process.poll() is None, output.read_text()
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == EXIT_PREEMPTED, output.read_text()
    assert "stopped by SIGTERM after step" in output.read_text()
    (saved,) = steps_on_disk(workdir)
    assert 0 < int(saved) < NUM_STEPS
    code, text = finish(train_arguments(workdir), output)
    assert code == 0 and f"resuming after step {saved}" in text
    left, right = final_leaves(whole_run), final_leaves(workdir)
    assert all(np.array_equal(left[name], right[name]) for name in left)


def test_damaged_newest_checkpoint_is_told_and_the_one_before_is_used(whole_run, tmp_path):
    workdir, output = tmp_path / "run", tmp_path / "out.txt"
    code, text = finish(train_arguments(workdir), output)
    assert code == 0, text
    (workdir / "result.json").unlink()  # as if killed before it was written
    newest = max(steps_on_disk(workdir), key=int)
    victim = max(
        (workdir / "checkpoints" / newest / "state").rglob("*"), key=lambda p: p.stat().st_size
    )
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1  # one flipped bit, which Orbax would not notice
    victim.write_bytes(content)
    code, text = finish(train_arguments(workdir), output)
    assert code == 0, text
    assert f"checkpoint of step {newest} is damaged" in text
    assert "resuming after step 18" in text
    assert_same_run(whole_run, workdir)


def test_finished_run_says_so_and_does_nothing(whole_run, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.name != "config.json"}
    code, text = finish(train_arguments(whole_run), tmp_path / "out.txt")
    assert code == 0 and "is finished" in text and "test/top1" in text
    after = {p: p.stat().st_mtime_ns for p in whole_run.rglob("*") if p.name != "config.json"}
    assert {p: t for p, t in after.items() if p.is_file()} == {
        p: t for p, t in before.items() if p.is_file()
    }


def test_resumes_on_another_number_of_devices(whole_run, tmp_path):
    """Four devices, two of them splitting the state, continue what one began."""
    workdir, output = tmp_path / "run", tmp_path / "out.txt"
    process = start(train_arguments(workdir), output)
    while not steps_on_disk(workdir):
        assert process.poll() is None, output.read_text()
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    arguments = train_arguments(workdir, mesh__data=2, mesh__fsdp=2)
    code, text = finish(arguments, output, devices=4)
    assert code == 0, text
    assert "resuming after step" in text
    left, right = train_rows(whole_run), train_rows(workdir)
    # Another order of summation; Adam turns tiny gradient differences into larger updates.
    np.testing.assert_allclose(left[NUM_STEPS], right[NUM_STEPS], rtol=1e-3)
