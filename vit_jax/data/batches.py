"""Batches as a function of the step, on Grain.

A batch of one host is a dict of NumPy arrays:

    image  uint8[b,h,w,c]   normalised later, on the device
    label  int32[b]         position in the class names
    mask   bool[b]          False: padding, or an unreadable example that was skipped
    index  int32[b]         the example's position in its split; -1 for padding

A masked row has a zero image and label 0. Since an example's random draws derive from its
global position in the endless stream, a batch depends on the step and the seed alone: not
on the number of hosts or threads, nor on where a run was resumed.

Letters: b = examples of one host's batch; h, w, c = height, width, channels; B = examples
of the global batch; H = hosts; n = examples in the split.
"""

import logging
import math
import operator
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.augment.build import Transform
from vit_jax.data.augment.crops import preprocess
from vit_jax.data.examples import Source, UnreadableExample
from vit_jax.data.image import Preprocessing, positive_int
from vit_jax.errors import InputError

Batch = dict[str, np.ndarray]

MAX_DEFAULT_THREADS = 16  # Grain's own default; more rarely helps, as Python runs one at a time
DEFAULT_PREFETCH = 16  # batches
SKIP_HINT = "set data.skip_bad_examples=True to go on without such examples"

_log = logging.getLogger(__name__)


class _Row(NamedTuple):
    """One example of a batch."""

    image: np.ndarray
    label: int
    mask: bool
    index: int


@dataclass(frozen=True, kw_only=True)
class Reader:
    """What training and evaluation share: a source read as one host's share of batches.

    Attributes:
      source: the examples.
      batch_size: B, examples of the global batch.
      num_threads: that read ahead, each a whole batch at a time; None is one a CPU core, at
        most `MAX_DEFAULT_THREADS`; 0 reads in the caller's thread.
      prefetch: batches of this host read ahead, of b * h * w * c bytes each.
      process_index, process_count: this host and H.
      skip_bad_examples: mask examples that cannot be decoded rather than raise.
      bad_examples: what was skipped on this host so far: {where: reason}.
    """

    source: Source
    batch_size: int
    num_threads: int | None = None
    prefetch: int = DEFAULT_PREFETCH
    process_index: int = 0
    process_count: int = 1
    skip_bad_examples: bool = False
    bad_examples: dict[str, str] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self):
        positive_int(self.batch_size, "data.batch_size")
        if self.batch_size % positive_int(self.process_count, "process_count"):
            raise InputError(
                f"data.batch_size is {self.batch_size}; it must be a multiple of the "
                f"{self.process_count} processes that share it."
            )
        if not 0 <= self.process_index < self.process_count:
            raise InputError(
                f"process_index is {self.process_index}; allowed: 0 to {self.process_count - 1}."
            )
        positive_int(self.prefetch, "data.prefetch")
        if self.num_threads is not None and self.num_threads != 0:
            positive_int(self.num_threads, "data.num_threads")

    @property
    def num_examples(self) -> int:
        """n, examples in the split."""
        return len(self.source)

    @property
    def rows_per_process(self) -> int:
        """b, examples of this host in each batch."""
        return self.batch_size // self.process_count

    def _row(self, i: int, shape: tuple[int, ...], transform: Callable) -> _Row:
        """Example i transformed; a masked row where it is unreadable and that is allowed."""
        try:
            example = self.source[i]
            image = transform(example)["image"]
        except UnreadableExample as error:
            if not self.skip_bad_examples:
                raise UnreadableExample(error.place, f"{error.reason}; {SKIP_HINT}") from error
            self._note(i, error.reason)
            return _Row(np.zeros(shape, np.uint8), 0, False, i)
        except InputError as error:
            raise InputError(f"{self.source.describe(i)}: {error}") from error
        if image.shape != shape:
            raise InputError(f"{self.source.describe(i)} became {image.shape}, expected {shape}.")
        return _Row(image, example["label"], True, i)

    def _note(self, i: int, reason: str):
        where = self.source.describe(i)
        if where not in self.bad_examples:
            self.bad_examples[where] = reason
            _log.warning("Skipped unreadable example %s: %s.", where, reason)

    def _read_ahead(self, dataset: Any) -> Iterator[Batch]:
        """Iterates a Grain MapDataset of batches, produced by threads ahead of their use."""
        import grain

        threads = default_threads() if self.num_threads is None else self.num_threads
        options = grain.ReadOptions(
            num_threads=threads, prefetch_buffer_size=self.prefetch if threads else 0
        )
        batches = iter(dataset.to_iter_dataset(options))
        try:
            yield from batches
        finally:
            batches.close()  # else threads would finish their queue before Python may exit


