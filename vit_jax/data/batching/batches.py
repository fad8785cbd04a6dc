"""Batches as a function of the step.

A batch of one host is a dict of NumPy arrays, see `rows.py`. Since an example's random draws
derive from its position in the endless stream, a batch depends on the step and the seed alone:
not on the number of hosts, threads or processes, nor on where a run was resumed.

Letters: b = examples of one host's batch; B = examples of the global batch; H = hosts; n =
examples in the split.
"""

import itertools
import logging
import math
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from vit_jax import sections
from vit_jax.data.augment.crops import preprocess
from vit_jax.data.batching.order import Order
from vit_jax.data.batching.processes import Processes
from vit_jax.data.batching.rows import (
    PADDING,
    BadExample,
    Batch,
    RowMaker,
    Spec,
    Transform,
)
from vit_jax.data.batching.workers import CHUNK, Threads, num_cores, read_ahead
from vit_jax.data.examples import Example, Source
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.videos.clips import Clip
from vit_jax.errors import InputError

__all__ = ["Batch", "EvalData", "TrainData"]

MAX_DEFAULT_THREADS = 16  # more rarely helps, as Python runs one at a time
MAX_DEFAULT_WORKERS = 64
FEW_CORES = 4
DEFAULT_PREFETCH = 4  # batches
LIMIT = 1025  # of processes, of threads and of batches read ahead: more is a slip of the pen

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What training and evaluation share: a source read as one host's share of batches.

    Attributes:
      source: the examples.
      batch_size: B, examples of the global batch.
      num_workers: processes that read ahead; 0 for threads; None for `default_workers`, unless
        num_threads is set.
      num_threads: that read ahead where there are no processes; None for `default_threads`;
        0 reads in the caller's thread.
      prefetch: batches of this host read ahead, of b * h * w * c bytes each.
      process_index, process_count: this host and H.
      skip_bad_examples: mask examples that cannot be decoded rather than raise.
      max_objects: see `rows.RowMaker`.
      bad_examples: what was skipped on this host so far: {where: reason}.
    """

    source: Source
    batch_size: int
    num_workers: int | None = None
    num_threads: int | None = None
    prefetch: int = DEFAULT_PREFETCH
    process_index: int = 0
    process_count: int = 1
    skip_bad_examples: bool = False
    max_objects: int | None = None
    bad_examples: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self):
        sections.positive_int(self.batch_size, "data.batch_size")
        if self.batch_size % sections.positive_int(self.process_count, "process_count"):
            raise InputError(
                f"data.batch_size is {self.batch_size}; it must be a multiple of the "
                f"{self.process_count} processes that share it."
            )
        if not 0 <= self.process_index < self.process_count:
            raise InputError(
                f"process_index is {self.process_index}; allowed: 0 to {self.process_count - 1}."
            )
        sections.positive_int(self.prefetch, "data.prefetch", limit=LIMIT)
        for name in ("num_workers", "num_threads"):
            if getattr(self, name):  # None and 0 have a meaning
                sections.positive_int(getattr(self, name), f"data.{name}", limit=LIMIT)
        if self.max_objects is not None:
            sections.positive_int(self.max_objects, "data.max_objects")
        if self.num_workers and self.num_threads:
            raise InputError(
                f"data.num_threads is {self.num_threads}, but data.num_workers is "
                f"{self.num_workers}; allowed: one of them, since processes take the place of "
                "threads."
            )

    @property
    def num_examples(self) -> int:
        """n, examples in the split."""
        return len(self.source)

    @property
    def rows_per_process(self) -> int:
        """b, examples of this host in each batch."""
        return self.batch_size // self.process_count

    @property
    def spec(self) -> Spec:
        """Shape and type of each array of a row."""
        return self._maker.spec

    def first(self, number: int) -> Batch:
        """The rows of the first positions, as if they were one batch."""
        return self._make(np.arange(number))

    def padding(self) -> Batch:
        """Rows of one batch that stand for no example."""
        return self._make(np.full(self.rows_per_process, PADDING))

    def _batch(self, k: int) -> np.ndarray:
        """int64[b]: the positions of this host's rows of batch k; block `process_index` of H."""
        first = k * self.batch_size + self.process_index * self.rows_per_process
        return np.arange(first, first + self.rows_per_process)

    def _make(self, positions: np.ndarray) -> Batch:
        batch = self._maker.empty(len(positions))
        for bad in self._maker.fill(positions, self._maker.numbers(positions), batch):
            self._note(bad)
        return batch

    def _read_ahead(
        self, positions: Iterable[np.ndarray], *, num_batches: float = math.inf
    ) -> Iterator[Batch]:
        number, threads = self.num_workers, self.num_threads
        if number is None:
            number = default_workers(self._maker) if threads is None else 0
        threads = default_threads(self._maker) if threads is None else threads
        # No process without a chunk: each takes a while to start, at every evaluation.
        number = min(number, num_batches * math.ceil(self.rows_per_process / CHUNK))
        if not number and not threads:
            return (self._make(asked) for asked in positions)

        def start_workers() -> Threads:
            if not number:
                return Threads(self._maker, threads)
            return Processes(
                self._maker, number, batch_size=self.rows_per_process, prefetch=self.prefetch
            )

        return read_ahead(start_workers, positions, prefetch=self.prefetch, on_bad=self._note)

    def _note(self, bad: BadExample):
        if bad.where not in self.bad_examples:
            self.bad_examples[bad.where] = bad.reason
            _log.warning("Skipped unreadable example %s: %s.", bad.where, bad.reason)

    @cached_property
    def _maker(self) -> RowMaker:
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class TrainData(Reader):
    """Endless training batches: `data(step)`, or `data.iterate(first_step)` read ahead.

    An epoch is a permutation of the n examples, a new one each time; batches run on across
    the border of epochs, so no example is dropped and n may be smaller than B.

    Attributes (besides those of `Reader`):
      transform: the augmentation.
      order: which example comes when.
    """

    transform: Transform
    order: Order

    def __call__(self, step: int) -> Batch:
        """This host's rows of batch `step`."""
        return self._make(self._batch(_checked(step)))

    def iterate(self, first_step: int = 0) -> Iterator[Batch]:
        """Yields `self(first_step)`, `self(first_step + 1)`, ... without end."""
        return self._read_ahead(map(self._batch, itertools.count(_checked(first_step))))

    @cached_property
    def _maker(self) -> RowMaker:
        return RowMaker(
            source=self.source,
            transform=self.transform,
            order=self.order,
            max_objects=self.max_objects,
            skip_bad_examples=self.skip_bad_examples,
        )


