"""What `sweep` does with a file that has `get_table()`: a paper's table, see `vit_jax.papers`."""

from collections.abc import Sequence

from absl import flags

from vit_jax.commands import parsing
from vit_jax.config_files import ConfigFile, literal
from vit_jax.errors import InputError
from vit_jax.papers.table import FUNCTION

# Flags of other sweeps, and of tables alone.
OF_SWEEPS = ("num_trials", "storage", "sampler", "pruner", "seed", "metric")
OF_TABLES = ("scale", "out", "device", "devices")
OF_PRICES = ("device", "devices")


def define_flags(values: flags.FlagValues) -> None:
    for name, text in (
        ("scale", "of a table, e.g. small or full"),
        ("out", "folder that gets a table's results, too"),
        ("device", "kind that --dry_run tells a table's cost for, e.g. h100 or v3"),
    ):
        flags.DEFINE_string(name, None, text, flag_values=values)
    flags.DEFINE_integer(
        "devices", None, "how many of that kind", lower_bound=1, flag_values=values
    )


def is_table(file: ConfigFile) -> bool:
    return FUNCTION in file.names


def check_flags(file: ConfigFile, values: flags.FlagValues) -> None:
    """Raises `InputError` for a flag that has no effect on what the file has."""
    refused = OF_SWEEPS if is_table(file) else OF_TABLES
    given = [f"--{name}" for name in refused if values[name].present]
    if given:
        has, lacks = ("has", "without") if is_table(file) else ("has no", "with")
        raise InputError(
            f"{given[0]} is given, but {file.argument} {has} {FUNCTION}(); allowed: {lacks} one."
        )
    of_prices = [f"--{name}" for name in OF_PRICES if values[name].present and not values.dry_run]
    if of_prices:
        raise InputError(f"{of_prices[0]} says what a cost is told for; allowed: with --dry_run.")


def default_workdir(file: ConfigFile, values: flags.FlagValues) -> str:
    from vit_jax.papers import loading

    scale = parsing.require(values, "scale")
    return loading.default_workdir(loading.load_table(file.argument), scale)


def run(file: ConfigFile, overrides: Sequence[str], how: object, values: flags.FlagValues) -> int:
    """Runs a table at a scale, or tells what that would cost; `how` is a `sweeps.running.How`."""
    from rich.console import Console

    from vit_jax.papers import loading, pricing, running
    from vit_jax.sweeps.running import About, run_trials

    console, scale = Console(), parsing.require(values, "scale")
    pairs = (override.partition("=") for override in overrides)
    where = {key: literal(text) for key, _, text in pairs}
    table = loading.load_table(file.argument, where=where)
    if values.dry_run:
        chosen = table.scale(scale)
        fleet = pricing.Fleet.of(chosen, device=values.device, count=values.devices)
        pricing.print_prices(table, scale, fleet, console)
        return 0

    def run_all(trials, folder) -> int:
        about = About()  # each trial has a config of its own
        return run_trials(folder, trials, how=how, about=about, console=console).exit_code

    return running.run_table(
        table, scale=scale, workdir=values.workdir, run=run_all, out=values.out, console=console
    )
