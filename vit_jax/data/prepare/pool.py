"""Units of work in worker processes, which tell how far they are and die with their parent.

Processes are spawned, since the parent may have threads that a fork would break.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from multiprocessing import connection
from typing import Any, NamedTuple, TypeVar

from vit_jax.errors import InputError

T = TypeVar("T")
Count = Callable[[int, int], None]  # adds images and their bytes to what is done
_POLL = 0.25  # seconds between two looks at the counters
_IMAGES, _BYTES, _STOP = range(3)  # the shared numbers


class Done(NamedTuple):
    """How far the work is."""

    images: int
    bytes: int


class _Stopped(Exception):
    """In a worker: nobody wants the rest."""


_shared: Any = None  # in a worker: the shared numbers, set once when it starts


def run(
    function: Callable[[Any, Count], T],
    tasks: Sequence[Any],
    *,
    workers: int,
    on_progress: Callable[[Done], None],
    initializer: Callable[..., None] | None = None,
    initargs: tuple = (),
) -> Iterator[T]:
    """Yields `function(task, count)` of each task, in the order in which they get done.

    Args:
      function: importable, so that it can be sent to a worker.
      workers: processes; 0 works in this one.
      on_progress: called now and then.
      initializer: called with `initargs` where the work is done, before any of it.

    Raises:
      InputError: where a worker was killed; or whatever `function` raises.
    """
    if workers == 0:
        yield from _run_here(function, tasks, on_progress, initializer, initargs)
        return
    context = multiprocessing.get_context("spawn")
    numbers = context.Array("q", 3)
    with futures.ProcessPoolExecutor(
        min(workers, len(tasks)) or 1, context, _start, (numbers, initializer, initargs)
    ) as executor:
        pending = {executor.submit(_call, function, task) for task in tasks}
        try:
            while pending:
                done, pending = futures.wait(pending, _POLL, futures.FIRST_COMPLETED)
                # Before the results: whoever wants to stop says so here, and a signal that came to
                # all processes may have killed the workers, too.
                on_progress(Done(numbers[_IMAGES], numbers[_BYTES]))
                yield from (future.result() for future in done)
        except futures.process.BrokenProcessPool as error:
            raise InputError(
                "A worker process was killed, perhaps for want of memory; give the command again, "
                "with fewer --workers if need be."
            ) from error
        finally:
            numbers[_STOP] = 1
            for future in pending:
                future.cancel()


def _run_here(function, tasks, on_progress, initializer, initargs) -> Iterator[Any]:
    done = Done(0, 0)

    def count(images: int, size: int) -> None:
        nonlocal done
        done = Done(done.images + images, done.bytes + size)
        on_progress(done)

    if initializer is not None:
        initializer(*initargs)
    for task in tasks:
        yield function(task, count)


def _start(numbers, initializer, initargs) -> None:
    global _shared
    _shared = numbers
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    threading.Thread(target=_die_with_parent, daemon=True).start()
    if initializer is not None:
        initializer(*initargs)


def _die_with_parent() -> None:
    """Or a killed command would leave workers that write into the folder of the next one."""
    connection.wait([multiprocessing.parent_process().sentinel])
    os._exit(1)


def _call(function, task):
    with contextlib.suppress(_Stopped):
        return function(task, _count)


def _count(images: int, size: int) -> None:
    with _shared.get_lock():
        _shared[_IMAGES] += images
        _shared[_BYTES] += size
        stop = _shared[_STOP]
    if stop:
        raise _Stopped
