"""A sweep run to its end, or on from where it was stopped.

`run_trials` runs trials that are all known, `run_search` asks a search for them. Both take the
sweep's folder for themselves, and give it back as the trials' own files tell it: the same call
again runs what is unfinished, and nothing else.

sweep.json has what the sweep is:
    command             the process's arguments
    config, arguments   'FILE[:ARG]', or None; and each '--config.KEY=VALUE' that was given
    base                the config that trials change, or None
    metric, direction   'test/top1', 'maximize' or 'minimize'; or None
    search              settings of a search, or None
    versions            of what computed it
"""

import collections
import contextlib
import dataclasses
import importlib.metadata
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.launch import slurm
from vit_jax.launch.settings import LaunchSettings
from vit_jax.reporting import PACKAGES
from vit_jax.sweeps import attempts, worker
from vit_jax.sweeps.cluster import SlurmLauncher
from vit_jax.sweeps.folder import State, SweepFolder, TrialFolder
from vit_jax.sweeps.local import Command, LocalLauncher, gpus_of_each
from vit_jax.sweeps.queue import Launcher, Listed, Source, drive
from vit_jax.sweeps.status import Progress, direction_of
from vit_jax.sweeps.trials import Trial, check_trials
from vit_jax.train.preemption import EXIT_PREEMPTED
from vit_jax.workdir import check_writable, contradictions, locked, read_json, replace_json

EXIT_FAILED_TRIALS = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class About:
    """What sweep.json says beside versions and command.

    Attributes:
      config, arguments: as on the command line; None and nothing where trials have several.
      base: the config that trials change.
      metric: what trials are compared by, e.g. 'test/top1'.
      search: its settings.
    """

    config: str | None = None
    arguments: Sequence[str] = ()
    base: Mapping[str, Any] | None = None
    metric: str | None = None
    search: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class How:
    """Where and how trials run.

    Attributes:
      launcher: a name in `LAUNCHERS`.
      workers: trials at once; of a cluster, None submits all that can begin.
      gpus_per_trial: that no other trial sees; 0 is as many as config.launch.gpus_per_node says,
        and where that is 0, too, all are visible. For 'local'.
      retry_failed: give failed trials another try.
      command: what trains a trial. For 'local'.
    """

    launcher: str = "local"
    workers: int | None = None
    gpus_per_trial: int = 0
    retry_failed: bool = False
    command: Command = worker.command


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How many trials are in which state, and whether the sweep was asked to leave before."""

    counts: Mapping[State, int]
    is_stopped: bool

    @classmethod
    def of(cls, folders: Sequence[TrialFolder], *, is_stopped: bool) -> "Outcome":
        return cls(collections.Counter(one.state() for one in folders), is_stopped)

    @property
    def is_over(self) -> bool:
        """Is nothing left for the next command but to retry?"""
        left = self.counts[State.WAITING] + self.counts[State.INTERRUPTED]
        return not self.is_stopped and not left

    @property
    def exit_code(self) -> int:
        if not self.is_over:
            return EXIT_PREEMPTED
        return EXIT_FAILED_TRIALS if self.counts[State.FAILED] else 0


def run_trials(
    folder: SweepFolder,
    trials: Sequence[Trial],
    *,
    how: How,
    about: About,
    console: Console | None = None,
) -> Outcome:
    """Runs those of the trials that are not final, each after the ones that it needs.

    Raises:
      InputError: where trials contradict each other or what the folder holds, or where another
        process runs this sweep.
    """
    check_trials(trials)
    with opened(folder, about):
        folders = [folder.add(trial) for trial in trials]
        if how.retry_failed:
            for one in failed(folders):
                attempts.retry(one)
        source = Listed(folder, [one.name for one in folders])
        configs = [trial.config for trial in trials]
        is_stopped = not run(folder, source, how, about, console, configs=configs)
    # Trials that the sweep has no more are shown, and wait for nobody.
    return Outcome.of(folders, is_stopped=is_stopped)


def run(
    folder: SweepFolder,
    source: Source,
    how: How,
    about: About,
    console: Console | None,
    *,
    configs: Sequence[Mapping[str, Any]],
) -> bool:
    """Runs what the source gives, in a folder that is this process's own; False if stopped.

    Args:
      configs: those of the trials, or what they have in common, for `config.launch`.
    """
    launcher = make_launcher(folder, how, configs)
    with Progress(folder, console or Console(), metric=about.metric) as progress:
        return drive(source, launcher, progress)


def make_launcher(folder: SweepFolder, how: How, configs: Sequence[Mapping[str, Any]]) -> Launcher:
    """Raises `InputError` where trials want machines that the launcher does not have."""
    make = sections.choose(LAUNCHERS, how.launcher, where="--launcher")
    launches = [one.get("launch", {}) for one in configs]
    wanted = [sections.call(LaunchSettings, one, where="config.launch") for one in launches]
    return make(folder, how, wanted)


def failed(folders: Sequence[TrialFolder]) -> list[TrialFolder]:
    return [folder for folder in folders if folder.state() == State.FAILED]


@contextlib.contextmanager
def opened(folder: SweepFolder, about: About) -> Iterator[None]:
    """Inside, the folder is this process's own, and its sweep.json as told.

    Raises:
      InputError: if another process runs the sweep, or it is one of another config; then with the
        differences.
    """
    check_writable(folder.path)
    with locked(folder.lock):
        check_base(folder, about)
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
        told = {
            "command": sys.argv,
            **dataclasses.asdict(about),
            "direction": about.metric and direction_of(about.metric),
            "versions": {"python": platform.python_version(), **versions},
        }
        replace_json(folder.sweep, told)
        yield


def check_base(folder: SweepFolder, about: About) -> None:
    """A sweep none of whose trials has a checkpoint binds nobody."""
    if not folder.sweep.is_file() or about.base is None:
        return
    before = read_json(folder.sweep)["base"]
    different = contradictions(before, about.base) if before is not None else []
    if different and any(one.workdir.holds_training() for one in folder.known()):
        raise InputError(
            f"the sweep in {folder.path} belongs to another config: {'; '.join(different)}. "
            "Allowed: the same config, or another workdir."
        )


def make_local(folder: SweepFolder, how: How, wanted: Sequence[LaunchSettings]) -> Launcher:
    return LocalLauncher(
        workers=how.workers or 1,
        gpus_per_trial=gpus_of_each(wanted, gpus_per_trial=how.gpus_per_trial),
        compiled=folder.compiled,
        command=how.command,
    )


def make_slurm(folder: SweepFolder, how: How, wanted: Sequence[LaunchSettings]) -> Launcher:
    del wanted  # each array of jobs has what its trials say
    if how.gpus_per_trial:
        raise InputError(
            f"--gpus_per_trial is {how.gpus_per_trial} with --launcher=slurm; allowed there: "
            "--config.launch.gpus_per_node."
        )
    slurm.check_path(folder.path)
    return SlurmLauncher(folder, capacity=how.workers or sys.maxsize)


LAUNCHERS = {"local": make_local, "slurm": make_slurm}
