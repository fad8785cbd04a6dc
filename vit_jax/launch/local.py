"""One training as several processes of this machine, as a cluster would start them.

Each process runs the command that was given, and finds the others by JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID (see train/cluster.py). Process 0 speaks; of the others errors
are printed, after their number.
"""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import IO

from vit_jax.errors import InputError
from vit_jax.launch import children
from vit_jax.launch.settings import LaunchSettings
from vit_jax.train.preemption import EXIT_PREEMPTED

# Seconds that are left to the others once a process has ended: they may be saving, or wait in a
# collective operation for one that will never come.
AFTER_PREEMPTION = 60.0
AFTER_FAILURE = 10.0
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def launch(
    command: Sequence[str],
    settings: LaunchSettings,
    *,
    environment: Mapping[str, str] = os.environ,
) -> int:
    """Runs the command in `tasks_per_node` processes; returns the exit code of all together.

    That is 0 where all end well, and otherwise of the first that does not; it ends the others.
    SIGTERM, SIGINT and, unless nohup has it ignored, SIGHUP go to every process: in sessions of
    their own they would outlive the terminal.
    """
    if settings.nodes != 1:
        raise InputError(
            f"config.launch.nodes is {settings.nodes}; allowed with --launcher=local: 1."
        )
    environments = process_environments(settings, environment, port=children.free_port())
    processes: list[subprocess.Popen] = []
    with forwarding(processes), killing(processes):
        for index, variables in enumerate(environments):
            processes.append(start(command, variables, is_first=index == 0))
        readers = [
            threading.Thread(target=prefix, args=(i, p.stderr)) for i, p in others(processes)
        ]
        for reader in readers:
            reader.start()
        code = wait_for_all(processes)
    for reader in readers:
        reader.join(timeout=5)  # a grandchild may hold the pipe
    return code


def process_environments(
    settings: LaunchSettings, environment: Mapping[str, str], *, port: int
) -> list[dict[str, str]]:
    """The environment's variables of each process: its place, and the devices that are its own."""
    number = settings.tasks_per_node
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    where = "config.launch.gpus_per_node"
    gpus = children.split_gpus(settings.gpus_per_node, number, visible, where=where)
    found = []
    for index in range(number):
        variables = dict(environment)
        if number > 1:
            variables["JAX_COORDINATOR_ADDRESS"] = f"127.0.0.1:{port}"
            variables["JAX_NUM_PROCESSES"] = str(number)
            variables["JAX_PROCESS_ID"] = str(index)
        if settings.gpus_per_node:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(gpus[index])
        if settings.cpu_devices_per_task is not None:
            count = f"--xla_force_host_platform_device_count={settings.cpu_devices_per_task}"
            variables["JAX_PLATFORMS"] = "cpu"
            variables["XLA_FLAGS"] = f"{variables.get('XLA_FLAGS', '')} {count}".strip()
        found.append(variables)
    return found


def start(
    command: Sequence[str], variables: Mapping[str, str], *, is_first: bool
) -> subprocess.Popen:
    return children.start(
        command,
        variables,
        stdout=None if is_first else subprocess.DEVNULL,
        stderr=None if is_first else subprocess.PIPE,
    )


def others(processes: Sequence[subprocess.Popen]) -> list[tuple[int, subprocess.Popen]]:
    return list(enumerate(processes))[1:]


def prefix(index: int, lines: IO[bytes]) -> None:
    """Prints each line after the process's number."""
    for line in lines:
        print(f"[{index}] {line.decode(errors='replace').rstrip()}", file=sys.stderr, flush=True)


def wait_for_all(processes: Sequence[subprocess.Popen], *, poll_seconds: float = 0.05) -> int:
    """The exit code of all: 0, or that of the first that ended otherwise.

    Returns when all have ended, or when those that remain have had their time.
    """
    code, deadline = 0, float("inf")
    while any(process.poll() is None for process in processes):
        if code == 0:
            code = first_bad(processes)
            patience = AFTER_PREEMPTION if code == EXIT_PREEMPTED else AFTER_FAILURE
            deadline = time.monotonic() + patience if code else deadline
        if time.monotonic() > deadline:
            return code
        time.sleep(poll_seconds)
    return code or first_bad(processes)


def first_bad(processes: Sequence[subprocess.Popen]) -> int:
    """An exit code that is not 0, as a shell has it; 0 if there is none so far."""
    codes = [process.poll() for process in processes]
    return next((children.shell_code(code) for code in codes if code), 0)


@contextlib.contextmanager
def forwarding(processes: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Sends signals that come meanwhile on to all processes; restores the old handlers after."""

    def send(number: int, _frame: object) -> None:
        for process in processes:
            process.send_signal(number)  # does nothing to one that has ended

    is_kept = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    forwarded = [n for n in FORWARDED if n != signal.SIGHUP or not is_kept]
    previous = {number: signal.signal(number, send) for number in forwarded}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def killing(processes: Sequence[subprocess.Popen]) -> Iterator[None]:
    """Leaves none of the processes behind, nor what they started."""
    try:
        yield
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
