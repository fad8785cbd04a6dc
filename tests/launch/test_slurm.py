"""Job scripts, what they do when a training ends, and what a job does when it is signalled.

A real Slurm runs the same in test_slurm_cluster.py.
"""

import importlib.util
import pickle
import signal
import subprocess
import sys

import pytest
from helpers import ROOT

from vit_jax.errors import InputError
from vit_jax.launch import slurm
from vit_jax.launch.run import Run
from vit_jax.launch.settings import LaunchSettings

needs_submitit = pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason="needs the extra: pip install 'vit_jax[slurm]'",
)


def run(folder, name="run"):
    return Run(config={"train": {}}, workdir=folder / name)


def script(folder, *names, **section):
    runs = [run(folder, name) for name in names or ("run",)]
    return slurm.job_script(runs, LaunchSettings(**section), folder=folder / "logs")


def options(text):
    return {line for line in text.splitlines() if line.startswith("#SBATCH")}


SETTINGS = {
    "nodes": (4, "#SBATCH --nodes=4"),
    "tasks_per_node": (2, "#SBATCH --ntasks-per-node=2"),
    "gpus_per_node": (8, "#SBATCH --gpus-per-node=8"),
    "cpus_per_task": (16, "#SBATCH --cpus-per-task=16"),
    "memory": ("64G", "#SBATCH --mem=64G"),
    "hours": (72, "#SBATCH --time=4320"),
    "partition": ("gpu", "#SBATCH --partition=gpu"),
    "account": ("physics", "#SBATCH --account=physics"),
    "qos": ("high", "#SBATCH --qos=high"),
    "constraint": ("a100&ib", "#SBATCH --constraint='a100&ib'"),
    "job_name": ("b16", "#SBATCH --job-name=b16"),
    "save_seconds": (300, "#SBATCH --signal=TERM@300"),
    "sbatch": ({"mail-type": "END"}, "#SBATCH --mail-type=END"),
    "setup": (("module load cuda",), "module load cuda"),
    "srun": (("--container-image=a.sqsh",), "--container-image=a.sqsh"),
    "prefix": ("apptainer exec a.sif", "apptainer exec a.sif"),
    "python": ("python3.12", "python3.12 -u -m"),
    "max_requeues": (7, "-lt 7 ]"),
}


@needs_submitit
@pytest.mark.parametrize("name", SETTINGS)
def test_each_setting_is_in_the_script_where_it_is_set(name, tmp_path):
    value, expected = SETTINGS[name]
    assert expected in script(tmp_path, **{name: value})
    assert expected not in script(tmp_path)


@needs_submitit
def test_every_setting_of_a_job_is_tested():
    of_arrays_and_the_local_launcher = {"max_parallel", "cpu_devices_per_task"}
    names = set(LaunchSettings.__dataclass_fields__)
    assert names == SETTINGS.keys() | of_arrays_and_the_local_launcher


@needs_submitit
def test_what_is_not_set_is_left_to_the_cluster(tmp_path):
    log = tmp_path / "logs" / "%j_0_log.out"
    assert options(script(tmp_path)) == {
        "#SBATCH --job-name=run",
        "#SBATCH --nodes=1",
        "#SBATCH --ntasks-per-node=1",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output={log}",
        "#SBATCH --requeue",
        "#SBATCH --signal=TERM@120",
        "#SBATCH --time=60",
    }


@needs_submitit
def test_given_options_of_sbatch_win_and_can_leave_one_out(tmp_path):
    text = script(tmp_path, sbatch={"exclusive": True, "requeue": False, "signal": "TERM@9"})
    assert {"#SBATCH --exclusive", "#SBATCH --signal=TERM@9"} <= options(text)
    assert "#SBATCH --requeue" not in text


@needs_submitit
def test_the_step_takes_the_processors_of_a_task(tmp_path):
    """Since Slurm 22.05 srun does not take them from the job."""
    (command,) = [c for c in script(tmp_path, cpus_per_task=5).splitlines() if c[:4] == "srun"]
    assert " --cpus-per-task=5 " in command


