"""python -m vit_jax sweep --config=FILE --workdir=DIR [--config.KEY=VALUE ...] [--workers=N]

Runs the trials of a config, each in a folder of its own below DIR/trials. The same command again
runs what is unfinished, and continues what was interrupted.

The file has `sweep()`, which yields a dict of overrides for each trial, or `search_space(trial)`,
which returns one for a trial of Optuna; `sweep(arg)` is given ARG of --config=FILE:ARG. With
--num_trials=N it is a search for the best --metric, otherwise it is what `sweep` yields; see
vit_jax/sweeps/trials.py and search.py.

--workers=N runs N trials at once, each with its share of the cores, and with --gpus_per_trial=K
its own K GPUs. --launcher=slurm submits arrays of jobs as config.launch says, and watches them.
--dry_run only tells what would be run.

A file with `get_table()` is a paper's table, see vit_jax/papers/table.py: --scale=small runs its
rows with each of their seeds, measures them, and writes DIR/table.md, .json and .png, with
--out=FOLDER there, too; --scale=full --dry_run tells what its rows cost on --devices=N of
--device=NAME. DIR is by default runs/PAPER/TABLE-SCALE.

--status, --best and --report look at a sweep, running or not: its table of trials, the best one
with the command that repeats it, and the files of its report. They need --workdir alone, and may
have another --metric.
"""

import inspect
from pathlib import Path
from typing import Any

from absl import flags

from vit_jax import sections
from vit_jax.commands import paper_tables, parsing, processes
from vit_jax.config_files import OVERRIDE, ConfigFile, reading
from vit_jax.errors import InputError

OF_SEARCHES = ("storage", "sampler", "pruner", "seed")
OF_LOOKS = ("workdir", "metric")
METRIC = "that trials are compared by, test/top1 if there is one; lower is better of a loss"


def main(arguments: list[str]) -> int:
    file, overrides, rest = parsing.take_file(arguments)
    values = parse(rest)
    from vit_jax.sweeps.folder import SweepFolder

    if file is not None and paper_tables.is_table(file) and not values.workdir:
        values.workdir = paper_tables.default_workdir(file, values)
    folder = SweepFolder.at(parsing.require(values, "workdir"))
    if looks := [name for name in LOOKS if values[name].value]:
        refuse_others(looks, file, overrides, values)
        for name in looks:
            LOOKS[name](folder, values)
        return 0
    if file is None:
        raise InputError("--config is missing; allowed: --config=configs/NAME.py")
    processes.refuse("sweep")
    paper_tables.check_flags(file, values)
    if paper_tables.is_table(file):
        return paper_tables.run(file, overrides, how_of(values), values)
    run = run_search if is_search(file, values) else run_listed
    return run(file, overrides, folder, values)


def parse(arguments: list[str]) -> flags.FlagValues:
    values = flags.FlagValues()
    for name, text in (
        ("workers", "trials at once; by default 1, and all on a cluster"),
        ("gpus_per_trial", "GPUs that a trial has to itself; 0 leaves all visible"),
        ("num_trials", "of a search, those of earlier commands included"),
    ):
        least = 0 if name == "gpus_per_trial" else 1
        default = 0 if name == "gpus_per_trial" else None
        flags.DEFINE_integer(name, default, text, lower_bound=least, flag_values=values)
    flags.DEFINE_integer("seed", 0, "of a search's sampler", flag_values=values)
    for name, default, text in (
        ("workdir", None, "folder of the sweep"),
        ("launcher", "local", "local or slurm"),
        ("metric", None, METRIC),
        ("storage", None, "URL of a database for a search; None: a file in the folder"),
        ("sampler", "tpe", "tpe, cmaes or random"),
        ("pruner", "none", "none, median, halving or hyperband: what ends hopeless trials"),
    ):
        flags.DEFINE_string(name, default, text, flag_values=values)
    for name, text in (
        ("dry_run", "tell what would be run, and touch nothing"),
        ("status", "print the table of trials"),
        ("best", "print the best trial"),
        ("report", "write the report"),
        ("retry_failed", "give failed trials another try"),
    ):
        flags.DEFINE_bool(name, False, text, flag_values=values)
    paper_tables.define_flags(values)
    given = [a.replace("--retry-failed", "--retry_failed") for a in arguments]
    parsing.reject_positional(parsing.parse(values, "sweep", given, doc=__doc__))
    return values


def is_search(file: ConfigFile, values: flags.FlagValues) -> bool:
    """Is it a search, or what `sweep` yields? Refuses what is neither."""
    wants = values.num_trials is not None
    has_sweep, has_space = ("sweep" in file.names), ("search_space" in file.names)
    if not has_sweep and not has_space:
        raise InputError(
            f"{file.argument} has neither sweep() nor search_space(trial); allowed: a config with "
            "one of them."
        )
    if wants and not has_space:
        raise InputError(
            f"--num_trials is given, but {file.argument} has no search_space(trial); allowed: "
            "without it, to run what its sweep() yields."
        )
    if not wants and not has_sweep:
        raise InputError(
            f"--num_trials is missing, and {file.argument} has no sweep(); allowed: a number of "
            "trials to search with."
        )
    if given := [f"--{name}" for name in OF_SEARCHES if values[name].present and not wants]:
        raise InputError(f"{given[0]} belongs to a search; allowed: with --num_trials.")
    return wants


