"""Python files that tell what is to be done: a config's `get_config(arg)`, a table's `get_table()`.

They are run, and their functions called; a mistake in them becomes one sentence."""

import ast
import contextlib
import dataclasses
import runpy
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vit_jax.errors import InputError

CONFIG, OVERRIDE = "--config=", "--config."


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
    # Files may import `configs.common`, wherever the command is called from.
    folder = str(root_of(Path(argument.partition(":")[0]).resolve()))
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


def root_of(file: Path) -> Path:
    """The nearest folder above a file that holds `configs`; its second one where none does."""
    found = (folder for folder in file.parents if (folder / "configs").is_dir())
    return next(found, file.parent.parent)


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
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return text
