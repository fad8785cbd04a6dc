"""Command-line flags whose mistakes become one sentence."""

import ast
import contextlib
import dataclasses
import runpy
import sys
import traceback
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

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
    file, overrides, rest = take_file(arguments)
    return file and file.config(overrides), rest


def take_file(arguments: list[str]) -> tuple["ConfigFile | None", list[str], list[str]]:
    """The file of --config=FILE[:ARG], each KEY=VALUE of --config.KEY=VALUE, other arguments."""
    files = [a.removeprefix(CONFIG) for a in arguments if a.startswith(CONFIG)]
    overrides = [a.removeprefix(OVERRIDE) for a in arguments if a.startswith(OVERRIDE)]
    rest = [a for a in arguments if not a.startswith((CONFIG, OVERRIDE))]
    if len(files) > 1 or (overrides and not files):
        raise InputError(f"--config is given {len(files)} times; allowed: once.")
    return (ConfigFile.read(files[0]) if files else None), overrides, rest


def config_arguments(arguments: list[str]) -> list[str]:
    """Those that `take_config` takes."""
    return [argument for argument in arguments if argument.startswith((CONFIG, OVERRIDE))]


def given(values: flags.FlagValues, *, without: Container[str]) -> list[str]:
    """The flags that were set, as arguments of another command."""
    names = [name for name in values if values[name].present and name not in without]
    return [values[name].serialize() for name in names]


def load_config(argument: str) -> ConfigDict:
    """The config of 'FILE' or 'FILE:ARG', from the file's `get_config(ARG)`."""
    return ConfigFile.read(argument).config()


@dataclasses.dataclass(frozen=True)
class ConfigFile:
    """What a config's file defines.

    Attributes:
      argument: 'FILE' or 'FILE:ARG'.
      names: of functions and all else, with what they stand for.
    """

    argument: str
    names: Mapping[str, Any]

    @classmethod
    def read(cls, argument: str) -> "ConfigFile":
        name = argument.partition(":")[0]
        if not Path(name).is_file():
            raise InputError(
                f"there is no config file {name}; allowed: a Python file, see configs/."
            )
        with reading(argument):
            return cls(argument, runpy.run_path(name))

    def config(self, overrides: Sequence[str] = ()) -> ConfigDict:
        """What `get_config(ARG)` returns, with each KEY=VALUE set."""
        name, _, value = self.argument.partition(":")
        if "get_config" not in self.names:
            raise InputError(f"{name} has no function get_config(arg).")
        found = self.call("get_config", value)
        found = found.to_dict() if isinstance(found, ConfigDict) else found
        if not isinstance(found, dict):
            raise InputError(
                f"get_config of {name} returned {type(found).__name__}; allowed: a ConfigDict."
            )
        # A new one, which is not locked: whether a key exists is for its builder to say.
        config = ConfigDict(found)
        for override in overrides:
            path, _, text = override.partition("=")
            set_leaf(config, path, literal(text), given=OVERRIDE + override)
        return config

    def call(self, name: str, *arguments: Any) -> Any:
        """What one of the file's functions returns; the list of what a generator yields.

        Raises:
          InputError: for any mistake in it.
        """
        with reading(self.argument):
            found = self.names[name](*arguments)
            return list(found) if isinstance(found, Iterator) else found


@contextlib.contextmanager
def reading(argument: str) -> Iterator[None]:
    """Inside, the code of a config's file runs; its mistakes become one sentence."""
    # Configs may import `configs.common`, wherever the command is called from.
    folder = str(Path(argument.partition(":")[0]).resolve().parent.parent)
    sys.path.insert(0, folder)
    try:
        yield
    except (InputError, ValueError) as error:  # the config's own words about its argument
        raise InputError(f"--config={argument}: {error}") from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{line.filename}, line {line.lineno}"
        raise InputError(
            f"--config={argument} cannot be read: {type(error).__name__}: {error} ({place})."
        ) from error
    finally:
        sys.path.remove(folder)


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
