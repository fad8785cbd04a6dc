"""python -m vit_jax.sweeps.worker TRIAL_FOLDER: trains a trial, with the exit codes of `train`."""

import sys
from pathlib import Path

from vit_jax.launch.run import Run, watch_signals
from vit_jax.sweeps.folder import TrialFolder
from vit_jax.workdir import Workdir, read_json


def run_of(folder: TrialFolder) -> Run:
    return Run(config=read_json(folder.trial)["config"], workdir=folder.workdir.path)


def command(folder: TrialFolder) -> list[str]:
    """That trains the trial in a process of its own."""
    return [sys.executable, "-m", "vit_jax.sweeps.worker", str(folder.workdir.path)]


if __name__ == "__main__":
    watch_signals()
    run_of(TrialFolder(Workdir(Path(sys.argv[1]))))()
