"""Command-line flags whose mistakes become one sentence."""

import ast
import sys
from collections.abc import Container
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vit_jax.config_files import load_config
from vit_jax.errors import InputError

CONFIG, OVERRIDE = "--config=", "--config."


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
    files = [a.removeprefix(CONFIG) for a in arguments if a.startswith(CONFIG)]
    overrides = [a.removeprefix(OVERRIDE) for a in arguments if a.startswith(OVERRIDE)]
    rest = [a for a in arguments if not a.startswith((CONFIG, OVERRIDE))]
    if len(files) > 1 or (overrides and not files):
        raise InputError(f"--config is given {len(files)} times; allowed: once.")
    config = load_config(files[0]) if files else None
    for override in overrides:
        path, _, text = override.partition("=")
        set_leaf(config, path, literal(text), given=OVERRIDE + override)
    return config, rest


def config_arguments(arguments: list[str]) -> list[str]:
    """Those that `take_config` takes."""
    return [argument for argument in arguments if argument.startswith((CONFIG, OVERRIDE))]


def given(values: flags.FlagValues, *, without: Container[str]) -> list[str]:
    """The flags that were set, as arguments of another command."""
    names = [name for name in values if values[name].present and name not in without]
    return [values[name].serialize() for name in names]


def set_leaf(config: ConfigDict, path: str, value: Any, *, given: str) -> None:
    """Sets 'optimizer.learning_rate' and the like, making sections on the way."""
    *sections, leaf = path.split(".")
    for section in sections:
        if section not in config:
            config[section] = ConfigDict()
        config = config[section]
        if not isinstance(config, ConfigDict):
            raise InputError(f"{given}: {section} is a value, no section; allowed: {section}=...")
    if isinstance(config.get(leaf), ConfigDict) and not isinstance(value, dict):
        keys = ", ".join(config[leaf])
        raise InputError(f"{given}: {leaf} is a section; allowed: one of its keys ({keys}).")
    with config.ignore_type():
        config[leaf] = value


def literal(text: str) -> Any:
    """3e-4 -> float, (8, 8) -> tuple, None, True; anything else is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def require(values: flags.FlagValues, name: str) -> str:
    value = values[name].value
    if not value:
        raise InputError(f"--{name} is missing.")
    return value


def reject_positional(rest: list[str]) -> None:
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; allowed: --name=value.")
