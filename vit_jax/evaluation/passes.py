"""What a model makes of splits: each is gone through once, for all protocols that ask for it."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from vit_jax.core import TrainState
from vit_jax.data.pipeline import EvalData
from vit_jax.errors import InputError
from vit_jax.evaluation.protocol import Request, SplitOutputs

Rows = Mapping[str, np.ndarray]


class Stopped(Exception):
    """Somebody asked to stop before the end of a pass."""


class Passes:
    """Remembers what was made of which split, for as long as the state is the same.

    Args:
      open_data: opens what is requested.
      run: the model's outputs of these names for each batch, and `index`, `mask` and what labels
        there are, on this host whole.
    """

    def __init__(
        self,
        *,
        open_data: Callable[[Request], EvalData],
        run: Callable[[TrainState, EvalData, tuple[str, ...]], Iterable[Rows]],
    ):
        self._open, self._run = open_data, run
        self._data: dict[str, EvalData] = {}
        self._reads: dict[str, set[str]] = {}
        self._kept: dict[str, SplitOutputs] = {}
        self._step: int | None = None

    def expect(self, request: Request, reads: Iterable[str]) -> EvalData:
        """Opens the data, so that mistakes come to light early; tells what is to be read of it."""
        key = key_of(request)
        if key not in self._data:
            self._data[key] = self._open(request)
        if new := set(reads) - self._reads.setdefault(key, set()):
            self._reads[key] |= new
            self._kept.pop(key, None)  # it lacks these
        return self._data[key]

    def outputs(
        self, state: TrainState, request: Request, *, stop_requested: Callable[[], bool]
    ) -> SplitOutputs:
        """Raises `Stopped` as soon as `stop_requested()`, which is asked after each batch."""
        if (step := int(state.step)) != self._step:
            self._kept, self._step = {}, step
        key = key_of(request)
        if key in self._kept:
            return self._kept[key]
        found = self._gather(state, key, stop_requested)
        if request.is_kept:
            self._kept[key] = found
        return found

    def _gather(
        self, state: TrainState, key: str, stop_requested: Callable[[], bool]
    ) -> SplitOutputs:
        data, columns = self._data[key], {}
        for rows in self._run(state, data, tuple(sorted(self._reads[key]))):
            is_read = rows["mask"]
            for name, values in rows.items():
                columns.setdefault(name, []).append(values[is_read])
            if stop_requested():
                raise Stopped
        if not sum(map(len, columns.get("index", ()))):
            raise InputError(f"{data.source.name} has no readable example; allowed: at least one.")
        arrays = {name: np.concatenate(parts) for name, parts in columns.items()}
        del arrays["mask"]
        if "labels" in arrays:
            arrays["labels"] = arrays["labels"] > 0
        return SplitOutputs(
            **arrays,
            name=data.source.name,
            num_examples=data.num_examples,
            class_names=tuple(data.source.class_names),
            present=data.source.present,
            images=functools.partial(images_at, data),
        )


def key_of(request: Request) -> str:
    """Tells what is gone through: how often that happens makes no difference."""
    settings = dataclasses.replace(request.settings, every_steps=0)
    return repr(dataclasses.replace(request, settings=settings, is_kept=True))


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
