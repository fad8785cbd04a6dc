"""Trials as processes of this machine, each with its share of processors and GPUs.

A process that is told to leave saves its trial. It is told so by the sweep, or by the system when
the sweep itself is gone (see launch/children.py). From its first moment until its end it holds the
lock TRIAL/.worker, which it inherits: a sweep that begins meanwhile waits for it.
"""

import contextlib
import dataclasses
import fcntl
import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from vit_jax.errors import InputError
from vit_jax.launch import children
from vit_jax.launch.settings import LaunchSettings
from vit_jax.sweeps import attempts, worker
from vit_jax.sweeps.folder import TrialFolder
from vit_jax.sweeps.queue import Ended

Command = Callable[[TrialFolder], list[str]]
TO_SAVE = 60.0  # seconds that are left to the trials when the sweep breaks off


@dataclasses.dataclass(frozen=True)
class Place:
    """What one of the trials that run at once has to itself; None where nothing is shared."""

    cores: frozenset[int] | None
    gpus: tuple[str, ...] | None


@dataclasses.dataclass
class Worker:
    folder: TrialFolder
    process: subprocess.Popen
    place: Place
    asked: bool = False


class LocalLauncher:
    """Up to `workers` trials at once.

    Args:
      gpus_per_trial: 0 leaves all GPUs visible to all trials.
      compiled: folder of the compiled programs that trials share.
      command: what trains a trial.
    """

    poll_seconds = 0.1

    def __init__(
        self,
        *,
        workers: int,
        compiled: Path,
        gpus_per_trial: int = 0,
        command: Command = worker.command,
        environment: Mapping[str, str] = os.environ,
    ):
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        self.capacity = workers
        self._free = places(workers, gpus_per_trial=gpus_per_trial, visible=visible)
        self._workers: dict[str, Worker] = {}
        self._deadline = float("inf")  # of all that run, once the sweep leaves
        self._command = command
        # Most of a small trial is compiling what the trial before it has compiled.
        self._environment = {
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            **environment,
        }

    def adopt(self, folders: Sequence[TrialFolder]) -> list[TrialFolder]:
        return []  # the end of a process that is no child cannot be seen; its lock can

    def start(self, folders: Sequence[TrialFolder]) -> None:
        for folder in folders:
            one = self._workers[folder.name] = self._start(folder, self._free.pop(0))
            attempts.note(folder, "start", pid=one.process.pid)

    def _start(self, folder: TrialFolder, place: Place) -> Worker:
        variables = dict(self._environment)
        if place.gpus is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(place.gpus)
        with folder.log.open("a") as log, folder.worker.open("a") as lock:
            with contextlib.suppress(OSError):  # some network file systems know no locks
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            process = children.start(
                self._command(folder),
                variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                cores=place.cores,
                kept_open=[lock.fileno()],
            )
        return Worker(folder, process, place)

    def ended(self) -> list[Ended]:
        found = []
        for name, one in list(self._workers.items()):
            if time.monotonic() > self._deadline:
                kill_group(one.process)
                one.process.wait()
            if (code := one.process.poll()) is not None:
                kill_group(one.process)  # what it may have left behind
                self._free.append(self._workers.pop(name).place)
                found.append(Ended(one.folder, children.shell_code(code), one.asked))
        return found

    def stop(self, folder: TrialFolder) -> None:
        one = self._workers[folder.name]
        if not one.asked:
            one.asked = True
            one.process.send_signal(signal.SIGTERM)

    def leave(self) -> bool:
        is_again = self._deadline < float("inf")
        self._deadline = time.monotonic() + (0.0 if is_again else TO_SAVE)
        for one in self._workers.values():
            self.stop(one.folder)
        return False

    def close(self) -> None:
        self.leave()
        for one in self._workers.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.process.wait(timeout=max(0.0, self._deadline - time.monotonic()))
            kill_group(one.process)
            one.process.wait()


def kill_group(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def gpus_of_each(wanted: Sequence[LaunchSettings], *, gpus_per_trial: int) -> int:
    """GPUs of each trial, as it was asked for or as the trials' `config.launch` says.

    Raises:
      InputError: where the trials want what they do not get on one machine.
    """
    for one in wanted:
        if one.nodes != 1:
            raise InputError(
                f"config.launch.nodes is {one.nodes}; allowed with --launcher=local: 1."
            )
    given = {one.gpus_per_node for one in wanted if one.gpus_per_node or one.tasks_per_node > 1}
    if len(given | ({gpus_per_trial} - {0})) > 1:
        told = f"--gpus_per_trial is {gpus_per_trial}, and " if gpus_per_trial else ""
        raise InputError(
            f"{told}config.launch.gpus_per_node of the trials is "
            f"{' or '.join(map(str, sorted(given)))}; allowed with --launcher=local: the same for "
            "all."
        )
    return gpus_per_trial or max(given, default=0)


def places(workers: int, *, gpus_per_trial: int, visible: str | None) -> list[Place]:
    """The shares of trials that run at once: equal ones, of neighbouring cores and GPUs.

    Args:
      visible: CUDA_VISIBLE_DEVICES; None where it is not set.
    """
    gpus: list[tuple[str, ...] | None] = [None] * workers
    if gpus_per_trial:
        where = "--workers times --gpus_per_trial"
        number = workers * gpus_per_trial
        gpus = list(map(tuple, children.split_gpus(number, workers, visible, where=where)))
    return [Place(*both) for both in zip(shares_of_cores(workers), gpus, strict=True)]


def shares_of_cores(workers: int) -> list[frozenset[int] | None]:
    """Cores of each trial; with more trials than cores, several have the same one."""
    if not hasattr(os, "sched_getaffinity") or workers == 1:
        return [None] * workers
    cores = sorted(os.sched_getaffinity(0))
    if workers >= len(cores):
        return [frozenset([cores[i % len(cores)]]) for i in range(workers)]
    bounds = [len(cores) * i // workers for i in range(workers + 1)]
    return [frozenset(cores[a:b]) for a, b in itertools.pairwise(bounds)]