def run_listed(
    file: ConfigFile, overrides: list[str], folder: Any, values: flags.FlagValues
) -> int:
    from vit_jax.sweeps import running, status
    from vit_jax.sweeps.trials import check_trials, make_trial

    base = base_of(file, overrides)
    if values.metric:
        status.check_metric(base, values.metric)
    sweep = file.names["sweep"]
    arg = [file.argument.partition(":")[2]] if inspect.signature(sweep).parameters else []
    found = file.call("sweep", *arg)
    with reading(file.argument):
        trials = [make_trial(base, changes) for changes in found]
    about = about_of(file, overrides, base, values)
    if values.dry_run:
        check_trials(trials)
        return dry_run(folder, trials, values)
    outcome = running.run_trials(folder, trials, how=how_of(values), about=about)
    return finish(folder, outcome)


def run_search(
    file: ConfigFile, overrides: list[str], folder: Any, values: flags.FlagValues
) -> int:
    from vit_jax.sweeps import search, status

    base = base_of(file, overrides)
    metric = values.metric or status.default_metric(base)
    if metric is None:
        raise InputError("--metric is missing, and config.evals is empty; allowed: an evaluation.")
    settings = search.SearchSettings(
        metric=metric,
        num_trials=values.num_trials,
        sampler=values.sampler,
        pruner=values.pruner,
        seed=values.seed,
        storage=values.storage,
    )
    search.check(base, settings)
    if values.dry_run:
        print(
            f"{settings.num_trials} trials, chosen by {settings.sampler} for the best "
            f"{settings.metric}; which ones depends on what they find."
        )
        return 0
    outcome = search.run_search(
        folder,
        base,
        lambda trial: file.call("search_space", trial),
        settings,
        how=how_of(values),
        about=about_of(file, overrides, base, values),
    )
    return finish(folder, outcome)


def base_of(file: ConfigFile, overrides: list[str]) -> dict[str, Any]:
    """The config that trials change; mistakes in what every trial shares are told at once."""
    from vit_jax import experiment
    from vit_jax.launch.settings import LaunchSettings

    base = experiment.plain(file.config(overrides))
    sections.call(LaunchSettings, base["launch"], where="config.launch")
    return base


def about_of(file: ConfigFile, overrides: list[str], base: Any, values: flags.FlagValues) -> Any:
    from vit_jax.sweeps import status
    from vit_jax.sweeps.running import About

    metric = values.metric or status.default_metric(base)
    arguments = [OVERRIDE + override for override in overrides]
    return About(config=file.argument, arguments=arguments, base=base, metric=metric)


def how_of(values: flags.FlagValues) -> Any:
    from vit_jax.sweeps.running import How

    return How(
        launcher=values.launcher,
        workers=values.workers,
        gpus_per_trial=values.gpus_per_trial,
        retry_failed=values.retry_failed,
    )


def dry_run(folder: Any, trials: list[Any], values: flags.FlagValues) -> int:
    """Prints the trials that would be run, or the script that Slurm would be given."""
    from vit_jax.sweeps import running

    configs = [trial.config for trial in trials]
    running.make_launcher(folder, how_of(values), configs)  # whose mistakes are told as well
    if values.launcher == "slurm":
        from vit_jax.sweeps import cluster

        print(cluster.script(folder, trials))
        return 0
    for trial in trials:
        changes = ", ".join(f"{key}={value!r}" for key, value in trial.overrides.items())
        print(f"{trial.name} ({folder.trial(trial.name).state()}): {changes}")
    return 0


def finish(folder: Any, outcome: Any) -> int:
    if outcome.is_over:
        write_report(folder)
    return outcome.exit_code


def write_report(folder: Any, *, metric: str | None = None) -> None:
    from vit_jax.sweeps.reports import report

    files: list[Path] = report.write(folder, metric=metric)
    print(f"report: {', '.join(str(file) for file in files)}")


def refuse_others(
    looks: list[str], file: ConfigFile | None, overrides: list[str], values: flags.FlagValues
) -> None:
    """Raises `InputError` for a flag that has no effect on what is looked at.

    A table's file and scale have one: they say in which folder its runs are by default.
    """
    is_place = file is not None and paper_tables.is_table(file) and not values["workdir"].present
    allowed = {*LOOKS, *OF_LOOKS, *(("scale",) if is_place else ())}
    given = [f"--{name}" for name in values if values[name].present and name not in allowed]
    given += ["--config"] if file is not None and not is_place else []
    given += [OVERRIDE + override for override in overrides]
    if given:
        raise InputError(
            f"{given[0]} has no effect on --{looks[0]}; allowed beside it: "
            f"{', '.join(f'--{name}' for name in OF_LOOKS)}."
        )


def look_at_status(folder: Any, values: flags.FlagValues) -> None:
    from rich.console import Console

    from vit_jax.sweeps import status

    status.print_status(folder, Console(), metric=values.metric)


def look_at_best(folder: Any, values: flags.FlagValues) -> None:
    from rich.console import Console

    from vit_jax.sweeps import status

    status.print_best(folder, Console(), metric=values.metric)


def look_at_report(folder: Any, values: flags.FlagValues) -> None:
    from vit_jax.sweeps import status

    status.existing(folder)
    if values.metric:
        status.check_known(folder.records(), values.metric)
    write_report(folder, metric=values.metric)


LOOKS = {"status": look_at_status, "best": look_at_best, "report": look_at_report}
