"""SIGTERM as a wish, not an end: the step in progress is finished, saved, and left.

Schedulers send it before they take a machine away. The command exits with
`EXIT_PREEMPTED`; the same command again continues.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

EXIT_PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: try the same again later


class Preempted(Exception):
    """The run was asked to stop and has saved everything up to `step`."""

    on_every_host = True  # see `agreement.Votes`

    def __init__(self, step: int):
        super().__init__(f"stopped by SIGTERM after step {step}; the state is saved")
        self.step = step


@contextlib.contextmanager
def on_sigterm() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM has come; restores the old handler after."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False  # only the main thread may handle signals
        return
    arrived = threading.Event()
    previous = signal.signal(signal.SIGTERM, lambda *_: arrived.set())
    try:
        yield arrived.is_set
    finally:
        signal.signal(signal.SIGTERM, previous)
