"""What a scale of a table would cost, row by row, without running anything: `--dry_run`.

Times are by roofline, see `planning.speed`; each seed of a row costs the same.
"""

import dataclasses
import functools
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from vit_jax import planning
from vit_jax.analysis import devices, tables
from vit_jax.errors import InputError
from vit_jax.models.vit import SIZES
from vit_jax.papers import loading
from vit_jax.papers.loading import ROW, TableFile
from vit_jax.papers.table import Kind, Row, Scale
from vit_jax.papers.trials import trials_of
from vit_jax.sweeps.trials import NEEDS, Trial

# 'gs://.../R50+ViT-B_16.npz' and the like: Google's names of what is published.
_PUBLISHED = re.compile(rf"(R50\+)?(ViT|Mixer)-({'|'.join(SIZES)})_(\d+)")
_HYBRIDS = {"16": "resnet50_stride16", "32": "resnet50"}  # by what they reduce the sides


@dataclasses.dataclass(frozen=True)
class Fleet:
    """Devices that runs are planned for."""

    name: str
    count: int

    @classmethod
    def of(cls, scale: Scale, *, device: str | None = None, count: int | None = None) -> "Fleet":
        """What the caller says, or else `scale.devices`, e.g. 'v3, 256', or else one CPU."""
        name, _, number = scale.devices.partition(",")
        name = device or name.strip().removeprefix("tpu-") or "cpu"
        if count is None and number.strip().isdigit():
            count = int(number)
        devices.find(name)
        return cls(name.lower(), count or 1)


@dataclasses.dataclass(frozen=True)
class Price:
    """Of one run. Hours are None where the device's peak is not known.

    Attributes:
      why: nothing is told, in words; then all numbers are None.
    """

    parameters: int | None = None
    exaflops: float | None = None
    hours: float | None = None
    device_hours: float | None = None
    why: str = ""


def price(file: TableFile, row: Row, rows: Sequence[Row], fleet: Fleet) -> Price:
    """Of one seed of a row; `rows` are those that it may begin from."""
    config = with_model(file, file.config(row), rows)
    num_classes, num_examples = row.data or (None, None)
    try:
        found = planning.plan(
            config,
            num_devices=fleet.count,
            device=fleet.name,
            told=planning.Told(num_classes=num_classes, num_examples=num_examples),
            searches=False,
        )
    except InputError as error:
        return Price(why=str(error))
    speed = found["speed"] or {}
    return Price(
        parameters=found["parameters"]["total"],
        exaflops=found["flops"]["run_exaflops"],
        hours=speed.get("run_hours"),
        device_hours=speed.get("run_device_hours"),
    )


def with_model(file: TableFile, config: Mapping[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    """The config without `init`, and with the model that it would begin from: another row's, or
    what the name of a published file tells. A run takes the settings that the file itself has."""
    source = config["init"].get("source", "")
    if source.startswith(ROW):
        other = next(row for row in rows if row.name == source.removeprefix(ROW))
        model = with_model(file, file.config(other), rows)["task"]["model"]
    else:
        model = published_model(source)
    task = {**config["task"], "model": {**model, **config["task"].get("model", {})}}
    return {**config, "task": task, "init": {}}


def published_model(source: str) -> dict[str, Any]:
    """Settings of a model that Google published, by the name of its file; {} for other files."""
    if (match := _PUBLISHED.search(source)) is None:
        return {}
    hybrid, name, size, patch = match.groups()
    model: dict[str, Any] = {"name": name.lower(), "size": size, "patch_size": int(patch)}
    return {**model, "stem": _HYBRIDS[patch], "patch_size": 1} if hybrid else model


def train_command(file: TableFile, row: Row, trial: Trial, *, folder: str) -> str:
    """What runs one trial by itself, its workdir and those that it needs in `folder`."""
    given = {key: value for key, value in trial.overrides.items() if key != "row"} | file.where
    values = [f"--config.{key}={in_folder(value, folder)}" for key, value in given.items()]
    parts = ["train", f"--config={row.config}", *values, f"--workdir={folder}/{trial.name}"]
    return "python -m vit_jax " + " ".join(map(shlex.quote, parts))


def in_folder(value: Any, folder: str) -> Any:
    """'trial:NAME' as its workdir."""
    is_trial = isinstance(value, str) and value.startswith(NEEDS)
    return f"{folder}/{value.removeprefix(NEEDS)}" if is_trial else value


def print_prices(file: TableFile, name: str, fleet: Fleet, console: Console) -> None:
    """Each row with its kind, config, seeds and cost, the sum, and what would start it."""
    scale, hours = file.scale(name), []
    if not console.is_terminal:
        console.width = max(console.width, tables.PLAIN_WIDTH)
    say = functools.partial(console.print, highlight=False, markup=False, soft_wrap=True)
    say(f"{file.table.title}, scale {name}, on {fleet.count:,} {fleet.name}", style="b")
    table = Table("row", "kind", "seeds", "parameters", "exaFLOPs", "hours", "device-hours")
    details = []
    for row in scale.rows:
        found = price(file, row, scale.rows, fleet)
        if row.kind == Kind.TRAINED:
            hours += [found.device_hours] * len(row.seeds)
        table.add_row(row.name, str(row.kind), seeds_of(row), *numbers(found))
        details.append(describe(row, found))
    console.print(table, highlight=False, markup=False)
    for text in details:
        say(text)
    say(f"all seeds of what is trained: {sum_of(hours)}")
    print_commands(file, name, say)


def sum_of(hours: Sequence[float | None]) -> str:
    """Of all runs; of some of them the time may not be known, of all on a CPU."""
    known = [value for value in hours if value is not None]
    unknown = len(hours) - len(known)
    total = f"{sum(known):,.4g} device-hours by roofline"
    if not unknown:
        return total
    return f"at least {total}, and {unknown} runs of unknown time" if known else "time not known"


def describe(row: Row, found: Price) -> str:
    """Config and overrides of a row; why it is not trained, and why its cost is not told."""
    changed = [f"{key}={value}" for key, value in row.overrides.items()]
    told = [" ".join([row.config, *changed]), row.why, found.why]
    return f"{row.name}: {'; '.join(filter(None, told))}"


def seeds_of(row: Row) -> str:
    return ", ".join(map(str, row.seeds)) if row.kind == Kind.TRAINED else "never started"


def numbers(found: Price) -> list[str]:
    values = (found.parameters, found.exaflops, found.hours, found.device_hours)
    formats = (",d", ",.4g", ",.3g", ",.4g")
    return ["–" if v is None else format(v, f) for v, f in zip(values, formats, strict=True)]


def print_commands(file: TableFile, name: str, say: Callable[[str], None]) -> None:
    scale, folder = file.scale(name), f"{loading.default_workdir(file, name)}/trials"
    rows, commands = {row.name: row for row in scale.rows}, {}
    for (row, _), trial in trials_of(file, scale).items():
        commands.setdefault(trial.name, train_command(file, rows[row], trial, folder=folder))
    if commands:
        say("all of them: " + launch_command(file, name))
        say("one by one; --launcher=slurm submits one to a cluster:")
    for text in commands.values():
        say(text)


def launch_command(file: TableFile, scale: str) -> str:
    """What runs a scale of a table, from the repository's root."""
    path = file.path.resolve().relative_to(file.root)
    where = [shlex.quote(f"--config.{key}={value}") for key, value in file.where.items()]
    return " ".join([f"python -m vit_jax sweep --config={path} --scale={scale}", *where])
