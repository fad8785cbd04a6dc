"""Processes that this one starts, and does not leave behind."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import IO

from vit_jax.errors import InputError

PR_SET_PDEATHSIG = 1  # of Linux' prctl


def start(
    command: Sequence[str],
    variables: Mapping[str, str],
    *,
    stdout: IO | int | None = None,
    stderr: IO | int | None = None,
    cores: Collection[int] | None = None,
    kept_open: Collection[int] = (),
) -> subprocess.Popen:
    """In a session of its own, so that Ctrl-C comes once, by way of the process that starts it.

    On Linux the process is sent SIGTERM when this thread is gone, however it went.

    Args:
      variables: the process's environment.
      cores: processors that it may run on, where the system can be told.
      kept_open: file descriptors that it inherits.
    """
    # Found before the fork, after which little is safe.
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None
    pin = getattr(os, "sched_setaffinity", None) if cores else None

    def prepare() -> None:
        if prctl:
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if pin:
            pin(0, cores)

    return subprocess.Popen(
        command,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        preexec_fn=prepare if prctl or pin else None,
        pass_fds=tuple(kept_open),
    )


def shell_code(code: int) -> int:
    """An exit code as a shell has it: 128 and the signal's number where a signal ended it."""
    return 128 - code if code < 0 else code


def split_gpus(number: int, parts: int, visible: str | None, *, where: str) -> list[list[str]]:
    """Names of the GPUs of each of `parts` processes, `number` in all.

    Args:
      visible: CUDA_VISIBLE_DEVICES; None where it is not set.
      where: what asks for so many, for messages.
    """
    names = [str(i) for i in range(number)] if visible is None else visible.split(",")
    if len(names) < number:
        raise InputError(
            f"{where} is {number}, but CUDA_VISIBLE_DEVICES is {visible!r}; "
            "allowed: no more than are visible."
        )
    each = number // parts
    return [names[i * each : (i + 1) * each] for i in range(parts)]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
