"""A job that takes no time to begin: what happens around a training can be tested without one."""

import dataclasses
import os
import time
from pathlib import Path

from vit_jax.launch.run import watch_signals


@dataclasses.dataclass(frozen=True)
class Patient:
    """Waits to be asked to leave, and then takes a second to save. Notes both in its workdir."""

    workdir: Path

    def __call__(self) -> None:
        watch_signals()
        self.note("began")
        try:
            time.sleep(600)
        finally:
            time.sleep(1)
            self.note("saved")

    def note(self, word: str) -> None:
        number = os.environ.get("SLURM_RESTART_COUNT", "0")
        (self.workdir / f"{word}_{number}_{os.environ['SLURM_PROCID']}").touch()

    def notes(self, word: str) -> list[str]:
        """'RESTART_TASK' of those that noted this."""
        return sorted(path.name.partition("_")[2] for path in self.workdir.glob(f"{word}_*"))
