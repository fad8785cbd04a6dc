"""python -m vit_jax.sweeps.worker TRIAL_FOLDER: trains a trial, with the exit codes of `train`.

Where config.launch wants several tasks it starts them, each with --task, and waits for them.
"""

import sys
from pathlib import Path

from vit_jax import sections
from vit_jax.__main__ import exit_code
from vit_jax.launch import local
from vit_jax.launch.run import Run, watch_signals
from vit_jax.launch.settings import LaunchSettings
from vit_jax.sweeps.folder import TrialFolder
from vit_jax.workdir import Workdir, read_json

TASK = "--task"


def run_of(folder: TrialFolder) -> Run:
    return Run(config=read_json(folder.trial)["config"], workdir=folder.workdir.path)


def command(folder: TrialFolder) -> list[str]:
    """That trains the trial in a process of its own."""
    return [sys.executable, "-m", "vit_jax.sweeps.worker", str(folder.workdir.path)]


def main(path: str, *rest: str) -> int:
    folder = TrialFolder(Workdir(Path(path)))
    run = run_of(folder)
    wanted = sections.call(LaunchSettings, run.config.get("launch", {}), where="config.launch")
    is_one = (wanted.nodes, wanted.tasks_per_node, wanted.cpu_devices_per_task) == (1, 1, None)
    if is_one or TASK in rest:
        run()  # and leaves
    return local.launch([*command(folder), TASK], wanted)


if __name__ == "__main__":
    watch_signals()
    sys.exit(exit_code(lambda: main(*sys.argv[1:])))
