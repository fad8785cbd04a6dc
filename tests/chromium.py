"""A page as a real browser shows it, which may ask nobody for anything."""

import shutil
import subprocess
from pathlib import Path

import pytest

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
NEEDED = pytest.mark.skipif(
    PROGRAM is None, reason="Chromium is not installed (Debian: chromium); .ci/run installs it"
)
TELEPHONE = (390, 844)  # pixels


def run(page: Path, *arguments: str) -> str:
    """What headless Chromium prints of a local page; every name of a host leads nowhere."""
    profile = page.parent / "profile"
    given = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    given += ["--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=4000"]
    given += [f"--user-data-dir={profile}", *arguments, page.resolve().as_uri()]
    found = subprocess.run([PROGRAM, *given], capture_output=True, text=True, timeout=120)
    assert found.returncode == 0, found.stderr
    return found.stdout


def document(page: Path) -> str:
    """Its HTML, once it has been loaded and its scripts have run."""
    return run(page, "--dump-dom")


def screenshot(page: Path, target: Path, size: tuple[int, int] = TELEPHONE) -> None:
    width, height = size
    run(page, f"--screenshot={target}", f"--window-size={width},{height}", "--hide-scrollbars")
