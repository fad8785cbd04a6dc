"""Runs as jobs of a Slurm cluster, by submitit (https://github.com/facebookincubator/submitit).

submitit writes the job script, submits it, and starts `Run` in every task. What happens to a job
that ends is decided here, by the script's last lines: the exit code of the training says whether it
is done (0), has failed, or has saved itself because it was asked to leave (`EXIT_PREEMPTED`); only
then is the job requeued, under its own id. So

  the time limit comes  Slurm sends SIGTERM `save_seconds` before; every task saves; requeued
  preemption            the same in Slurm's grace time; without one, Slurm itself requeues the job
                        and leaves it KillWait seconds (30 by default) to save
  scancel               ends the script as well as the tasks, which still save; not requeued
  a failure             not requeued; the other tasks are ended `END_TOGETHER` seconds later

submitit's own way, a handler in task 0 that requeues at the signal, would end the tasks before they
have saved together, and needs `scontrol` inside of a container.
"""

import contextlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vit_jax.errors import InputError
from vit_jax.launch.run import EXIT_PREEMPTED, Run
from vit_jax.launch.settings import LaunchSettings

if TYPE_CHECKING:
    import submitit

# Seconds that the tasks of a job may end apart. All leave together, but for one that failed.
END_TOGETHER = 60

# An array's first task has the array's own id, which alone would mean all of them.
REQUEUE = """\
# A training that was asked to leave has saved itself; it continues when the job begins again.
code=$?
job=${{SLURM_ARRAY_JOB_ID:+${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID}}
if [ $code = {preempted} ] && [ ${{SLURM_RESTART_COUNT:-0}} -lt {max_requeues} ]; then
  scontrol requeue ${{job:-$SLURM_JOB_ID}} && exit 0
fi
exit $code"""


def submit(
    runs: Sequence[Run], settings: LaunchSettings, *, folder: Path
) -> list["submitit.Job[None]"]:
    """Submits one job, or several runs as one array of jobs; they train after this returns.

    Args:
      folder: of scripts and logs; one that every machine sees.

    Returns:
      A job for each run; `job_id` is its name for Slurm's commands, `paths.stdout` its log.

    Raises:
      InputError: where there is no Slurm, or it refuses the job.
    """
    if missing := [name for name in ("sbatch", "srun") if shutil.which(name) is None]:
        raise InputError(
            f"there is no {' and no '.join(missing)} here; allowed: a machine that submits to a "
            "Slurm cluster, or --dry_run."
        )
    executor = make_executor(runs, settings, folder)
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return executor.submit_array(runs)
    except (FailedJobError, FailedSubmissionError) as error:
        raise InputError(
            f"Slurm refuses the job ({' '.join(str(error).split())}); allowed: what this cluster "
            "has, see `sinfo` and config.launch."
        ) from error


def job_script(runs: Sequence[Run], settings: LaunchSettings, *, folder: Path) -> str:
    """What `submit` would give to sbatch. Needs no Slurm."""
    executor = make_executor(runs, settings, folder)
    if len(runs) > 1:
        executor.parameters["map_count"] = len(runs)
    # Not public; a test compares the text with what was submitted.
    return executor._make_submission_file_text(executor._submitit_command_str, "")


def make_executor(
    runs: Sequence[Run], settings: LaunchSettings, folder: Path
) -> "submitit.SlurmExecutor":
    """submitit's object that holds the job's parameters."""
    try:
        with logging_left_alone():
            import submitit
    except ImportError as error:
        raise InputError(
            "submitit is not installed; allowed: --launcher=local, or install the extra: pip "
            "install 'vit_jax[slurm]'."
        ) from error

    class Executor(submitit.SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 1  # also where there is no Slurm: to write a script none is needed

    executor = Executor(folder, python=settings.interpreter)
    executor.update_parameters(
        job_name=settings.job_name or runs[0].workdir.name,
        time=settings.minutes,
        nodes=settings.nodes,
        ntasks_per_node=settings.tasks_per_node,
        cpus_per_task=settings.cpus_per_task,
        gpus_per_node=settings.gpus_per_node or None,
        mem=settings.memory,
        partition=settings.partition,
        account=settings.account,
        qos=settings.qos,
        constraint=settings.constraint,
        wckey=None,
        array_parallelism=settings.max_parallel or len(runs),
        stderr_to_stdout=True,  # one log a task, in the order that things happened
        setup=list(settings.setup),
        srun_args=srun_options(settings),
        teardown=[requeue_lines(max_requeues=settings.max_requeues)],
        additional_parameters=sbatch_options(settings),
    )
    return executor


@contextlib.contextmanager
def logging_left_alone() -> Iterator[None]:
    """For submitit's import, which otherwise configures logging and closes others' handlers."""
    name = "SUBMITIT_LOG_LEVEL"
    before = os.environ.get(name)
    os.environ[name] = "NOCONFIG"
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


def requeue_lines(*, max_requeues: int) -> str:
    """The script's end, which decides by the exit code of the tasks."""
    return REQUEUE.format(preempted=EXIT_PREEMPTED, max_requeues=max_requeues)


def sbatch_options(settings: LaunchSettings) -> dict[str, object]:
    """Options that submitit has no names for; False and None leave one out."""
    options = {"requeue": True, "signal": f"TERM@{settings.save_seconds}", **settings.sbatch}
    return {name: value for name, value in options.items() if value not in (None, False)}


def srun_options(settings: LaunchSettings) -> list[str]:
    """Options of the step, which must not depend on the cluster's defaults."""
    options = [f"--wait={END_TOGETHER}", "--kill-on-bad-exit=0"]
    if settings.cpus_per_task is not None:  # since Slurm 22.05 a step does not take the job's
        options.append(f"--cpus-per-task={settings.cpus_per_task}")
    return [*options, *settings.srun]


def log_of(job_id: str, folder: Path) -> Path:
    """What a job prints that was submitted with this folder."""
    from submitit.core.utils import JobPaths

    return JobPaths(folder=folder, job_id=job_id, task_id=0).stdout


def check_path(workdir: Path) -> None:
    """Raises `InputError` for a path that a job script cannot name."""
    if {"\n", "%"} & set(str(workdir)):
        raise InputError(
            f"--workdir is {str(workdir)!r}, which Slurm would read otherwise; allowed: a "
            "path without line breaks and %."
        )


def cancel(job_id: str) -> None:
    """Ends a job, which saves if Slurm's KillWait lets it, and does not come back."""
    subprocess.run(["scancel", job_id], check=False, capture_output=True)


def how_to_follow(job: "submitit.Job[None]") -> str:
    """Three lines for a person: where the log is, and the commands that matter."""
    log, job_id = shlex.quote(str(job.paths.stdout)), job.job_id
    return (
        f"job {job_id}: tail -F {log}\n"
        f"state: squeue -j {job_id}; end it: scancel {job_id}\n"
        f"save now and begin again: scancel --signal=TERM {job_id}"
    )
