"""What a job of a cluster does: one training, with the exit codes of the command.

A scheduler that wants a machine back sends SIGTERM some time before it takes it. The training
then saves and leaves with `EXIT_PREEMPTED`; the job script starts it again (see slurm.py).
"""

import dataclasses
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_jax.train.preemption import EXIT_PREEMPTED


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A training, described by what survives being written to a file.

    Attributes:
      config: plain data, see configs/README.md.
      workdir: an absolute path that every machine sees.
      flags: further arguments of the command `train`.
    """

    config: Mapping[str, Any]
    workdir: Path
    flags: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Trains, as one task of the job, and leaves with the command's exit code."""
        watch_signals()
        # These take seconds, in which signals are heard already.
        from vit_jax.__main__ import exit_code, quiet_libraries
        from vit_jax.commands import train

        quiet_libraries()
        values = train.parse([f"--workdir={self.workdir}", *self.flags])
        sys.exit(exit_code(lambda: train.train(self.config, values)))


def watch_signals() -> None:
    """SIGTERM ends a run that has not begun, as one that may be tried again.

    Training handles it from its start on. submitit's handlers are replaced by this: they ignore
    SIGTERM, and take SIGUSR2 for a reason to requeue the job before anything is saved.
    """
    signal.signal(signal.SIGCONT, signal.SIG_DFL)  # comes with every SIGTERM; it would be logged
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_PREEMPTED))
    signal.signal(signal.SIGUSR2, lambda *_: signal.raise_signal(signal.SIGTERM))
