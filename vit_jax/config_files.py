"""Python files that describe what is to be done: a config's `get_config(arg)`, a table's
`get_table()`. They are run, and what their function returns is read; a mistake in them becomes one
sentence."""

import runpy
import sys
import traceback
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vit_jax.errors import InputError

FUNCTION = "get_config"


def load_config(argument: str, *, root: Path | None = None) -> ConfigDict:
    """The config of 'FILE' or 'FILE:ARG', from the file's `get_config(ARG)`.

    Args:
      argument: as on the command line.
      root: folder below which FILE is; the working directory where it is None.
    """
    name, _, value = argument.partition(":")
    found = call_in(Path(root or "") / name, FUNCTION, value, given=f"--config={argument}")
    config = found.to_dict() if isinstance(found, ConfigDict) else found
    if not isinstance(config, dict):
        raise InputError(
            f"{FUNCTION} of {name} returned {type(config).__name__}; allowed: a ConfigDict."
        )
    # A new one, which is not locked: whether a key exists is for its builder to say.
    return ConfigDict(config)


def call_in(file: Path, function: str, *arguments: Any, given: str) -> Any:
    """What a function of a Python file returns.

    Args:
      given: what named the file, for messages.
    """
    if not file.is_file():
        raise InputError(f"there is no config file {file}; allowed: a Python file, see configs/.")
    # Configs may import `configs.common`, wherever the command is called from.
    sys.path.insert(0, str(file.resolve().parent.parent))
    try:
        module = runpy.run_path(str(file))
        if function not in module:
            raise InputError(f"{file} has no function {function}({'arg' * bool(arguments)}).")
        return module[function](*arguments)
    except (InputError, ValueError) as error:  # the file's own words about its argument
        raise InputError(f"{given}: {error}") from error
    except Exception as error:
        line = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{line.filename}, line {line.lineno}"
        raise InputError(
            f"{given} cannot be read: {type(error).__name__}: {error} ({place})."
        ) from error
    finally:
        del sys.path[0]
