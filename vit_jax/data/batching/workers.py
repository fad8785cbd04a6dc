"""Batches made ahead of their use, by threads or by processes that write into shared memory.

Every batch is cut into chunks of rows; workers take chunks in order, so the first batch is ready
soon and memory holds few batches. The processes are started by `processes.py`.
"""

import collections
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.batching.rows import BadExample, Batch, RowMaker

# Rows of a chunk: some 15 ms of work at 1,000 images/s, against 0.2 ms for handing it over.
CHUNK = 16


class Chunk(NamedTuple):
    """Some rows of a batch that is being made.

    Attributes:
      batch: the batch.
      slot: its place in shared memory, if it is there.
      start: the first of the rows.
      positions: of the rows, int64[m].
      numbers: of their examples, int64[m].
    """

    batch: Batch
    slot: int
    start: int
    positions: np.ndarray
    numbers: np.ndarray

    @property
    def rows(self) -> Batch:
        return rows_of(self.batch, self.start, len(self.positions))


class Threads:
    """Threads that make batches, chunk by chunk, first come first served."""

    def __init__(self, maker: RowMaker, number: int):
        self._maker = maker
        self._tasks: queue.SimpleQueue = queue.SimpleQueue()
        # Daemons: a program may end while batches are being made ahead.
        self._threads = [
            threading.Thread(target=self._serve, args=(i,), name=f"data-{i}", daemon=True)
            for i in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def start(self, positions: np.ndarray) -> tuple[Batch, list[Future]]:
        """Begins the batch of int64[b] positions; it is whole when all the futures are done."""
        return self._start(self._maker.empty(len(positions)), 0, positions)

    def finished(self, batch: Batch) -> Batch:
        """The batch as it may be given away."""
        return batch

    def close(self) -> None:
        """Gives up what has not begun, and waits for what has."""
        self._give_up()
        for thread in self._threads:
            thread.join()

    def _give_up(self) -> None:
        """Has the threads end after the chunks that they have begun."""
        while not self._tasks.empty():
            try:
                self._tasks.get_nowait()
            except queue.Empty:  # a thread was faster
                break
        for _ in self._threads:
            self._tasks.put(None)

    def _start(self, batch: Batch, slot: int, positions: np.ndarray) -> tuple[Batch, list[Future]]:
        futures, numbers = [], self._maker.numbers(positions)
        for start in range(0, len(positions), CHUNK):
            rows = slice(start, start + CHUNK)
            futures.append(Future())
            chunk = Chunk(batch, slot, start, positions[rows], numbers[rows])
            self._tasks.put((futures[-1], chunk))
        return batch, futures

    def _serve(self, number: int) -> None:
        while (task := self._tasks.get()) is not None:
            future, chunk = task
            try:
                answer, told = self._make(number, chunk), future.set_result
            except BaseException as error:
                answer, told = error, future.set_exception
            # Let go first: whoever is told may count on the slot of a batch that nobody holds.
            del task, chunk
            told(answer)
            del future, told, answer

    def _make(self, number: int, chunk: Chunk) -> list[BadExample]:
        return self._maker.fill(chunk.positions, chunk.numbers, chunk.rows)


def read_ahead(
    start_workers: Callable[[], Threads],
    positions: Iterable[np.ndarray],
    *,
    prefetch: int,
    on_bad: Callable[[BadExample], Any],
) -> Iterator[Batch]:
    """Yields the batch of each int64[b] in `positions`, in order; closes the workers at the end.

    Args:
      start_workers: called with the first batch, since only a generator that has begun has an end.
      prefetch: batches in the making.
      on_bad: told of every example that was skipped.
    """
    waiting: collections.deque[tuple[Batch, list[Future]]] = collections.deque()
    positions, workers = iter(positions), start_workers()
    try:
        while True:
            while len(waiting) < prefetch and (asked := next(positions, None)) is not None:
                waiting.append(workers.start(asked))
            if not waiting:
                return
            batch, chunks = waiting.popleft()
            for chunk in chunks:
                for bad in chunk.result():
                    on_bad(bad)
            batch = workers.finished(batch)
            yield batch
            del batch, chunks  # else this frame would hold on to the batch while it waits
    finally:
        if not sys.is_finalizing():  # then threads stand still, and processes end with the program
            workers.close()


def rows_of(batch: Batch, start: int, number: int) -> Batch:
    return {name: rows[start : start + number] for name, rows in batch.items()}


def num_cores() -> int:
    """The CPU cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    return len(affinity(0)) if affinity else os.cpu_count() or 1
