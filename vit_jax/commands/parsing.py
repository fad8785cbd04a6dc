"""Command-line flags whose mistakes become one sentence."""

import re
import sys
from collections.abc import Container
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vit_jax.config_files import CONFIG, OVERRIDE, ConfigFile, literal, set_leaf
from vit_jax.errors import InputError

_SECTION = re.compile(r"--(\w+(?:\.\w+)+)=(.*)", re.DOTALL)


def parse(values: flags.FlagValues, command: str, arguments: list[str], *, doc: str) -> list[str]:
    """Parses `arguments` into `values`; returns the positional ones. --help prints and exits."""
    if any(argument in ("--help", "-h", "-help") for argument in arguments):
        print(f"{doc.strip()}\n\n{values.get_help()}")
        sys.exit(0)
    try:
        return values([command, *arguments])[1:]
    except flags.Error as error:
        raise InputError(str(error)) from error


def take_config(arguments: list[str]) -> tuple[ConfigDict | None, list[str]]:
    """Loads --config=FILE[:ARG], applies each --config.KEY=VALUE, and returns the other arguments.

    A value is a Python literal, or else a string. Unlike ml_collections' own flag this one can
    set a key that the file leaves at its default; whether the key exists is for its builder to say.
    """
    file, overrides, rest = take_file(arguments)
    return file and file.config(overrides), rest


def take_file(arguments: list[str]) -> tuple[ConfigFile | None, list[str], list[str]]:
    """The file of --config=FILE[:ARG], each KEY=VALUE of --config.KEY=VALUE, other arguments."""
    files = [a.removeprefix(CONFIG) for a in arguments if a.startswith(CONFIG)]
    overrides = [a.removeprefix(OVERRIDE) for a in arguments if a.startswith(OVERRIDE)]
    rest = [a for a in arguments if not a.startswith((CONFIG, OVERRIDE))]
    if len(files) > 1 or (overrides and not files):
        raise InputError(f"--config is given {len(files)} times; allowed: once.")
    return (ConfigFile.read(files[0]) if files else None), overrides, rest


def take_sections(arguments: list[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The values of each --NAME.KEY=VALUE by name, e.g. {'knn': {'k': 10}}, and other arguments."""
    found, rest = ConfigDict(), []
    for argument in arguments:
        if not (match := _SECTION.fullmatch(argument)):
            rest.append(argument)
            continue
        path, text = match.groups()
        set_leaf(found, path, literal(text), given=argument)
    return found.to_dict(), rest


def config_arguments(arguments: list[str]) -> list[str]:
    """Those that `take_config` takes."""
    return [argument for argument in arguments if argument.startswith((CONFIG, OVERRIDE))]


def given(values: flags.FlagValues, *, without: Container[str]) -> list[str]:
    """The flags that were set, as arguments of another command."""
    names = [name for name in values if values[name].present and name not in without]
    return [values[name].serialize() for name in names]


def require(values: flags.FlagValues, name: str) -> str:
    value = values[name].value
    if not value:
        raise InputError(f"--{name} is missing.")
    return value


def reject_positional(rest: list[str]) -> None:
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; allowed: --name=value.")
