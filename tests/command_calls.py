"""A command, run in this process."""

import pytest

from vit_jax.__main__ import main


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `python -m vit_jax ARGUMENTS`."""
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err
