"""python -m vit_jax train --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--profile=10:15]

--config=FILE[:ARG] is a file with `get_config(arg)`, see configs/README.md; --config.KEY=VALUE
sets any key of it, e.g. --config.optimizer.learning_rate=3e-4. --profile=FIRST:LAST writes a trace
of these steps, counted from 1, to DIR/profile, for XProf or TensorBoard.

Several processes train as one under srun or mpirun, on TPU pods, in an indexed Job of Kubernetes,
or each with --coordinator=HOST:PORT --num_processes=N --process_id=I.

--launcher=local starts config.launch.tasks_per_node processes on this machine; --launcher=slurm
submits a job to a cluster and returns, unless --wait follows it to its end or --dry_run only prints
the job script.
"""

import sys
from collections.abc import Mapping
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vit_jax import sections, xla_flags
from vit_jax.commands import launching, parsing, processes
from vit_jax.config_files import set_leaf
from vit_jax.errors import InputError


def main(arguments: list[str]) -> int:
    config, rest = parsing.take_config(arguments)
    values = parse(rest)
    if config is None:
        raise InputError("--config is missing; allowed: --config=configs/NAME.py")
    parsing.require(values, "workdir")
    if values.profile is not None:
        steps = steps_of(values.profile)
        set_leaf(config, "train.profile_steps", steps, given="--profile")
    settings = launching.read_settings(config, values)
    if values.launcher is None:
        return train(config, values)
    launch = sections.choose(launching.LAUNCHERS, values.launcher, where="--launcher")
    return launch(config, settings, values, parsing.config_arguments(arguments))


def parse(arguments: list[str]) -> flags.FlagValues:
    """The command's flags, without the config's."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_string("profile", None, "FIRST:LAST, steps to trace", flag_values=values)
    processes.define_flags(values)
    launching.define_flags(values)
    parsing.reject_positional(parsing.parse(values, "train", arguments, doc=__doc__))
    return values


def train(config: ConfigDict | Mapping[str, Any], values: flags.FlagValues) -> int:
    """Trains in this process; the exit code."""
    xla_flags.prefer_batches()
    from vit_jax import experiment  # after the flags, whose mistakes should be told at once
    from vit_jax.train.preemption import EXIT_PREEMPTED, Preempted

    try:
        with processes.connected(values):
            experiment.run(config, values.workdir)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        return EXIT_PREEMPTED
    return 0


def steps_of(text: str) -> tuple[int, int]:
    """'10:15' -> (10, 15), and '10' -> (10, 10)."""
    first, _, last = text.partition(":")
    try:
        return int(first), int(last or first)
    except ValueError as error:
        raise InputError(
            f"--profile is {text!r}; allowed: FIRST:LAST, steps counted from 1, e.g. 10:15."
        ) from error
