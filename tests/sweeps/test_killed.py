"""A sweep that is killed, it or its workers, ends with the table of one that nobody disturbed."""

import csv
import os
import signal
import subprocess
import sys
import time

import cheap_trials
import pytest
from finished_runs import assert_same_run, metrics_of, steps_on_disk, train_rows
from helpers import NUM_STEPS, ROOT, environment, start, tiny_config

from vit_jax.sweeps.folder import State, SweepFolder, is_locked, read_lines
from vit_jax.sweeps.reports import data
from vit_jax.sweeps.reports.findings import gather
from vit_jax.train.preemption import EXIT_PREEMPTED
from vit_jax.workdir import locked

SECONDS = 240  # that any wait may take; on an idle machine none takes a tenth of it


def start_cheap(folder, *words):
    """A sweep of cheap trials, in a process group of its own."""
    output = (folder.parent / f"{folder.name}.txt").open("a")
    return subprocess.Popen(
        [sys.executable, cheap_trials.__file__, "sweep", str(folder), *words],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def wait_until(condition, process, output):
    """Until it is true; the process must be there all the while."""
    deadline = time.monotonic() + SECONDS
    while not (found := condition()):
        text = output.read_text()[-3000:]
        assert process.poll() is None and time.monotonic() < deadline, text
        time.sleep(0.01)
    return found


def end(process, output):
    assert process.wait(timeout=SECONDS) == 0, output.read_text()[-3000:]


def kill(process):
    """The process alone: its workers are in sessions of their own."""
    process.kill()
    process.wait(timeout=SECONDS)


def events(folder, event):
    return [line for line in read_lines(folder.attempts) if line["event"] == event]


def under_way(sweep, steps_of):
    """Trials that run and have saved at least once."""
    folders = SweepFolder.at(sweep).known()
    return [
        f for f in folders if f.state() == State.RUNNING and steps_of(f) and f.attempts.exists()
    ]


def kill_worker(folder):
    os.kill(events(folder, "start")[-1]["pid"], signal.SIGKILL)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "sweep"
    end(start_cheap(folder), folder.parent / "sweep.txt")
    return folder


def outcome(sweep):
    """All that trials found, and what they logged on the way."""
    records = SweepFolder.at(sweep).records()
    return {record.name: (record.state, record.metrics, record.rows) for record in records}


UNLIKE = ("seconds", "attempts", "device_hours", "workdir")  # in a sweep that was disturbed


def table(sweep):
    """The report's, but for times, attempts and paths."""
    rows = list(csv.DictReader(data.csv_text(gather(SweepFolder.at(sweep))).splitlines()))
    return [{name: row[name] for name in row.keys() - UNLIKE} for row in rows]


def cheap_steps(folder):
    return len(list(folder.workdir.checkpoints.glob("*")))


def finished(sweep):
    return [f for f in SweepFolder.at(sweep).known() if f.state() == State.FINISHED]


def test_twelve_trials_with_a_killed_worker_and_a_killed_sweep(undisturbed, tmp_path):
    sweep, output = tmp_path / "sweep", tmp_path / "sweep.txt"
    process = start_cheap(sweep)
    wait_until(lambda: len(finished(sweep)) >= 2, process, output)
    victim = wait_until(lambda: under_way(sweep, cheap_steps), process, output)[0]
    kill_worker(victim)
    again = wait_until(lambda: events(victim, "end"), process, output)
    assert again[0]["exit_code"] == 128 + signal.SIGKILL
    wait_until(lambda: len(finished(sweep)) >= 5, process, output)
    orphans = wait_until(lambda: under_way(sweep, cheap_steps), process, output)
    done = finished(sweep)
    kill(process)
    end(start_cheap(sweep), output)  # at once, while the orphans still save

    assert outcome(sweep) == outcome(undisturbed) and len(outcome(sweep)) == cheap_trials.TRIALS
    assert table(sweep) == table(undisturbed) and len(table(sweep)) == cheap_trials.TRIALS
    assert all(row["test/score"] and row["state"] == "finished" for row in table(sweep))
    assert len(events(victim, "start")) == 2
    assert all(len(events(folder, "start")) == 1 for folder in done if folder != victim)
    assert any(len(events(folder, "start")) == 2 for folder in orphans)
    # Each continued; and none was ever trained by two processes at once.
    for folder in SweepFolder.at(sweep).known():
        assert all(line["step"] > 0 for line in events(folder, "start")[1:])
        assert not (folder.workdir.path / "twice").exists()


def test_sigterm_saves_and_the_same_command_continues(undisturbed, tmp_path):
    sweep, output = tmp_path / "sweep", tmp_path / "sweep.txt"
    process = start_cheap(sweep)
    interrupted = wait_until(lambda: under_way(sweep, cheap_steps), process, output)
    assert is_locked(SweepFolder.at(sweep).lock)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=SECONDS) == EXIT_PREEMPTED, output.read_text()
    assert all(folder.state() == State.INTERRUPTED for folder in interrupted)
    assert [line["exit_code"] for f in interrupted for line in events(f, "end")] == [
        EXIT_PREEMPTED
    ] * len(interrupted)
    end(start_cheap(sweep), output)
    assert outcome(sweep) == outcome(undisturbed) and table(sweep) == table(undisturbed)


