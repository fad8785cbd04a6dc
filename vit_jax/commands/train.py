"""python -m vit_jax train --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--profile=10:15]

--config=FILE[:ARG] is a file with `get_config(arg)`, see configs/README.md; --config.KEY=VALUE
sets any key of it, e.g. --config.optimizer.learning_rate=3e-4. --profile=FIRST:LAST writes a trace
of these steps, counted from 1, to DIR/profile, for XProf or TensorBoard.
"""

import sys

from absl import flags

from vit_jax.commands import parsing
from vit_jax.errors import InputError


def main(arguments: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    flags.DEFINE_string("profile", None, "FIRST:LAST, steps to trace", flag_values=values)
    config, rest = parsing.take_config(arguments)
    parsing.reject_positional(parsing.parse(values, "train", rest, doc=__doc__))
    if config is None:
        raise InputError("--config is missing; allowed: --config=configs/NAME.py")
    workdir = parsing.require(values, "workdir")
    if values.profile is not None:
        steps = steps_of(values.profile)
        parsing.set_leaf(config, "train.profile_steps", steps, given="--profile")

    from vit_jax import experiment  # after the flags, whose mistakes should be told at once
    from vit_jax.train.preemption import EXIT_PREEMPTED, Preempted

    try:
        experiment.run(config, workdir)
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
