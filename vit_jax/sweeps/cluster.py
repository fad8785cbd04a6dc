"""Trials as jobs of a Slurm cluster: those that can begin together are one array.

Which job a trial has stands in its attempts.jsonl, so that a sweep that begins again finds it and
submits nothing twice. Before its id is known a job is told by a mark, which is noted first and is
its comment in Slurm. A job outlives the sweep that watches it. Preempted ones are requeued by their
own scripts, see launch/slurm.py; here is decided about those that came to an end.
"""

import dataclasses
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.launch import following, slurm
from vit_jax.launch.run import Run
from vit_jax.launch.settings import LaunchSettings
from vit_jax.sweeps import attempts
from vit_jax.sweeps.folder import FINAL, State, SweepFolder, TrialFolder, read_lines
from vit_jax.sweeps.queue import Ended
from vit_jax.sweeps.trials import Trial
from vit_jax.sweeps.worker import run_of
from vit_jax.train.preemption import EXIT_PREEMPTED

# Ends that are the cluster's doing: the trial is submitted again, as one that a signal ended.
LOST = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED")
CANCELLED = "CANCELLED"


@dataclasses.dataclass
class Job:
    folder: TrialFolder
    job_id: str
    silences: int = 0  # answers that Slurm failed to give, one after the other
    asked: bool = False


class SlurmLauncher:
    """Submits and watches.

    Args:
      capacity: trials that may be submitted at once; how many of an array run at once is
        `config.launch.max_parallel`.
    """

    def __init__(self, folder: SweepFolder, *, capacity: int):
        self.capacity = capacity
        self._folder = folder
        self._jobs: dict[str, Job] = {}

    @property
    def poll_seconds(self) -> float:
        """The controller is asked for each job; ten a second at most."""
        return max(following.POLL_SECONDS, len(self._jobs) / 10)

    def adopt(self, folders: Sequence[TrialFolder]) -> list[TrialFolder]:
        """Also writes down the jobs that a sweep had no more time to write down."""
        known = self._folder.known()
        note_lost(known, logs=self._folder.slurm)
        close_final(known)
        for folder in folders:
            if job_id := open_job(folder):
                self._jobs[folder.name] = Job(folder, job_id)
        return [job.folder for job in self._jobs.values()]

    def start(self, folders: Sequence[TrialFolder]) -> None:
        by_path = {folder.workdir.path: folder for folder in folders}
        for settings, runs in by_settings([run_of(folder) for folder in folders]):
            mark = uuid.uuid4().hex
            for index, run in enumerate(runs):
                place = index if len(runs) > 1 else None  # a single run is no array
                attempts.note(by_path[run.workdir], "submit", mark=mark, index=place)
            settings = marked(named(self._folder, settings), mark)
            jobs = slurm.submit(runs, settings, folder=self._folder.slurm)
            for run, job in zip(runs, jobs, strict=True):
                folder = by_path[run.workdir]
                attempts.note(folder, "start", job_id=job.job_id, log=str(job.paths.stdout))
                self._jobs[folder.name] = Job(folder, job.job_id)

    def ended(self) -> list[Ended]:
        found = [(job, self._end(job)) for job in self._jobs.values()]
        ended = [Ended(job.folder, code, job.asked) for job, code in found if code is not None]
        for end in ended:
            del self._jobs[end.folder.name]
        return ended

    def _end(self, job: Job) -> int | None:
        """The exit code of a job that is over."""
        if job.folder.state() == State.FINISHED:
            return 0
        try:
            state = following.state_of(job.job_id)
        except following.Forgotten:  # nobody looked for some minutes, and it has no result
            return EXIT_PREEMPTED
        except InputError:  # the controller is busy, or begins anew
            job.silences += 1
            if job.silences > following.MAX_SILENCE:
                raise
            return None
        job.silences = 0
        if not state.is_final:
            return None
        job.asked |= state.name == CANCELLED  # by a person; it is submitted by the next command
        return EXIT_PREEMPTED if state.name in LOST else state.exit_code

    def stop(self, folder: TrialFolder) -> None:
        """Cancels it: a job that is only asked to save would be requeued."""
        job = self._jobs[folder.name]
        if not job.asked:
            job.asked = True
            slurm.cancel(job.job_id)

    def leave(self) -> bool:
        return True  # jobs go on

    def close(self) -> None:
        pass


def open_job(folder: TrialFolder) -> str | None:
    """The job that was submitted last, unless its end was seen."""
    return last_line(folder).get("job_id")


def last_line(folder: TrialFolder) -> dict[str, Any]:
    """Of attempts.jsonl, about a job: what was done last; empty where there was none."""
    events = ("submit", "start", "end")
    lines = [line for line in read_lines(folder.attempts) if line["event"] in events]
    return lines[-1] if lines else {}


def note_lost(folders: Sequence[TrialFolder], *, logs: Path) -> None:
    """Finds jobs by their marks where a sweep was killed between submitting and noting the id."""
    lost = [(one, last_line(one)) for one in folders]
    lost = [(one, line) for one, line in lost if line.get("event") == "submit"]
    jobs = following.jobs_with_comments() if lost else []
    for folder, line in lost:
        ending = "" if line["index"] is None else f"_{line['index']}"
        for job_id, comment in jobs:
            if comment.endswith(line["mark"]) and job_id.endswith(ending):
                log = slurm.log_of(job_id, logs)
                attempts.note(folder, "start", job_id=job_id, log=str(log))


def close_final(folders: Sequence[TrialFolder]) -> None:
    """Notes ends that nobody saw, since no sweep was there to watch.

    Jobs of trials that a sweep had pruned when it was itself killed are cancelled.
    """
    for folder in folders:
        state = folder.state()
        if state in (State.FINISHED, State.PRUNED) and (job_id := open_job(folder)):
            is_pruned = state == State.PRUNED
            if is_pruned:
                slurm.cancel(job_id)
            code = EXIT_PREEMPTED if is_pruned else 0
            attempts.note(folder, "end", exit_code=code, asked=is_pruned)


def by_settings(runs: Sequence[Run]) -> list[tuple[LaunchSettings, list[Run]]]:
    """Runs that want the same machines, which alone can be one array."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        key = json.dumps(run.config.get("launch", {}), sort_keys=True)
        groups.setdefault(key, []).append(run)
    return [
        (sections.call(LaunchSettings, json.loads(key), where="config.launch"), group)
        for key, group in groups.items()
    ]


def named(folder: SweepFolder, settings: LaunchSettings) -> LaunchSettings:
    """A job is called after the sweep, unless the config has a name for it."""
    return dataclasses.replace(settings, job_name=settings.job_name or folder.path.name)


def marked(settings: LaunchSettings, mark: str) -> LaunchSettings:
    """The mark ends the comment, which may begin with the config's own."""
    comment = f"{settings.sbatch.get('comment', '')} {mark}".strip()
    return dataclasses.replace(settings, sbatch={**settings.sbatch, "comment": comment})


def script(folder: SweepFolder, trials: Sequence[Trial]) -> str:
    """What would be submitted first, for those of the trials that are not final."""
    waiting = [
        one for one in trials if not one.needs and folder.trial(one.name).state() not in FINAL
    ]
    runs = [Run(config=one.config, workdir=folder.trial(one.name).workdir.path) for one in waiting]
    return "\n".join(
        slurm.job_script(group, named(folder, settings), folder=folder.slurm)
        for settings, group in by_settings(runs)
    )
