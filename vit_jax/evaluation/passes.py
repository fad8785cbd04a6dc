"""What a model makes of splits: each is gone through once, for all protocols that ask for it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax.core import TrainState, Variables
from vit_jax.data.pipeline import EvalData
from vit_jax.errors import InputError
from vit_jax.evaluation.features import check_finite
from vit_jax.evaluation.protocol import Request, SplitOutputs

Rows = Mapping[str, np.ndarray]
Key = tuple[str, tuple[str, ...]]
NAMES = {  # for messages
    "logits": "logits",
    "representation": "representations",
    "reconstruction": "reconstructions",
    "masked": "masks",
}


class Stopped(Exception):
    """Somebody asked to stop before the end of a pass."""


@dataclasses.dataclass
class Split:
    """What is known of one split.

    Attributes:
      data: its batches.
      reads: the outputs that are read of it, by anybody.
      users: of each who expects it: is it due at this step?
      is_kept: for those that come later.
      awaited: of those due at this step, how many are still to come.
      kept: what was made of it at this step.
    """

    data: EvalData
    reads: set[str] = dataclasses.field(default_factory=set)
    users: list[Callable[[int], bool]] = dataclasses.field(default_factory=list)
    is_kept: bool = False
    awaited: int = 0
    kept: SplitOutputs | None = None


class Passes:
    """Remembers what was made of which split, until all that are due at this step have had it.

    Args:
      open_data: opens what is requested.
      run: the model's outputs of these names for each batch, and `index`, `mask` and what labels
        there are, on this host whole.
      measured: of a state, the arrays that these outputs come from: `task.variables`.
    """

    def __init__(
        self,
        *,
        open_data: Callable[[Request], EvalData],
        run: Callable[[TrainState, EvalData, tuple[str, ...]], Iterable[Rows]],
        measured: Callable[[TrainState], Variables],
    ):
        self._open, self._run, self._measured = open_data, run, measured
        self._keys: dict[str, Key] = {}  # of each request
        self._splits: dict[Key, Split] = {}
        self._seen: tuple[Any, ...] | None = None  # the state's step and weights

    def expect(
        self,
        request: Request,
        reads: Iterable[str],
        *,
        is_due: Callable[[int], bool] = lambda step: True,
    ) -> EvalData:
        """Opens the data, so that mistakes come to light early.

        Args:
          request: which will be asked for.
          reads: what is read of it.
          is_due: will it be asked for at this step?
        """
        if repr(request) not in self._keys:
            data = self._open(request)
            self._keys[repr(request)] = key = key_of(request, data)
            self._splits.setdefault(key, Split(data))
        split = self._splits[self._keys[repr(request)]]
        if not split.reads.issuperset(reads):
            split.reads.update(reads)
            split.kept = None  # it lacks some
        split.users.append(is_due)
        split.is_kept |= request.is_kept
        return split.data

    def outputs(
        self, state: TrainState, request: Request, *, stop_requested: Callable[[], bool]
    ) -> SplitOutputs:
        """Raises `Stopped` as soon as `stop_requested()`, which is asked after each batch."""
        step = int(state.step)
        # Two states of one step may have other weights; those of one state are the same objects.
        seen = (step, *jax.tree.leaves(self._measured(state)))
        if not is_same(self._seen, seen):
            self._seen = seen
            for split in self._splits.values():
                split.kept, split.awaited = None, sum(is_due(step) for is_due in split.users)
        split = self._splits[self._keys[repr(request)]]
        if split.kept is not None:
            return split.kept
        found = self._gather(state, split, stop_requested)
        if split.is_kept:
            split.kept = found
        return found

    def finish(self, requests: Iterable[Request]) -> None:
        """One who expected these has had them; what nobody else waits for is forgotten."""
        for request in requests:
            split = self._splits[self._keys[repr(request)]]
            split.awaited -= 1
            if split.awaited <= 0:
                split.kept = None

    def _gather(
        self, state: TrainState, split: Split, stop_requested: Callable[[], bool]
    ) -> SplitOutputs:
        data, columns = split.data, {}
        for rows in self._run(state, data, tuple(sorted(split.reads))):
            is_read = rows["mask"]
            for name, values in rows.items():
                columns.setdefault(name, []).append(values[is_read])
            if stop_requested():
                raise Stopped
        if not sum(map(len, columns.get("index", ()))):
            raise InputError(f"{data.source.name} has no readable example; allowed: at least one.")
        arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
        for name in split.reads & set(arrays):
            check_finite(arrays[name], f"the model's {NAMES[name]} of {data.source.name}")
        del arrays["mask"]
        if "labels" in arrays:
            arrays["labels"] = arrays["labels"] > 0
        return SplitOutputs(
            **arrays,
            name=data.source.name,
            num_examples=data.num_examples,
            class_names=tuple(data.source.class_names),
            present=data.source.present,
            source=data.source,
            images=functools.partial(images_at, data),
        )


def is_same(one: tuple[Any, ...] | None, other: tuple[Any, ...]) -> bool:
    """Equal steps, and the very same arrays."""
    if one is None or len(one) != len(other) or one[0] != other[0]:
        return False
    return all(a is b for a, b in zip(one[1:], other[1:], strict=True))


def key_of(request: Request, data: EvalData) -> Key:
    """Equal where the same examples come with the same labels in the same batches."""
    settings = dataclasses.replace(request.settings, every_steps=0)
    same = dataclasses.replace(request, settings=settings, own_classes=False, is_kept=True)
    return repr(same), tuple(data.source.class_names)


def images_at(data: EvalData, positions: Iterable[int]) -> list[np.ndarray]:
    """The images at these positions of the split, as the model gets them."""
    return [data.row(int(position))["image"] for position in positions]


class Lazy(Mapping[str, Any]):
    """Values that are made when they are asked for."""

    def __init__(self, make: Callable[[str], Any], names: Iterable[str]):
        self._make, self._names = make, tuple(names)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._make(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
