"""Two real processes train as one: the same bits, the same end, and no waiting in vain.

Each test that starts processes says in one run what could be several: starting costs the most.
"""

import json
import signal
import time

import numpy as np
import pytest
from finished_runs import assert_same_end, metrics_of, steps_on_disk
from helpers import NUM_STEPS, ROOT, finish, train_arguments
from host_program import BAD_BATCH, BATCH, BATCHES, MESHES, STOP_AT
from PIL import Image
from together import Together

from vit_jax.train.agreement import LAG
from vit_jax.train.hosts import EXIT_LOST
from vit_jax.train.preemption import EXIT_PREEMPTED


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """What host_program.py wrote, by process."""
    folder = tmp_path_factory.mktemp("told")
    program = str(ROOT / "tests" / "host_program.py")
    together = Together([program, str(folder)], folder, "out", devices=4)
    assert together.codes() == [0, 0], together.texts()
    return [json.loads((folder / f"{i}.json").read_text()) for i in range(2)]


def test_rows_follow_the_devices_that_hold_them(told):
    """The tensor axis over both hosts: both read all rows."""
    for i in range(2):
        shares = {name: tuple(share) for name, share in told[i]["shares"].items()}
        halves = dict.fromkeys(MESHES, (i, 2))
        assert shares == halves | {"tensor": (0, 1)}


@pytest.mark.parametrize("name", MESHES)
def test_each_host_opens_its_own_examples_alone(told, name):
    first, second = (t["reading"][name] for t in told)
    for one in (first, second):
        assert sorted(one["opened"]) == sorted(one["own"])
    assert first["global"] == second["global"]
    assert all(len(batch) == len(set(batch)) == BATCH for batch in first["global"])
    if name == "tensor":
        assert first["own"] == second["own"] == np.concatenate(first["global"]).tolist()
    else:
        half = BATCH // 2
        for k in range(BATCHES):
            part = slice(k * half, (k + 1) * half)
            assert first["own"][part] + second["own"][part] == first["global"][k]


def test_the_batches_are_those_of_any_mesh(told):
    batches = [t["reading"][name]["global"] for t in told for name in MESHES]
    assert all(batch == batches[0] for batch in batches)


def test_what_one_finds_wrong_all_say(told):
    for one in told:
        assert one["one_fails"] == (
            "SharedError: process 1: there is no file a.png; allowed: one that is there."
        )
        assert one["all_fail"] == "SharedError: the config lacks data."
        assert one["first_fails"] == "SharedError: process 0: the folder cannot be written."
        assert one["from_first"] == {"é": [0, None]}


def test_all_stop_at_one_step(told):
    expected = [call >= STOP_AT + LAG for call in range(1, STOP_AT + LAG + 3)]
    assert [t["answers"] for t in told] == [expected, expected]


@pytest.mark.parametrize("name", ["failing_data", "failing_evaluation"])
def test_data_that_fails_on_one_host_ends_both_together(told, name):
    """The failing one goes on with padding until all know; an evaluation's last batch included."""
    first, second = (t[name] for t in told)
    assert first["message"] == second["message"] == "SharedError: process 1: k.png is no image."
    taken = BAD_BATCH + 1 + (LAG if name == "failing_data" else 0)
    assert first["taken"] == list(range(taken))
    assert second["taken"] == [*range(BAD_BATCH), *[-1] * (taken - BAD_BATCH)]


def test_counts_are_summed_over_what_is_read(told):
    assert [t["total"] for t in told] == [7, 7]
    assert [t["shared_total"] for t in told] == [3, 3]


def test_checkpoints_are_written_by_all_and_judged_by_the_first(told):
    for one in told:
        found = one["checkpoints"]
        assert found["writers"] == ["ocdbt.process_0", "ocdbt.process_1"]
        assert found["complete"] and found["restored"]
        assert found["newest"] == 1 and found["steps"] == [1, 2]
        assert "is missing" in found["missing"]


