"""Flags of XLA: the user's own go first, and those that are set are known to the jaxlib here."""

import os
import subprocess
import sys
from importlib import metadata

import pytest

from vit_jax.xla_flags import CPU_FLAGS, TRIED, prefer_batches


def flags(given, **settings):
    environment = {} if given is None else {"XLA_FLAGS": given}
    prefer_batches(environment, **settings)
    return environment.get("XLA_FLAGS")


ALL = [f"{name}={value}" for name, value in CPU_FLAGS.items()]


@pytest.mark.parametrize("given, kept", [(None, []), ("", []), ("--a=1 --b", ["--a=1", "--b"])])
def test_flags_are_added_once(given, kept):
    once = flags(given, jaxlib=TRIED[0])
    assert once.split() == kept + ALL
    assert flags(once, jaxlib=TRIED[0]) == once


@pytest.mark.parametrize("name", CPU_FLAGS)
def test_the_users_own_stay(name):
    found = flags(f"{name}=mine", jaxlib=TRIED[0]).split()
    assert f"{name}=mine" in found and len(found) == len(CPU_FLAGS)


def test_versions_that_were_not_tried_get_none():
    assert flags(None, jaxlib="0.0.1") is None and flags("--a=1", jaxlib="0.0.1") == "--a=1"


def test_the_installed_jaxlib_knows_the_flags():
    """It would end at one that it does not know."""
    if metadata.version("jaxlib") not in TRIED:
        pytest.skip(f"jaxlib {metadata.version('jaxlib')} gets no flags; tried were {TRIED}")
    program = (
        "from vit_jax.xla_flags import prefer_batches\nprefer_batches()\n"
        "import jax\nprint(jax.jit(lambda x: x @ x)(jax.numpy.ones((2, 2))).sum())"
    )
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    command = [sys.executable, "-c", program]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout.strip()) == (0, "8.0"), found.stderr