@needs_submitit
@pytest.mark.parametrize("limit, expected", [(None, "0-2%3"), (2, "0-2%2"), (9, "0-2%3")])
def test_an_array_runs_no_more_at_once_than_allowed(limit, expected, tmp_path):
    text = script(tmp_path, "a", "b", "c", max_parallel=limit)
    assert f"#SBATCH --array={expected}" in options(text)
    assert f"--output {tmp_path}/logs/%A_%a_%t_log.out" in text


@needs_submitit
def test_a_script_is_written_without_slurm_but_not_submitted(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert script(tmp_path).startswith("#!/bin/bash")
    with pytest.raises(InputError, match="no sbatch and no srun here; allowed: .*--dry_run"):
        slurm.submit([run(tmp_path)], LaunchSettings(), folder=tmp_path / "logs")
    assert not list(tmp_path.iterdir())


def test_a_missing_extra_is_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=r"submitit is not installed; .*vit_jax\[slurm\]"):
        script(tmp_path)


@needs_submitit
def test_logging_of_others_survives(tmp_path):
    program = f"""
import logging, sys
from pathlib import Path
from vit_jax.launch import run, settings, slurm
handler = logging.FileHandler({str(tmp_path / "log")!r})
logging.getLogger().addHandler(handler)
runs = [run.Run(config={{}}, workdir=Path("run"))]
slurm.job_script(runs, settings.LaunchSettings(), folder=Path("logs"))
assert "submitit" in sys.modules
assert handler.stream is not None
"""
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


# what the script does when the training has ended

SCONTROL = """#!/bin/bash
echo "$@" >> {called}
exit {code}
"""


def end_of_job(folder, code, *, works=True, **variables):
    """Exit code of the script's last lines, and what they said to scontrol."""
    called = folder / "called"
    called.unlink(missing_ok=True)
    (folder / "scontrol").write_text(SCONTROL.format(called=called, code=0 if works else 1))
    (folder / "scontrol").chmod(0o755)
    text = f"(exit {code})\n{slurm.requeue_lines(max_requeues=3)}"
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "SLURM_JOB_ID": "17", **variables}
    found = subprocess.run(["bash", "-c", text], env=environment, capture_output=True, text=True)
    return found.returncode, called.read_text().split("\n")[:-1] if called.exists() else []


@pytest.mark.parametrize("code", [0, 1, 2, 75, 137])
@pytest.mark.parametrize("restarts", [None, 0, 2, 3, 4])
def test_only_a_preempted_training_is_requeued_and_not_for_ever(restarts, code, tmp_path):
    variables = {} if restarts is None else {"SLURM_RESTART_COUNT": str(restarts)}
    is_requeued = code == 75 and (restarts or 0) < 3
    expected = (0, ["requeue 17"]) if is_requeued else (code, [])
    assert end_of_job(tmp_path, code, **variables) == expected


def test_a_task_of_an_array_requeues_itself_alone(tmp_path):
    """The id of an array's first task is the array's own."""
    array = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "0"}
    assert end_of_job(tmp_path, 75, **array) == (0, ["requeue 17_0"])


def test_a_refused_requeue_leaves_the_code(tmp_path):
    assert end_of_job(tmp_path, 75, works=False) == (75, ["requeue 17"])


# what a task of the job does

WAITING = """
import time
from vit_jax.launch import run
run.watch_signals()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR2])
def test_a_signal_before_the_training_ends_the_task_as_preempted(number):
    process = subprocess.Popen([sys.executable, "-c", WAITING], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(timeout=30) == 75


def test_signals_are_heard_before_heavy_imports():
    program = "import sys, vit_jax.launch.run; assert not {'jax', 'flax'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)


def test_a_task_tells_a_mistake_and_leaves_with_its_code(tmp_path):
    """As it arrives in the job: pickled."""
    with (tmp_path / "run.pickle").open("wb") as file:
        pickle.dump(Run(config={"task": {}}, workdir=tmp_path / "run"), file)
    program = f"import pickle; pickle.load(open({str(tmp_path / 'run.pickle')!r}, 'rb'))()"
    found = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 2, found.stderr
    assert found.stderr == "error: the config lacks data, optimizer, train; sections: " + (
        "task, data, optimizer, train, mesh, evals, init, launch.\n"
    )
