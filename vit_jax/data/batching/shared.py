"""Memory that worker processes share with the program: a file without a name.

Letters: b = rows of a batch.
"""

import collections
import mmap
import os
from collections.abc import Sequence
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np

from vit_jax.data.batching.rows import Batch, Spec

ALIGNMENT = 64  # bytes; JAX uses an array so aligned on the CPU without copying it


class SharedMemory:
    """Mapped memory.

    Attributes:
      number: of the open file; a child process that inherits it can map the same memory.
      size: in bytes.
      memory: uint8[size].
    """

    def __init__(self, size: int):
        self.size = max(size, 1)  # nothing cannot be mapped
        # Not /dev/shm where it can be helped: containers often allow it only 64 MB.
        is_linux = hasattr(os, "memfd_create")
        self._file = os.fdopen(os.memfd_create("vit_jax"), "r+b") if is_linux else TemporaryFile()  # noqa: SIM115
        self._file.truncate(self.size)
        self.number = self._file.fileno()
        self.memory = map_shared(self.number, self.size)


def map_shared(number: int, size: int, *, writable: bool = True) -> np.ndarray:
    """The memory behind an open file as uint8[size]."""
    access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
    return np.frombuffer(mmap.mmap(number, size, access=access), np.uint8)


def share(parts: Sequence[memoryview]) -> tuple[SharedMemory, list[slice]]:
    """Copies of these bytes in shared memory, and where each is."""
    starts = np.cumsum([0, *(_aligned(part.nbytes) for part in parts)]).tolist()
    shared = SharedMemory(starts[-1])
    places = [slice(s, s + part.nbytes) for s, part in zip(starts, parts, strict=False)]
    for place, part in zip(places, parts, strict=True):
        shared.memory[place] = np.frombuffer(part, np.uint8)
    return shared, places


class Layout(NamedTuple):
    """Where batches are in shared memory: slot after slot, array after array.

    Attributes:
      spec: of a row.
      batch_size: b.
    """

    spec: Spec
    batch_size: int

    @property
    def slot_size(self) -> int:
        """In bytes."""
        return sum(_aligned(self._array_size(name)) for name in self.spec)

    def batch(self, memory: np.ndarray, slot: int) -> Batch:
        """The batch in a slot of uint8[...] memory, not a copy."""
        batch, start = {}, slot * self.slot_size
        for name, (shape, dtype) in self.spec.items():
            size = self._array_size(name)
            array = memory[start : start + size].view(dtype)
            batch[name] = array.reshape(self.batch_size, *shape)
            start += _aligned(size)
        return batch

    def _array_size(self, name: str) -> int:
        shape, dtype = self.spec[name]
        return self.batch_size * int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize


class Slots:
    """Room for batches, free again as soon as nobody refers to their arrays any more."""

    def __init__(self, layout: Layout, number: int):
        self.layout = layout
        self.shared = SharedMemory(number * layout.slot_size)
        self._free = collections.deque(range(number))

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self) -> tuple[int, Batch]:
        slot = self._free.popleft()
        memory = np.asarray(_Lease(self.shared.memory, slot, self._free))
        return slot, self.layout.batch(memory, slot)


class _Lease:
    """Lends memory to NumPy, whose arrays keep it alive; gives its slot back in the end."""

    def __init__(self, memory: np.ndarray, slot: int, free: collections.deque[int]):
        self._memory, self._slot, self._free = memory, slot, free
        self.__array_interface__ = memory.__array_interface__

    def __del__(self):
        self._free.append(self._slot)


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
