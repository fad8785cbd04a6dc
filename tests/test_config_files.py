"""Files that say what is to be done are read from wherever the command is called."""

import os
import subprocess
import sys

import pytest
from helpers import ROOT

from vit_jax.config_files import literal, root_of

PROGRAM = """
import sys
from vit_jax.config_files import ConfigFile
for path in sys.argv[1:]:
    print(ConfigFile.read(path).call("get_table").name)
"""


def test_the_nearest_folder_with_configs_is_the_root(tmp_path):
    (tmp_path / "a" / "configs").mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    for path, root in (
        ("configs/x.py", ""),
        ("a/configs/x.py", "a"),
        ("a/b/c/x.py", "a"),
        ("b/c/d/x.py", ""),
    ):
        assert root_of(tmp_path / path) == tmp_path / root


def test_every_table_is_read_from_another_folder(tmp_path):
    """With vit_jax installed, and nothing else of the repository on Python's path."""
    paths = [p for p in (ROOT / "experiments").rglob("*.py") if "def get_table(" in p.read_text()]
    assert any("from configs." in path.read_text() for path in paths)
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "vit_jax").symlink_to(ROOT / "vit_jax")
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, paths)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert found.returncode == 0, found.stderr[-2000:]
    assert len(found.stdout.splitlines()) == len(paths)


@pytest.mark.parametrize("text", ["{[]:1}", "(" * 10_000, "-" * 100_000 + "1"], ids=["a", "b", "c"])
def test_text_that_python_cannot_hold_stays_text(text):
    assert literal(text) == text