# whole runs


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """One process with as many devices as two processes have together."""
    folder = tmp_path_factory.mktemp("whole")
    code, text = finish(train_arguments(folder / "run"), folder / "out.txt", devices=2)
    assert code == 0, text
    return folder / "run"


def trained(workdir, folder, name, **overrides):
    return Together(["-m", "vit_jax", *train_arguments(workdir, **overrides)], folder, name)


def test_preempted_killed_and_resumed_ends_with_the_bits_of_one_process(whole_run, tmp_path):
    """SIGTERM at process 1, then SIGKILL of each; with worker processes for the data.

    The same devices in the same mesh reduce in the same order, so bits are equal.
    """
    workdir = tmp_path / "run"

    def start(name):
        return trained(workdir, tmp_path, name, data__num_workers=1, train__log_every=1)

    run = start("preempted")
    run.until(lambda: (workdir / "metrics.jsonl").exists())
    run.send(1, signal.SIGTERM)
    assert run.codes() == [EXIT_PREEMPTED, EXIT_PREEMPTED], run.texts()
    steps = [
        text.partition("stopped by SIGTERM after step ")[2].split(";")[0] for text in run.texts()
    ]
    assert steps[0] == steps[1] == max(steps_on_disk(workdir), key=int)

    for victim in (1, 0):
        run, known = start(f"lost{victim}"), steps_on_disk(workdir)
        run.until(lambda known=known: set(steps_on_disk(workdir)) - set(known))
        run.send(victim, signal.SIGKILL)
        began = time.monotonic()
        codes = run.codes(patience=90)
        assert codes[victim] == -signal.SIGKILL and codes[1 - victim] != 0, run.texts()
        assert time.monotonic() - began < 90
        if victim == 1:  # without process 0 JAX's own abort may come first
            assert codes[0] == EXIT_LOST
            assert "process 0 has lost another process" in run.texts()[0]

    run = start("resumed")
    assert run.codes() == [0, 0], run.texts()
    assert "resuming after step" in run.texts()[0]
    assert "images/s" not in run.texts()[1]  # process 0 speaks for both
    assert json.loads((workdir / "result.json").read_text())["step"] == NUM_STEPS
    assert_same_end(whole_run, workdir)


def test_a_refused_workdir_and_a_bad_image_end_both_soon(whole_run, tmp_path):
    run = trained(whole_run, tmp_path, "refused", optimizer__learning_rate=0.5)
    assert run.codes() == [2, 2], run.texts()
    assert all("belongs to a run with another config" in text for text in run.texts())

    images = tmp_path / "images"
    for i in range(40):
        file = images / "train" / "ab"[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), i, np.uint8)).save(file)
    (images / "train" / "b" / "07.png").write_bytes(b"no image")
    run = trained(
        tmp_path / "run",
        tmp_path,
        "bad",
        data__source=f"folder:{images}",
        data__train="train",
        evals__validation__split="train",
        evals__test__split="train[:4]",
    )
    assert run.codes() == [2, 2], run.texts()
    said = [text.strip().splitlines()[-1] for text in run.texts()]
    assert said[0] == said[1] and "07.png" in said[0] and said[0].startswith("error: ")
    assert steps_on_disk(tmp_path / "run") == []


def test_two_processes_evaluate_as_one(whole_run, tmp_path):
    command = ["-m", "vit_jax", "evaluate", f"--workdir={whole_run}", "--split=test"]
    target = tmp_path / "metrics.json"
    run = Together([*command, f"--output={target}"], tmp_path, "evaluate")
    assert run.codes() == [0, 0], run.texts()
    found = json.loads(target.read_text())["metrics"]
    expected = metrics_of(whole_run)
    assert found["test/scored"] == 360
    # Batches of another size: another order of summation.
    assert found["test/loss"] == pytest.approx(expected["test/loss"], rel=1e-5)
    assert found["test/top1"] == expected["test/top1"]