@dataclass(frozen=True, kw_only=True)
class EvalData(Reader):
    """Every example of a split once, over all hosts, in order.

    All hosts get the same number of batches of the same shape; what the last batch lacks is
    padded and masked.

    Attributes (besides those of `Reader`):
      preprocessing: applied to each image, or frame.
      clip: of videos.
      transform: of what is preprocessed, e.g. a corruption.
    """

    preprocessing: Preprocessing
    clip: Clip | None = None
    transform: Transform | None = None

    def row(self, position: int) -> Batch:
        """One example's row; raises `IndexError` where the split has no such position."""
        if not 0 <= position < self.num_examples:
            raise IndexError(f"{self.source.name} has {self.num_examples} examples, no {position}")
        batch = self._make(np.array([position]))
        return {name: values[0] for name, values in batch.items()}

    def __len__(self) -> int:
        """Batches, the last of which may be padded."""
        return math.ceil(self.num_examples / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        return self._read_ahead(map(self._padded, range(len(self))), num_batches=len(self))

    def _padded(self, k: int) -> np.ndarray:
        positions = self._batch(k)
        return np.where(positions < self.num_examples, positions, PADDING)

    @cached_property
    def _maker(self) -> RowMaker:
        return RowMaker(
            source=self.source,
            transform=Preprocessed(self.preprocessing, self.clip, self.transform),
            max_objects=self.max_objects,
            skip_bad_examples=self.skip_bad_examples,
        )


@dataclass(frozen=True)
class Preprocessed:
    """The transform of evaluation."""

    preprocessing: Preprocessing
    clip: Clip | None = None
    then: Transform | None = None

    def __call__(self, example: Example, rng: np.random.Generator | None = None) -> Example:
        example = example if self.clip is None else self.clip(example, None)
        example = preprocess(example, preprocessing=self.preprocessing)
        return example if self.then is None else self.then(example, None)


def default_workers(maker: RowMaker) -> int:
    """A process for each core where images are decoded, or cores are many; else 0, for threads.

    Processes were 9 % faster than threads on two cores (experiments/input_pipeline), since an
    image's 0.2 ms of Python hold up the other threads. Where pixels are in memory, a row is 0.1 ms
    of Python and little else: on few cores a thread, which starts at once, is enough.
    """
    cores = num_cores()
    uses_processes = cores > 1 if maker.decodes else cores > FEW_CORES
    return min(cores, MAX_DEFAULT_WORKERS) if uses_processes else 0


def default_threads(maker: RowMaker) -> int:
    """One a core, at most `MAX_DEFAULT_THREADS`, where images are decoded; else 1.

    Python runs one at a time, and decoding alone lets the others run meanwhile: with two threads
    for digits in memory, a training on two cores waited for data twice as long as with one.
    """
    return min(MAX_DEFAULT_THREADS, num_cores()) if maker.decodes else 1


def _checked(step: int) -> int:
    if operator.index(step) < 0:
        raise InputError(f"step is {step}; it must not be negative.")
    return operator.index(step)
