"""Several processes of one training on this machine, each with its own CPU devices."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers import ROOT, environment

from vit_jax.launch.children import free_port

PATIENCE = 420  # seconds; a loaded machine starts several interpreters slowly


class Together:
    """Processes that run the same command; what each prints goes to FOLDER/NAME.I.txt.

    Args:
      command: after the interpreter's name, without the flags that connect the processes.
      folder: of the outputs.
      name: of this start.
      number: of processes.
      devices: of each of them.
      last: arguments of the last process alone.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        name: str,
        *,
        number: int = 2,
        devices: int = 1,
        last: Sequence[str] = (),
    ):
        self.outputs = [folder / f"{name}.{i}.txt" for i in range(number)]
        port = free_port()
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, *command, *connecting(port, number, i)),
                    *(last if i == number - 1 else ()),
                ],
                cwd=ROOT,
                env=environment(devices) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
                stdout=output.open("w"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            for i, output in enumerate(self.outputs)
        ]

    def texts(self) -> list[str]:
        return [output.read_text() for output in self.outputs]

    def send(self, index: int, number: signal.Signals) -> None:
        self.processes[index].send_signal(number)

    def until(self, happened: Callable[[], bool]) -> None:
        """Waits for something to happen while all processes run."""
        deadline = time.monotonic() + PATIENCE
        while not happened():
            assert time.monotonic() < deadline, self.kill()
            assert all(p.poll() is None for p in self.processes), self.kill()
            time.sleep(0.005)

    def codes(self, *, patience: float = PATIENCE) -> list[int]:
        """Exit codes, once all have ended; all are killed where they do not."""
        deadline = time.monotonic() + patience
        try:
            return [p.wait(max(deadline - time.monotonic(), 0)) for p in self.processes]
        except subprocess.TimeoutExpired as error:
            raise AssertionError(self.kill()) from error

    def kill(self) -> list[str]:
        for process in self.processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return self.texts()


def connecting(port: int, number: int, index: int) -> list[str]:
    return [
        f"--coordinator=localhost:{port}",
        f"--num_processes={number}",
        f"--process_id={index}",
    ]
