"""A sweep on disk. The state of each trial is told by its files alone, so nothing can be lost.

SWEEP/sweep.json            what is swept: command, config file, metric, versions; see `running`
SWEEP/.lock                 held by the process that runs the sweep
SWEEP/compiled/             programs that its trials share
SWEEP/study.log             of a search, see `search`
SWEEP/slurm/                job scripts and logs, where a cluster trains
SWEEP/trials/NAME/          the workdir of a trial, as of any run, and beside the run's files:
    trial.json              name, overrides, config, needs
    attempts.jsonl          a line for each start, and one for each end with its exit code
    .worker                 locked by the trial's process from its first moment
    trial.log               what its processes printed
    failed.json             why it is given up; --retry-failed takes that away
    pruned.json             at which step and why it was stopped early
    measured.json           what was measured on the finished run, by name
"""

import contextlib
import dataclasses
import enum
import fcntl
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.sweeps.trials import NEEDS, Trial
from vit_jax.train.sinks import read_metrics
from vit_jax.workdir import FREE_KEYS, Workdir, contradictions, read_json, replace_json


class State(enum.StrEnum):
    WAITING = "waiting"  # never begun
    RUNNING = "running"  # a process holds its lock
    INTERRUPTED = "interrupted"  # begun, and neither finished nor running
    FINISHED = "finished"
    PRUNED = "pruned"
    FAILED = "failed"


FINAL = (State.FINISHED, State.PRUNED, State.FAILED)


@dataclasses.dataclass(frozen=True)
class TrialFolder:
    """One trial's folder."""

    workdir: Workdir

    name = property(lambda self: self.workdir.path.name)
    trial = property(lambda self: self.workdir.path / "trial.json")
    attempts = property(lambda self: self.workdir.path / "attempts.jsonl")
    log = property(lambda self: self.workdir.path / "trial.log")
    failed = property(lambda self: self.workdir.path / "failed.json")
    pruned = property(lambda self: self.workdir.path / "pruned.json")
    measured = property(lambda self: self.workdir.path / "measured.json")
    worker = property(lambda self: self.workdir.path / ".worker")

    def state(self) -> State:
        """A killed trial has no result, whatever it had reached."""
        for file, state in (
            (self.workdir.result, State.FINISHED),
            (self.pruned, State.PRUNED),
            (self.failed, State.FAILED),
        ):
            if file.is_file():
                return state
        if is_locked(self.worker) or is_locked(self.workdir.lock):
            return State.RUNNING
        begun = self.attempts.is_file() or self.workdir.holds_training()
        return State.INTERRUPTED if begun else State.WAITING

    def differences(self, config: Mapping[str, Any], *, is_finished: bool = False) -> list[str]:
        """What the trial's own config has otherwise; nothing where there is no trial yet."""
        if not self.exists():
            return []
        free = [key for key in FREE_KEYS if not (is_finished and key == "evals")]
        return contradictions(read_json(self.trial)["config"], config, free=free)

    def exists(self) -> bool:
        return self.trial.is_file()

    def record(self) -> "Record":
        """All that is known of the trial so far."""
        trial = read_json(self.trial)
        result = self.workdir.read_result()
        rows = read_metrics(self.workdir.metrics) if self.workdir.metrics.is_file() else []
        state = self.state()
        why = {State.FAILED: self.failed, State.PRUNED: self.pruned}.get(state)
        return Record(
            name=self.name,
            overrides=trial["overrides"],
            config=trial["config"],
            state=state,
            metrics=result["metrics"] if result else {},
            measured=read_json(self.measured) if self.measured.is_file() else {},
            rows=rows,
            card=read_json(self.workdir.run) if self.workdir.run.is_file() else {},
            attempts=read_lines(self.attempts),
            reason=read_json(why)["reason"] if why else None,
            workdir=self.workdir,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a trial, for tables and reports.

    Attributes:
      metrics: of the last evaluation; empty until the run has finished.
      measured: what was measured on the finished run afterwards.
      rows: of metrics.jsonl: {'step': ..., 'train/loss': ..., 'test/top1': ...}.
      card: run.json: versions, devices, command; empty until the run has begun.
      attempts: {'event': 'start', 'end', ..., 'time': seconds since 1970, 'exit_code': ...}.
      reason: why it failed or was pruned.
    """

    name: str
    overrides: dict[str, Any]
    config: dict[str, Any]
    state: State
    metrics: dict[str, float]
    measured: dict[str, float]
    rows: list[dict[str, float]]
    card: dict[str, Any]
    attempts: list[dict[str, Any]]
    reason: str | None
    workdir: Workdir

    @property
    def seed(self) -> int:
        return self.config["train"].get("seed", 0)

    @property
    def step(self) -> int:
        """The last step that was logged."""
        return int(max((row["step"] for row in self.rows), default=0))


@dataclasses.dataclass(frozen=True)
class SweepFolder:
    path: Path

    sweep = property(lambda self: self.path / "sweep.json")
    trials = property(lambda self: self.path / "trials")
    lock = property(lambda self: self.path / ".lock")
    compiled = property(lambda self: self.path / "compiled")
    slurm = property(lambda self: self.path / "slurm")
    study = property(lambda self: self.path / "study.log")

    @classmethod
    def at(cls, path: str | Path) -> "SweepFolder":
        return cls(Path(path).expanduser().resolve())

    def trial(self, name: str) -> TrialFolder:
        return TrialFolder(Workdir(self.trials / name))

    def add(self, trial: Trial) -> TrialFolder:
        """Writes what the trial is. The names of trials it needs become their workdirs.

        A trial that never got as far as a checkpoint binds nobody: one of another config takes its
        place, and why it failed is forgotten. What is written of a finished one stays.

        Raises:
          InputError: if the trial has begun with another config; then with the differences. One
            that has finished was not evaluated otherwise, either.
        """
        folder = self.trial(trial.name)
        config = self._resolved(trial.config)
        is_finished = folder.exists() and folder.workdir.result.is_file()
        if different := folder.differences(config, is_finished=is_finished):
            if is_finished or folder.workdir.holds_training():
                raise InputError(
                    f"the trial {trial.name!r} in {self.path} has begun with another config: "
                    f"{'; '.join(different)}. Allowed: the same config, a trial of another name, "
                    "or another workdir."
                )
            folder.failed.unlink(missing_ok=True)
        if is_finished:
            return folder
        folder.workdir.path.mkdir(parents=True, exist_ok=True)
        replace_json(
            folder.trial,
            {
                "name": trial.name,
                "overrides": trial.overrides,
                "config": config,
                "needs": list(trial.needs),
            },
        )
        return folder

    def _resolved(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: self._resolved(inner) for key, inner in value.items()}
        if isinstance(value, str) and value.startswith(NEEDS):
            return str(self.trials / value.removeprefix(NEEDS))
        return value

    def known(self) -> list[TrialFolder]:
        """The trials that are there, in the order of their names."""
        return [TrialFolder(Workdir(p.parent)) for p in sorted(self.trials.glob("*/trial.json"))]

    def records(self) -> list[Record]:
        return [folder.record() for folder in self.known()]


def is_locked(path: Path) -> bool:
    """Does a process hold the lock of `workdir.locked`?"""
    if not path.is_file():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # some network file systems know no locks
            return False
        return False


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; a last line that a kill cut short is left out."""
    return list(_read_lines(path)) if path.is_file() else []


def _read_lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text().splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)
