"""Training through a real Slurm of one node: saved and requeued when signalled, once when it fails.

Slurm lets a requeued job rest for two minutes; the tests ask it to go on at once.
"""

import json
import os
import re
import subprocess
import sys
import time

import pytest
import slurm_cluster
from finished_runs import assert_same_run
from helpers import NUM_STEPS, ROOT, environment, train_arguments
from slurm_runs import Patient

from vit_jax.commands.parsing import take_config
from vit_jax.experiment import plain
from vit_jax.launch import following, slurm
from vit_jax.launch.run import Run
from vit_jax.launch.settings import LaunchSettings

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        slurm_cluster.missing() is not None, reason=f"no Slurm here: {slurm_cluster.missing()}"
    ),
]
SECONDS = 400  # that any single wait may take; on an idle machine none takes a tenth of it

# Long enough to be met by a signal under way. Every step is logged, so that rows do not depend on
# where a run was interrupted, and what is resumed is what the signal saved.
LONG = dict(
    train__num_steps=200,
    train__log_every=1,
    train__checkpoint_every=0,
    evals__validation__every_steps=50,
    launch__tasks_per_node=2,
)


@pytest.fixture(scope="module")
def cluster():
    with slurm_cluster.running() as found:
        yield found


@pytest.fixture
def here(cluster, monkeypatch):
    """This process's own environment leads to the cluster, and its jobs to the tests' modules."""
    paths = f"{ROOT / 'tests'}:{os.environ.get('PYTHONPATH', '')}"
    for name, value in {**environment(), **cluster.variables, "PYTHONPATH": paths}.items():
        monkeypatch.setenv(name, value)