@dataclass(frozen=True, kw_only=True)
class TrainData(Reader):
    """Endless training batches: `data(step)`, or `data.iterate(first_step)` read ahead.

    An epoch is a permutation of the n examples, a new one each time; batches run on across
    the border of epochs, so no example is dropped and n may be smaller than B.

    Attributes (besides those of `Reader`):
      transform: the augmentation, see `augment.build`; its image is of image_shape.
      image_shape: (h, w, c) of what it returns.
      seed: of order and augmentation, 0 to 2**32 - 1.
      shuffle: False keeps the order of the source in every epoch.
    """

    transform: Transform
    image_shape: tuple[int, int, int]
    seed: int
    shuffle: bool = True

    def __post_init__(self):
        super().__post_init__()
        try:
            in_range = 0 <= operator.index(self.seed) < 2**32
        except TypeError:
            in_range = False
        if not in_range:
            raise InputError(f"seed is {self.seed!r}; it must be a whole number below 2**32.")

    def __call__(self, step: int) -> Batch:
        """This host's rows of batch `step`: block `process_index` of H contiguous ones."""
        return self._dataset[self._position(step)]

    def iterate(self, first_step: int = 0) -> Iterator[Batch]:
        """Yields `self(first_step)`, `self(first_step + 1)`, ... without end."""
        return self._read_ahead(self._dataset[self._position(first_step) :: self.process_count])

    def _position(self, step: int) -> int:
        if operator.index(step) < 0:
            raise InputError(f"step is {step}; it must not be negative.")
        return operator.index(step) * self.process_count + self.process_index

    @cached_property
    def _dataset(self) -> Any:
        """Grain's MapDataset whose element k * H + host is that host's part of batch k."""
        import grain

        # Positions rather than examples, so that Grain measures no images and draws its
        # generator once: 20 us less an example.
        order = grain.MapDataset.range(len(self.source)).seed(int(self.seed))
        order = order.shuffle() if self.shuffle else order
        rows = order.repeat().random_map(self._random_row)
        return rows.batch(self.rows_per_process, batch_fn=_stack)

    def _random_row(self, i: int, rng: np.random.Generator) -> _Row:
        return self._row(i, self.image_shape, partial(self.transform, rng=rng))


@dataclass(frozen=True, kw_only=True)
class EvalData(Reader):
    """Every example of a split once, over all hosts, in order.

    All hosts get the same number of batches of the same shape; what the last batch lacks is
    padded and masked.

    Attributes (besides those of `Reader`):
      preprocessing: applied to each image.
    """

    preprocessing: Preprocessing

    def __len__(self) -> int:
        """Batches, the last of which may be padded."""
        return math.ceil(self.num_examples / self.batch_size)

    def __iter__(self) -> Iterator[Batch]:
        import grain

        rows = grain.MapDataset.range(len(self) * self.batch_size).map(self._padded_row)
        batches = rows.batch(self.rows_per_process, batch_fn=_stack)
        return self._read_ahead(batches[self.process_index :: self.process_count])

    def _padded_row(self, i: int) -> _Row:
        shape = self.preprocessing.image_shape
        if i >= self.num_examples:
            return _Row(np.zeros(shape, np.uint8), 0, False, -1)
        return self._row(i, shape, partial(preprocess, preprocessing=self.preprocessing))


def default_threads() -> int:
    """The CPU cores this process may use, at most `MAX_DEFAULT_THREADS`."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(MAX_DEFAULT_THREADS, cores)


def _stack(rows: list[_Row]) -> Batch:
    images, labels, masks, indices = zip(*rows, strict=True)
    return {
        "image": np.stack(images),
        "label": np.array(labels, np.int32),
        "mask": np.array(masks, bool),
        "index": np.array(indices, np.int32),
    }
