"""Processes that make batches in memory that they share with the program.

A worker is a plain `python -m vit_jax.data.batching.processes`, told what to do through a pipe:
it never imports the program that started it, so scripts need no `__main__` guard, and it ends when
the pipe does, also when the program is killed.

What all workers need is sent once. The NumPy arrays in it, such as an index of a million files, go
into shared memory and are used there by all of them.
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np

from vit_jax.data.batching.rows import BadExample, Batch, RowMaker
from vit_jax.data.batching.shared import Layout, Slots, map_shared, share
from vit_jax.data.batching.workers import Chunk, Threads, rows_of
from vit_jax.errors import InputError

# Batches that whoever uses them may keep in shared memory: one in use, one on its way to the
# devices, and those of the steps that the host is ahead. Of more than these it gets copies.
HELD = 4
PATIENCE = 5  # seconds that a worker gets at the end to finish its chunk


class WorkerDied(InputError):
    """A worker process ended before its work did."""


class Hello(NamedTuple):
    """What a worker is told first.

    Attributes:
      maker: the pickled `RowMaker`, without its arrays.
      arrays: number and size of the shared memory that holds these, and the place of each.
      slots: number and size of the shared memory of the batches.
      layout: of that.
    """

    maker: bytes
    arrays: tuple[int, int, list[slice]]
    slots: tuple[int, int]
    layout: Layout


class Processes(Threads):
    """Processes that make batches; behind each stands a thread that passes chunks on.

    Args:
      maker: makes the rows.
      number: of processes.
      batch_size: rows of each batch.
      prefetch: batches in the making.
    """

    def __init__(self, maker: RowMaker, number: int, *, batch_size: int, prefetch: int):
        if os.name != "posix":
            raise InputError(f"data.num_workers is {number}; allowed on {os.name}: 0, for threads.")
        self._slots = Slots(Layout(dict(maker.spec), batch_size), prefetch + HELD)
        pickled, buffers = _pickled(maker)
        self._arrays, places = share([buffer.raw() for buffer in buffers])
        hello = Hello(
            maker=pickled,
            arrays=(self._arrays.number, self._arrays.size, places),
            slots=(self._slots.shared.number, self._slots.shared.size),
            layout=self._slots.layout,
        )
        self._workers: list[Worker] = []
        try:
            self._workers.extend(Worker(hello) for _ in range(number))
        except OSError as error:
            self._end_workers()
            raise InputError(
                f"data worker process {len(self._workers) + 1} of {number} cannot be started "
                f"({error}); allowed: fewer data.num_workers."
            ) from error
        super().__init__(maker, number)

    def start(self, positions: np.ndarray) -> tuple[Batch, list[Future]]:
        slot, batch = self._slots.take()
        return self._start(batch, slot, positions)

    def finished(self, batch: Batch) -> Batch:
        if self._slots.num_free:
            return batch
        return {name: rows.copy() for name, rows in batch.items()}

    def close(self) -> None:
        """Gives up what has not begun, and also what takes too long."""
        self._give_up()
        end = time.monotonic() + PATIENCE
        for thread, worker in zip(self._threads, self._workers, strict=True):
            thread.join(max(0, end - time.monotonic()))
            if thread.is_alive():
                worker.kill()  # its thread waits for an answer, and hears of the end
            thread.join()
        self._end_workers()

    def _end_workers(self) -> None:
        for worker in self._workers:
            worker.close()

    def _make(self, number: int, chunk: Chunk) -> list[BadExample]:
        return self._workers[number].make(chunk)


class Worker:
    """One process, seen from the program."""

    def __init__(self, hello: Hello):
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            # A worker is one of many already.
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        }
        self._pipe, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        with _signals_blocked():
            self._process = subprocess.Popen(
                # -P: the working directory is on its path only where it is on the program's.
                [sys.executable, "-P", "-m", "vit_jax.data.batching.processes", str(number)],
                stdin=subprocess.DEVNULL,
                env=environment,
                pass_fds=[number, hello.arrays[0], hello.slots[0]],
            )
        theirs.close()
        self._hello: Hello | None = hello

    def make(self, chunk: Chunk) -> list[BadExample]:
        """Has the chunk made; raises what its making raised."""
        try:
            if self._hello is not None:
                self._pipe.send(tuple(self._hello))
                self._hello = None
            self._pipe.send((chunk.slot, chunk.start, chunk.positions, chunk.numbers))
            bad, error = self._pipe.recv()
        except (OSError, EOFError) as closed:
            raise self._died() from closed
        if error is not None:
            raise error
        return bad

    def close(self) -> None:
        self._pipe.close()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()

    def kill(self) -> None:
        self._process.kill()

    def _died(self) -> WorkerDied:
        code = self._process.wait()
        reason = f"signal {-code}" if code < 0 else f"exit code {code}"
        return WorkerDied(
            f"a data worker process ended ({reason}); signal 9 is often a lack of memory: allowed "
            "are fewer data.num_workers or a smaller data.prefetch."
        )


def main(pipe: Connection) -> None:
    """The worker: makes the chunks that come in until there are no more."""
    with contextlib.suppress(EOFError, OSError):  # the program has ended
        hello = Hello(*pipe.recv())
        number, size, places = hello.arrays
        arrays = map_shared(number, size, writable=False)
        slots = map_shared(*hello.slots)
        maker = None
        while True:
            slot, start, positions, numbers = pipe.recv()
            rows = rows_of(hello.layout.batch(slots, slot), start, len(positions))
            try:
                # Loaded here, so that what goes wrong in it is an answer, too.
                maker = maker or _unpickled(hello.maker, [arrays[p] for p in places])
                answer = maker.fill(positions, numbers, rows), None
            except BaseException as error:
                answer = None, portable(error)
            pipe.send(answer)


def _pickled(maker: RowMaker) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """The maker without its arrays, and these."""
    buffers: list[pickle.PickleBuffer] = []
    try:
        return pickle.dumps(maker, protocol=5, buffer_callback=buffers.append), buffers
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise InputError(
            f"{maker.source.name} or its transform cannot be sent to worker processes ({error}); "
            "allowed: classes and functions at the top of a module, or data.num_workers=0."
        ) from error


def _unpickled(maker: bytes, arrays: list[np.ndarray]) -> RowMaker:
    try:
        return pickle.loads(maker, buffers=arrays)
    except (AttributeError, ImportError) as error:
        raise InputError(
            f"a data worker process cannot find the source or its transform ({error}); allowed: "
            "classes and functions of a module that can be imported, which a program's own file "
            "and a notebook cannot, or data.num_workers=0."
        ) from error


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """What is started here is born deaf to SIGINT and SIGTERM.

    A terminal's Ctrl-C and a scheduler's SIGTERM go to all processes; the program decides when its
    workers end. A worker that asked to ignore them would do so too late for what comes meanwhile.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def portable(error: BaseException) -> BaseException:
    """The error, with its traceback as a note; a copy in words where it cannot be pickled."""
    error.add_note(f"In a data worker:\n{''.join(traceback.format_tb(error.__traceback__))}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError("".join(traceback.format_exception(error)))
    return error


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
