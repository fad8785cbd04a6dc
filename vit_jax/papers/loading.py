"""From a file with `get_table()` to a table whose every name has been checked."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax import config_files, experiment, sections
from vit_jax.errors import InputError
from vit_jax.papers.table import (
    FUNCTION,
    Better,
    Choice,
    Column,
    Kind,
    PaperTable,
    Row,
    Scale,
    Tie,
)
from vit_jax.sweeps.trials import SEED, set_key

ROW = "row:"  # a value 'row:NAME' is the workdir of that row's run
# Keys that change where and how fast runs are, and not what they find.
ALLOWED = (
    "launch.",
    "mesh.",
    "data.data_dir",
    "data.num_workers",
    "data.num_threads",
    "data.prefetch",
    "train.accum_steps",
    "train.checkpoint_every",
)
WAYS = ("metric", "measure", "analytic")


@dataclasses.dataclass(frozen=True)
class TableFile:
    """A table, the folder that its rows' configs are below, and where its runs take place.

    Attributes:
      where: keys of all configs, of `ALLOWED`: the machines and the data's folder.
    """

    path: Path
    table: PaperTable
    root: Path
    where: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def scale(self, name: str) -> Scale:
        return sections.choose(self.table.scales, name, where="--scale")

    def config(self, row: Row, seed: int | None = None) -> dict[str, Any]:
        """A row's whole config as plain data; 'row:NAME' stays as it is."""
        where = f"{self.table.name}, row {row.name!r}"
        try:
            config = config_files.load_config(f"{self.root}/{row.config}").to_dict()
            for key, value in (*row.overrides.items(), *self.where.items()):
                set_key(config, key, value)
            if seed is not None:
                set_key(config, SEED, seed)
            return experiment.plain(config)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error


def load_table(path: str | Path, *, where: Mapping[str, Any] | None = None) -> TableFile:
    """The table of a file.

    Raises:
      InputError: where there is none, its names do not fit each other, or `where` would change
        what its runs find.
    """
    for key in where or {}:
        if not key.startswith(ALLOWED):
            raise InputError(
                f"--config.{key} is given, but the rows of a table are what they are; allowed: "
                f"where they run ({', '.join(ALLOWED)})."
            )
    path = Path(path)
    file = config_files.ConfigFile.read(str(path))
    if FUNCTION not in file.names:
        raise InputError(f"{path} has no function {FUNCTION}().")
    table = file.call(FUNCTION)
    if not isinstance(table, PaperTable):
        raise InputError(
            f"{FUNCTION} of {path} returned {type(table).__name__}; allowed: a PaperTable."
        )
    for name, scale in table.scales.items():
        check_scale(scale, where=f"{table.name}, scale {name!r}")
    if not table.scales:
        raise InputError(f"{table.name} has no scales; allowed: at least one.")
    return TableFile(path, table, find_root(path, table), where or {})


def default_workdir(file: TableFile, scale: str) -> str:
    """'runs/vit/table8-small', where the command line does not say."""
    return f"runs/{file.path.resolve().parent.name}/{file.table.name}-{scale}"


def is_table(path: str | Path) -> bool:
    """Has the file a `get_table`? Told by its text, without running it."""
    return Path(path).is_file() and f"\ndef {FUNCTION}(" in Path(path).read_text()


def find_root(path: Path, table: PaperTable) -> Path:
    """The nearest folder above the table that has all of its configs below it."""
    files = {row.config.partition(":")[0] for s in table.scales.values() for row in s.rows}
    for folder in path.resolve().parents:
        if all((folder / file).is_file() for file in files):
            return folder
    raise InputError(
        f"{table.name} has rows of {', '.join(sorted(files))}; allowed: files below a folder that "
        f"{path} is below, too."
    )


def check_scale(scale: Scale, *, where: str) -> None:
    """Raises `InputError` for a name that is there twice or not at all."""
    rows = check_names([row.name for row in scale.rows], f"{where}: rows")
    columns = check_names([column.name for column in scale.columns], f"{where}: columns")
    for column in scale.columns:
        check_column(column, where=f"{where}: the column {column.name!r}")
    check_measures(scale.columns, where=where)
    for row in scale.rows:
        check_row(row, scale.rows, where=f"{where}: the row {row.name!r}")
    for row, column in (*scale.expected, *scale.reference):
        sections.choose(rows, row, where=f"{where}: the row of an expected value")
        sections.choose(columns, column, where=f"{where}: the column of an expected value")
    for choice in scale.choices:
        check_choice(choice, scale, where=f"{where}: the choice {choice.name!r}")
    for claim in scale.claims:
        check_claim(claim, scale, where=f"{where}: the claim {claim.text!r}")


