"""`train --launcher=...`: what is started with which arguments, and mistakes in one sentence."""

import importlib.util
import re
import sys

import pytest
from command_calls import call
from helpers import train_arguments

from vit_jax.__main__ import main
from vit_jax.launch import local, slurm


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--launcher=slrum"], "--launcher is 'slrum' (did you mean 'slurm'?); allowed: local"),
        (["--dry_run"], "allowed: with --launcher=slurm"),
        (["--launcher=local", "--wait"], "allowed: with --launcher=slurm"),
        (["--launcher=local", "--num_processes=2"], "--num_processes says which process this is"),
        (["--launcher=slurm", "--process_id=0"], "--process_id says which process this is"),
        (["--launcher=local", "--config.launch.nodes=2"], "nodes is 2; allowed"),
        (["--config.launch.node=2"], "config.launch has unknown key 'node'"),
        (["--config.launch=3"], "config.launch is 3; allowed: a section"),
        (["--config.launch.hours=-1"], "config.launch.hours is -1"),
    ],
    ids=str,
)
def test_mistakes_are_one_sentence(arguments, message, capsys, tmp_path):
    code, _, err = call(capsys, *train_arguments(tmp_path / "run"), *arguments)
    assert code == 2 and err.startswith("error: ") and message in err, err
    assert len(err.strip().splitlines()) == 1, err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a\nb", "%j"])
def test_paths_that_slurm_reads_otherwise_are_refused(name, capsys, tmp_path):
    given = train_arguments(tmp_path / name)
    code, _, err = call(capsys, *given, "--launcher=slurm", "--dry_run")
    assert code == 2 and "without line breaks and %" in err
    assert not list(tmp_path.iterdir())


def test_the_local_launcher_runs_the_command_without_itself(capsys, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(local, "launch", lambda *arguments: seen.append(arguments) or 75)
    arguments = train_arguments(tmp_path / "run")
    given = [*arguments, "--launcher", "local", "--config.launch.tasks_per_node=2"]
    code, _, _ = call(capsys, *given, "--connect_timeout=9")
    ((command, settings),) = seen
    assert code == 75 and settings.tasks_per_node == 2
    assert command[:4] == [sys.executable, "-m", "vit_jax", "train"]
    config = [argument for argument in given if argument.startswith("--config")]
    assert command[4:] == [*config, f"--workdir={tmp_path / 'run'}", "--connect_timeout=9.0"]


@pytest.mark.skipif(
    importlib.util.find_spec("submitit") is None,
    reason="needs the extra: pip install 'vit_jax[slurm]'",
)
def test_a_dry_run_prints_the_script_and_touches_nothing(capsys, tmp_path):
    arguments = train_arguments(tmp_path / "run", launch__nodes=3)
    code, out, err = call(capsys, *arguments, "--launcher=slurm", "--dry_run")
    assert code == 0, err
    assert out.startswith("#!/bin/bash\n") and "#SBATCH --nodes=3\n" in out
    assert re.search(rf"srun .*{tmp_path}/run/slurm", out)
    assert not list(tmp_path.iterdir())


def test_a_job_takes_the_config_with_its_changes_and_further_flags(capsys, tmp_path, monkeypatch):
    seen = []

    def refuse(runs, settings, *, folder):
        seen.append((runs, settings, folder))
        raise KeyError  # nothing is to be submitted here

    monkeypatch.setattr(slurm, "submit", refuse)
    arguments = train_arguments(tmp_path / "run", train__seed=7, launch__hours=2)
    with pytest.raises(KeyError):
        main([*arguments, "--launcher=slurm", "--connect_timeout=9"])
    (((run,), settings, folder),) = seen
    assert run.config["train"]["seed"] == 7 and run.config["launch"] == {"hours": 2}
    assert run.workdir == tmp_path / "run" and folder == run.workdir / "slurm"
    assert run.flags == ("--connect_timeout=9.0",)
    assert settings.minutes == 120


def test_a_workdir_of_another_config_is_refused_before_the_job_waits(capsys, tmp_path):
    workdir = tmp_path / "run"
    (workdir / "checkpoints" / "5").mkdir(parents=True)
    (workdir / "config.json").write_text('{"train": {"seed": 1}}')
    code, _, err = call(capsys, *train_arguments(workdir), "--launcher=slurm")
    assert code == 2 and "train.seed: 1 there, 0 now" in err
