"""A job of Slurm watched from outside, by `scontrol` alone, since not every cluster has sacct."""

import dataclasses
import re
import subprocess
import sys
import time
from pathlib import Path

from vit_jax.errors import InputError

POLL_SECONDS = 5.0  # schedulers ask not to be asked more often
MAX_SILENCE = 60  # answers that a busy controller may fail to give, one after the other

# https://slurm.schedmd.com/squeue.html#SECTION_JOB-STATE-CODES: those that a job does not leave.
FINAL_STATES = (
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "PREEMPTED",
    "TIMEOUT",
)


class Forgotten(InputError):
    """Slurm does not know the job: it never did, or the job ended some minutes ago."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobState:
    """What Slurm says of a job.

    Attributes:
      name: Slurm's, e.g. 'RUNNING'.
      exit_code: as a shell has it: 128 and the signal's number for a job that a signal ended.
    """

    name: str
    exit_code: int

    @property
    def is_final(self) -> bool:
        return self.name in FINAL_STATES


def state_of(job_id: str) -> JobState:
    """The job's state; `Forgotten` where Slurm does not know it, InputError if it is silent."""
    command = ["scontrol", "show", "job", "--oneliner", job_id]
    found = subprocess.run(command, capture_output=True, text=True)
    name = re.search(r"\bJobState=(\S+)", found.stdout)
    code = re.search(r"\bExitCode=(\d+):(\d+)", found.stdout)
    if name is None or code is None:
        is_forgotten = "Invalid job id" in found.stderr
        raise (Forgotten if is_forgotten else InputError)(
            f"Slurm tells nothing of job {job_id} ({found.stderr.strip()}); allowed: a job that is "
            "waiting, running or just over."
        )
    ended, by_signal = int(code[1]), int(code[2])
    return JobState(name=name[1], exit_code=128 + by_signal if by_signal else ended)


def jobs_with_comments() -> list[tuple[str, str]]:
    """(job id, comment) of each job of this user that Slurm knows, of an array one by one.

    Raises:
      InputError: if Slurm is silent.
    """
    command = ["squeue", "--me", "--noheader", "--array", "--states=all", "--format=%i %k"]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise InputError(
            f"Slurm does not list its jobs ({found.stderr.strip()}); allowed: the same again."
        )
    lines = [line.partition(" ") for line in found.stdout.splitlines()]
    return [(job_id, comment.strip()) for job_id, _, comment in lines]


def follow(job_id: str, log: Path, *, poll_seconds: float = POLL_SECONDS) -> JobState:
    """Prints the log as it grows until the job, requeued or not, has come to its end."""
    position = silence = 0
    while True:
        state = None
        try:
            state = state_of(job_id)  # before the log, so that the last lines are not missed
            silence = 0
        except InputError:
            silence += 1
            if silence > MAX_SILENCE:
                raise
        position = print_from(log, position)
        if state is not None and state.is_final:
            return state
        time.sleep(poll_seconds)


def print_from(log: Path, position: int) -> int:
    """Prints what the file holds from a position on; returns where it ends."""
    if not log.exists():
        return position
    with log.open("rb") as file:
        file.seek(position)
        sys.stdout.write(file.read().decode(errors="replace"))
        sys.stdout.flush()
        return file.tell()