def test_a_sweep_that_is_over_does_nothing_and_a_second_one_is_refused(undisturbed, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in undisturbed.rglob("attempts.jsonl")}
    end(start_cheap(undisturbed), undisturbed.parent / "sweep.txt")
    assert before == {path: path.stat().st_mtime_ns for path in before}

    sweep = tmp_path / "sweep"
    sweep.mkdir()
    with locked(SweepFolder.at(sweep).lock):
        second = start_cheap(sweep)
        assert second.wait(timeout=SECONDS) != 0
    assert f"another process is training in {sweep}" in (tmp_path / "sweep.txt").read_text()
    assert not SweepFolder.at(sweep).known()


CONFIG = """
from ml_collections import ConfigDict
from vit_jax.sweeps.trials import grid

def get_config(arg):
    return ConfigDict({config!r})

def sweep():
    yield from grid({{"train.seed": (0, 1)}})
"""


def test_real_trainings_end_with_the_same_bits(tmp_path):
    """Two of them; a worker is killed first, and then the sweep.

    One at a time: two that begin together compile the same twice, most of what this test costs.
    """
    config = tmp_path / "configs" / "tiny.py"
    config.parent.mkdir()
    evals = {"test": {"split": "test[:50]"}}
    # Every step is logged, so that rows do not depend on where a run was interrupted.
    config.write_text(CONFIG.format(config=tiny_config(train__log_every=1) | {"evals": evals}))

    def run(sweep, output):
        return start(["sweep", f"--config={config}", f"--workdir={sweep}"], output)

    whole, sweep, output = tmp_path / "whole", tmp_path / "sweep", tmp_path / "out.txt"
    end(run(whole, output), output)
    process = run(sweep, output)
    saved = lambda folder: steps_on_disk(folder.workdir.path)  # noqa: E731
    victim = wait_until(lambda: under_way(sweep, saved), process, output)[0]
    kill_worker(victim)
    wait_until(lambda: len(events(victim, "start")) == 2, process, output)
    wait_until(lambda: under_way(sweep, saved), process, output)
    kill(process)
    end(run(sweep, output), output)
    assert table(sweep) == table(whole) and all(row["test/top1"] for row in table(sweep))
    for folder in SweepFolder.at(whole).known():
        left, right = folder.workdir.path, sweep / "trials" / folder.name
        assert metrics_of(left) == metrics_of(right)
        assert list(train_rows(left)) == list(range(1, NUM_STEPS + 1))
        assert train_rows(left) == train_rows(right)
    assert_same_run(whole / "trials" / victim.name, victim.workdir.path)  # every array, too
