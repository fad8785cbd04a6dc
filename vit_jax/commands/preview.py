"""The part of `python -m vit_jax prepare` that draws what a training will see."""

from pathlib import Path

from absl import flags

from vit_jax.commands import parsing
from vit_jax.errors import InputError


def main(arguments: list[str], *, doc: str) -> int:
    values = flags.FlagValues()
    flags.DEFINE_string("out", None, "folder for the pictures", flag_values=values)
    flags.DEFINE_integer("examples", 24, "examples a picture", lower_bound=1, flag_values=values)
    config, rest = parsing.take_config(arguments)
    parsing.reject_positional(parsing.parse(values, "prepare --preview", rest, doc=doc))
    if config is None:
        raise InputError("--config is missing; allowed: --config=configs/NAME.py")
    out = Path(parsing.require(values, "out"))

    from vit_jax import experiment, previewing
    from vit_jax.workdir import check_writable

    check_writable(out)
    for file in previewing.draw(experiment.plain(config), out, values.examples):
        print(file)
    return 0
