"""python -m vit_jax train --config=FILE --workdir=DIR [--config.KEY=VALUE ...]

--config=FILE[:ARG] is a file with `get_config(arg)`, see configs/README.md; --config.KEY=VALUE
sets any key of it, e.g. --config.optimizer.learning_rate=3e-4.
"""

import sys

from absl import flags

from vit_jax import xla_flags
from vit_jax.commands import parsing
from vit_jax.errors import InputError


def main(arguments: list[str]) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder of the run", flag_values=values)
    config, rest = parsing.take_config(arguments)
    parsing.reject_positional(parsing.parse(values, "train", rest, doc=__doc__))
    if config is None:
        raise InputError("--config is missing; allowed: --config=configs/NAME.py")
    workdir = parsing.require(values, "workdir")

    xla_flags.prefer_batches()
    from vit_jax import experiment  # after the flags, whose mistakes should be told at once
    from vit_jax.train.preemption import EXIT_PREEMPTED, Preempted

    try:
        experiment.run(config, workdir)
    except Preempted as stop:
        print(stop, file=sys.stderr)
        return EXIT_PREEMPTED
    return 0
