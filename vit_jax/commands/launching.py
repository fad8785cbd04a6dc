"""The flags of `train` that start it elsewhere: as several processes, or as a cluster's job."""

import signal
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vit_jax import sections
from vit_jax.commands import parsing
from vit_jax.errors import InputError
from vit_jax.launch.settings import LaunchSettings

NAMES = ("launcher", "dry_run", "wait")
PLACES = ("coordinator", "num_processes", "process_id")


def define_flags(values: flags.FlagValues) -> None:
    names = " or ".join(LAUNCHERS)
    flags.DEFINE_string("launcher", None, f"{names}; None: here and now", flag_values=values)
    for name, text in (
        ("dry_run", "print Slurm's job script, and submit nothing"),
        ("wait", "follow Slurm's job to its end, and leave with its exit code"),
    ):
        flags.DEFINE_bool(name, False, text, flag_values=values)


def read_settings(config: ConfigDict, values: flags.FlagValues) -> LaunchSettings:
    """`config.launch`, which is read with or without a launcher: no mistake stays in it."""
    if values.launcher != "slurm" and (values.dry_run or values.wait):
        raise InputError("--dry_run and --wait say how to submit; allowed: with --launcher=slurm.")
    placed = [f"--{name}" for name in PLACES if values[name].present]
    if values.launcher and placed:
        raise InputError(
            f"{placed[0]} says which process this is, but --launcher={values.launcher} tells that "
            "to those it starts; allowed: one or the other."
        )
    section = config.get("launch", {})
    if not isinstance(section, Mapping | ConfigDict):
        raise InputError(f"config.launch is {section!r}; allowed: a section.")
    section = section.to_dict() if isinstance(section, ConfigDict) else section
    return sections.call(LaunchSettings, section, where="config.launch")


def launch_locally(
    config: ConfigDict, settings: LaunchSettings, values: flags.FlagValues, arguments: list[str]
) -> int:
    """Runs the same command in several processes; `arguments` are those of the config."""
    del config
    from vit_jax.launch import local

    given = parsing.given(values, without=NAMES)
    return local.launch([sys.executable, "-m", "vit_jax", "train", *arguments, *given], settings)


def launch_on_slurm(
    config: ConfigDict, settings: LaunchSettings, values: flags.FlagValues, arguments: list[str]
) -> int:
    del arguments  # the job takes the config as it stands now, with what they changed
    from vit_jax.launch import following, slurm

    run = make_run(config, values)
    folder = run.workdir / "slurm"
    if values.dry_run:
        print(slurm.job_script([run], settings, folder=folder))
        return 0
    (job,) = slurm.submit([run], settings, folder=folder)
    print(slurm.how_to_follow(job), flush=True)
    if not values.wait:
        return 0
    try:
        return following.follow(job.job_id, job.paths.stdout).exit_code
    except KeyboardInterrupt:
        print(f"job {job.job_id} goes on", file=sys.stderr)
        return 128 + signal.SIGINT


def make_run(config: ConfigDict, values: flags.FlagValues) -> Any:
    """What the job will do; mistakes that can be seen from here are told before it waits."""
    from vit_jax import experiment
    from vit_jax.launch import slurm
    from vit_jax.launch.run import Run
    from vit_jax.workdir import Workdir, check_owner, check_writable

    plain = experiment.plain(config)
    workdir = Workdir.at(values.workdir)
    slurm.check_path(workdir.path)
    if not values.dry_run:
        check_writable(workdir.path)
    check_owner(workdir, plain)
    flags_given = parsing.given(values, without=(*NAMES, "workdir"))
    return Run(config=plain, workdir=workdir.path, flags=tuple(flags_given))


LAUNCHERS = {"local": launch_locally, "slurm": launch_on_slurm}
