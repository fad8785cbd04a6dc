"""What several processes must settle among themselves, so that none waits for another in vain.

Outside the training loop: `together` makes one process's `InputError` everybody's, and `from_first`
lets process 0 alone do what all want to know. Inside the loop waiting for an answer at each step
would cost more than the step's own communication; there `Votes` are cast with every step and read
a few steps later, when they have long been counted.

With a single process all of this is a plain call: nothing is sent, nothing is compiled.
"""

import collections
import contextlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import InputError
from vit_jax.train import hosts

T = TypeVar("T")
Rows = Mapping[str, Any]  # one process's part of a batch

# Votes that may be outstanding: as many steps as the loop lets the devices lag behind.
LAG = 2
NOTHING, STOP, FAILED = 0, 1, 2
_LONGEST = 2000  # bytes of a message that is passed on


class SharedError(InputError):
    """A mistake that some process found and that ends all of them alike."""

    on_every_host = True


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All processes leave the `with` block, or all raise what one of them found wrong.

    Inside, a process must not wait for another, but in `together` and `from_first`.

    Raises:
      SharedError: on every process, where any raised an `InputError`.
    """
    if hosts.count() == 1:
        yield
        return
    found = None
    try:
        yield
    except SharedError:  # all have it already: one that waits further in was answered from here
        raise
    except InputError as error:
        found = error
    raise_shared(found)


def raise_shared(error: InputError | None) -> None:
    """Raises on every process what one of them is in trouble with, if any is."""
    messages = _gather("" if error is None else str(error))
    told = {i: message for i, message in enumerate(messages) if message}
    if not told:
        return
    first, message = next(iter(told.items()))
    is_everybodys = len(told) == hosts.count() and len(set(told.values())) == 1
    raise SharedError(message if is_everybodys else f"process {first}: {message}") from error


def from_first(compute: Callable[[], T]) -> T:
    """What process 0 computes, in JSON's types, on all of them; or its `InputError`."""
    if hosts.count() == 1:
        return compute()
    text = ""
    with together():
        if hosts.is_first():
            text = json.dumps(compute())
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text.encode()))))
    row = np.frombuffer(text.encode().ljust(size, b"\0")[:size], np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(row))))


@contextlib.contextmanager
def held_by_first(context: contextlib.AbstractContextManager) -> Iterator[None]:
    """Process 0 enters `context` for the duration of the block; where it cannot, nobody goes on."""
    with contextlib.ExitStack() as stack:
        with together():
            if hosts.is_first():
                stack.enter_context(context)
        yield


def total(number: int, *, share: int) -> int:
    """The sum over all shares of the data; processes that read the same rows count once."""
    pairs = multihost_utils.process_allgather(np.asarray([share, number], np.int32))
    return sum(dict(np.asarray(pairs).reshape(-1, 2).tolist()).values())


def _gather(message: str) -> list[str]:
    """The message of each process."""
    row = np.frombuffer(message.encode()[:_LONGEST].ljust(_LONGEST, b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(row)
    return [bytes(row).rstrip(b"\0").decode(errors="ignore") for row in np.asarray(rows)]


class Votes:
    """Whether any process wants to stop, or has failed, told to all at the same step.

    `votes()` takes the place of a plain `stop_requested`: every process must call it equally often,
    once a step and once a batch of an evaluation. It casts this process's vote and answers by one
    that was cast `LAG` calls ago, so all stop at the same step, at most `LAG` later than asked, and
    nobody waits longer than the loop does anyway.

    A process without a next batch (an unreadable image) would leave the others waiting inside the
    step. `guard` has it take part with rows that do not count, and vote for an end.
    """

    def __init__(self, stop_requested: Callable[[], bool] = lambda: False):
        self._asked = stop_requested
        self._several = hosts.count() > 1
        self._error: InputError | None = None
        self._stops = False
        self._cast: collections.deque[jax.Array] = collections.deque()
        if self._several:
            self._count, self._ballots = _polling_station()

    def __call__(self) -> bool:
        """Raises `SharedError` where a process failed."""
        if not self._several:
            return self._asked()
        own = FAILED if self._error else STOP if self._asked() else NOTHING
        self._cast.append(self._count(self._ballots[own]))
        if len(self._cast) > LAG:
            self._read(self._cast.popleft())
        return self._stops

    def settle(self) -> None:
        """Reads all votes: what is kept now is of steps in which every process had its batch."""
        while self._cast:
            self._read(self._cast.popleft())

    def guard(
        self, batches: Iterable[Rows], padding: Rows, *, number: int | float = math.inf
    ) -> Iterator[Rows]:
        """This process's part of `number` batches; after an `InputError`, `padding` instead."""
        if not self._several:
            yield from batches
            return
        given = 0
        try:
            for batch in batches:
                yield batch
                given += 1
        except InputError as error:
            self._error = error
        while given < number:
            yield padding
            given += 1
        self.settle()

    def _read(self, counted: jax.Array) -> None:
        found = int(counted)
        if found == FAILED:
            raise_shared(self._error)
        self._stops |= found == STOP


def _polling_station() -> tuple[Callable[[jax.Array], jax.Array], list[jax.Array]]:
    """The largest vote over all devices, and this process's ballots, already on its devices."""
    mesh = Mesh(np.asarray(jax.devices()), ("device",))
    own = NamedSharding(mesh, PartitionSpec("device"))
    rows = np.ones(jax.local_device_count(), np.int32)
    ballots = [
        jax.make_array_from_process_local_data(own, vote * rows) for vote in (NOTHING, STOP, FAILED)
    ]
    return jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec())), ballots