def check_names(names: Sequence[str], where: str) -> Mapping[str, None]:
    if not names:
        raise InputError(f"{where}: there are none; allowed: at least one.")
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{where}: {name!r} is there {names.count(name)} times; allowed: once."
            )
    return dict.fromkeys(names)


def check_column(column: Column, *, where: str) -> None:
    ways = [way for way in WAYS if getattr(column, way) is not None]
    if len(ways) != 1:
        raise InputError(
            f"{where} is measured by {' and '.join(ways) or 'nothing'}; allowed: one of "
            f"{', '.join(WAYS)}."
        )


def check_measures(columns: Sequence[Column], *, where: str) -> None:
    """What is measured is kept by its function's name, so that a name stands for one function."""
    known: dict[str, Any] = {}
    for column in columns:
        if column.measure is None:
            continue
        name = getattr(column.measure, "__name__", "")
        if not name.isidentifier() or known.setdefault(name, column.measure) != column.measure:
            raise InputError(
                f"{where}: the column {column.name!r} is measured by a function named {name!r}; "
                "allowed: functions with names of their own."
            )


def check_row(row: Row, rows: Sequence[Row], *, where: str) -> None:
    if not row.seeds or len(set(row.seeds)) < len(row.seeds):
        raise InputError(f"{where} has seeds {tuple(row.seeds)}; allowed: different ones.")
    before = {other.name: other for other in rows[: rows.index(row)]}
    for name in needed_rows(row.overrides):
        other = sections.choose(before, name, where=f"{where}: the row before it that it needs")
        if row.kind == Kind.TRAINED != other.kind:
            raise InputError(
                f"{where} begins from {name!r}, which is {other.kind}; allowed: a row that is "
                "trained."
            )
        if not set(row.seeds) <= set(other.seeds) and len(other.seeds) > 1:
            raise InputError(
                f"{where} has seeds {tuple(row.seeds)} and begins from {name!r}, which has "
                f"{tuple(other.seeds)}; allowed: seeds of that row, or one seed there."
            )
    if row.kind != Kind.TRAINED and not row.why:
        raise InputError(f"{where} is {row.kind}; allowed: only with `why`.")


def check_choice(choice: Choice, scale: Scale, *, where: str) -> None:
    rows = {row.name: row for row in scale.rows if row.is_shown}
    columns = {column.name: column for column in scale.columns}
    if sum(other.name == choice.name for other in (*scale.rows, *scale.choices)) > 1:
        raise InputError(f"{where} has the name of another; allowed: one of its own.")
    column = sections.choose(columns, choice.by, where=f"{where}: its column")
    seeds = {tuple(sections.choose(rows, n, where=f"{where}: a row").seeds) for n in choice.rows}
    if len(seeds) != 1 or column.higher_is_better is None:
        raise InputError(
            f"{where} is among rows of {len(seeds)} sets of seeds, by a column whose "
            f"higher_is_better is {column.higher_is_better}; allowed: rows of the same seeds, and "
            "a column that tells which is best."
        )


def check_claim(claim: Better | Tie, scale: Scale, *, where: str) -> None:
    columns = {column.name: column for column in scale.columns}
    rows = {row.name: row for row in scale.rows if row.is_shown}
    rows |= {choice.name: choice for choice in scale.choices}
    column = sections.choose(columns, claim.column, where=f"{where}: its column")
    for name, value in vars(claim).items():
        if name in ("first", "than", "rows") and isinstance(value, str):
            raise InputError(f"{where}: {name} is {value!r}; allowed: a list of rows' names.")
    for name in claim.named_rows:
        sections.choose(rows, name, where=f"{where}: one of its rows")
    sides = (claim.first, claim.than) if isinstance(claim, Better) else (claim.rows[:1], claim.rows)
    too_few = not all(sides) or len(set(claim.named_rows)) < 2
    if too_few or len(set(claim.named_rows)) < len(claim.named_rows):
        raise InputError(
            f"{where} is of the rows {', '.join(claim.named_rows) or '(none)'}; allowed: at least "
            "two, each named once."
        )
    if isinstance(claim, Better) and column.higher_is_better is None:
        raise InputError(f"{where} is of a column whose higher_is_better is None; allowed: a bool.")
    if isinstance(claim, Tie) and not claim.within > 0:
        raise InputError(f"{where} ties within {claim.within}; allowed: more than 0.")


def needed_rows(value: Any) -> list[str]:
    """Names of the rows that overrides refer to, at any depth."""
    if isinstance(value, Mapping):
        return [name for inner in value.values() for name in needed_rows(inner)]
    is_row = isinstance(value, str) and value.startswith(ROW)
    return [value.removeprefix(ROW)] if is_row else []