def train(cluster, *arguments):
    """The command to its end: exit code, standard output, standard error."""
    found = subprocess.run(
        [sys.executable, "-m", "vit_jax", *arguments],
        cwd=ROOT,
        env={**environment(), **cluster.variables},
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    return found.returncode, found.stdout, found.stderr


def submit(cluster, arguments):
    """The job's id."""
    code, out, err = train(cluster, *arguments, "--launcher=slurm")
    assert code == 0, err
    return re.search(r"^job (\d+): tail -F (\S+)$", out, flags=re.M)[1]


def wait_until(condition, cluster, job_id, log):
    deadline = time.monotonic() + SECONDS
    while not condition():
        text = log.read_text()[-5000:] if log.exists() else "(no log)"
        assert time.monotonic() < deadline, f"{cluster.job(job_id)}\n{text}\n{cluster.logs()}"
        time.sleep(0.1)


def wait_for_state(cluster, job_id, log, *names):
    wait_until(lambda: cluster.job(job_id)["JobState"] in names, cluster, job_id, log)


def wait_for_training(cluster, job_id, workdir, log):
    """Until the first steps are logged."""
    path = workdir / "metrics.jsonl"
    wait_until(lambda: path.exists() and path.read_text(), cluster, job_id, log)


def go_on(cluster, job_id, log):
    """Lets a requeued job begin soon; at once its node would take it for the one that it ended."""
    wait_for_state(cluster, job_id, log, "PENDING")
    cluster.call("scontrol", "update", f"JobId={job_id}", "StartTime=now+3")


@pytest.fixture(scope="module")
def whole_run(cluster, tmp_path_factory):
    """Two processes of the local launcher, from the first step to the last."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    code, out, err = train(cluster, *train_arguments(workdir, **LONG), "--launcher=local")
    assert code == 0 and "(data 2 × fsdp 1 × tensor 1)" in out, out + err
    return workdir


def test_two_processes_that_are_preempted_end_bit_identical(cluster, whole_run, tmp_path):
    workdir = tmp_path / "run"
    job_id = submit(cluster, train_arguments(workdir, **LONG))
    log = workdir / "slurm" / f"{job_id}_0_log.out"
    wait_for_training(cluster, job_id, workdir, log)
    cluster.call("scancel", "--signal=TERM", job_id)
    go_on(cluster, job_id, log)
    wait_for_state(cluster, job_id, log, *following.FINAL_STATES)
    job, text = cluster.job(job_id), log.read_text()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1"), text
    (stopped,) = re.findall(r"stopped by SIGTERM after step (\d+); the state is saved", text)
    assert f"resuming after step {stopped}" in text and int(stopped) < LONG["train__num_steps"]
    assert_same_run(whole_run, workdir)


@pytest.fixture
def patient(cluster, here, tmp_path):
    """Submits two tasks that do nothing but wait; returns them, their job's id and their log."""

    def submit_and_wait(**section):
        (tmp_path / "patient").mkdir()
        run = Patient(tmp_path / "patient")
        settings = LaunchSettings(tasks_per_node=2, **section)
        (job,) = slurm.submit([run], settings, folder=tmp_path / "logs")
        log = job.paths.stdout
        wait_until(lambda: run.notes("began") == ["0_0", "0_1"], cluster, job.job_id, log)
        return run, job.job_id, log

    return submit_and_wait


def came_back(cluster, run, job_id, log):
    """Both tasks had saved when the job was requeued, and begin once more."""
    wait_until(lambda: cluster.job(job_id)["Restarts"] == "1", cluster, job_id, log)
    go_on(cluster, job_id, log)
    assert run.notes("saved") == ["0_0", "0_1"]
    wait_until(lambda: len(run.notes("began")) == 4, cluster, job_id, log)
    return run.notes("began") == ["0_0", "0_1", "1_0", "1_1"]


def test_the_time_limit_saves_and_requeues(cluster, patient):
    """Nobody but Slurm's clock signals here; it looks twice a minute, and may be a minute early."""
    run, job_id, log = patient(hours=2 / 60, save_seconds=80)
    assert came_back(cluster, run, job_id, log)


def test_a_preemption_without_notice_saves_as_slurm_requeues(cluster, patient):
    run, job_id, log = patient()
    cluster.call("scontrol", "requeue", job_id)
    assert came_back(cluster, run, job_id, log)


def test_a_cancelled_job_saves_and_does_not_come_back(cluster, patient):
    run, job_id, log = patient()
    cluster.call("scancel", job_id)
    wait_for_state(cluster, job_id, log, *following.FINAL_STATES)
    job = cluster.job(job_id)
    assert (job["JobState"], job["Restarts"]) == ("CANCELLED", "0")
    assert run.notes("saved") == ["0_0", "0_1"]


def test_requeues_come_to_an_end(cluster, patient):
    run, job_id, log = patient(max_requeues=0)
    cluster.call("scancel", "--signal=TERM", job_id)
    wait_for_state(cluster, job_id, log, *following.FINAL_STATES)
    job = cluster.job(job_id)
    assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("FAILED", "0", "75:0")
    assert run.notes("saved") == ["0_0", "0_1"]


def test_a_failure_is_told_and_not_requeued(cluster, tmp_path):
    """Followed to its end by the command, which printed before what it submits."""
    workdir = tmp_path / "run"
    arguments = train_arguments(
        workdir, launch__tasks_per_node=2, data__source="folder:/no/such/place"
    )
    code, script, err = train(cluster, *arguments, "--launcher=slurm", "--dry_run")
    assert code == 0, err
    code, out, err = train(cluster, *arguments, "--launcher=slurm", "--wait")
    assert code == 2 and "error: Source 'folder:/no/such/place' needs" in out, out + err
    job_id = re.search(r"^job (\d+):", out)[1]
    job = cluster.job(job_id)
    assert (job["JobState"], job["Restarts"], job["ExitCode"]) == ("FAILED", "0", "2:0")
    submitted = workdir / "slurm" / f"{job_id}_submission.sh"
    assert submitted.read_text() == script.removesuffix("\n")


def test_trials_of_an_array_are_requeued_one_by_one(cluster, here, tmp_path):
    """Two trials, one at a time; the first is preempted, and the second goes on in its place."""
    runs = [trial(tmp_path / "0", **{**LONG, "train__num_steps": 3000}), trial(tmp_path / "1")]
    first, second = slurm.submit(runs, LaunchSettings(max_parallel=1), folder=tmp_path / "logs")
    log = first.paths.stdout
    assert {first.job_id.split("_")[1], second.job_id.split("_")[1]} == {"0", "1"}
    wait_for_training(cluster, first.job_id, tmp_path / "0", log)
    assert following.state_of(second.job_id).name == "PENDING"
    cluster.call("scancel", "--signal=TERM", first.job_id)
    wait_for_state(cluster, second.job_id, second.paths.stdout, "COMPLETED")
    assert json.loads((tmp_path / "1" / "result.json").read_text())["step"] == NUM_STEPS
    job = cluster.job(first.job_id)
    assert (job["JobState"], job["Restarts"]) == ("PENDING", "1")
    assert cluster.job(second.job_id)["Restarts"] == "0"
    go_on(cluster, first.job_id, log)
    wait_until(lambda: "resuming after step" in log.read_text(), cluster, first.job_id, log)
    cluster.call("scancel", first.job_id)


def trial(workdir, **overrides):
    arguments = train_arguments(workdir, **overrides)
    config, _ = take_config(arguments)
    return Run(config=plain(config), workdir=workdir)


def test_what_slurm_refuses_is_one_sentence(cluster, tmp_path):
    arguments = train_arguments(tmp_path / "run", launch__partition="none")
    code, _, err = train(cluster, *arguments, "--launcher=slurm")
    assert code == 2 and "invalid partition specified: none" in err
    assert re.search(r"^error: Slurm refuses the job .*; allowed: what this cluster has", err, re.M)
