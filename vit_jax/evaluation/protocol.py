"""Protocols: ways to measure a model by what it makes of whole splits.

A protocol is a frozen dataclass of settings, its keys in `config.evals.NAME`. It says which splits
it needs (`requests`) and which of the model's outputs it reads (`reads`), and measures from those
alone (`measure`): in NumPy, or on this host's own devices, on every host alike. The model itself
runs elsewhere (`passes.py`), over all devices, and once for all protocols that ask for the same.

Letters: n examples that could be read, in the split's order; k classes; r channels of a
representation.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from vit_jax.data.examples import Source, Transform
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError

TEST = "test"  # the role of the split that is scored; of several ones each role begins with it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """Examples that a protocol needs.

    Attributes:
      settings: of what source which split; what is None there is as in the training.
      own_classes: labels are positions in the source's own classes, and not in the model's, so
        that data of any classes will do.
      transform: of preprocessed examples, e.g. a corruption; its `repr` tells it from others.
      is_kept: for other protocols, while the model stays the same; False where there are too many.
    """

    settings: EvalSettings
    own_classes: bool = False
    transform: Transform | None = None
    is_kept: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitOutputs:
    """What a model makes of a split; of several hosts each has all of it.

    Attributes:
      name: what was opened, e.g. 'digits:test'.
      index: positions in the split, ascending.
      label: positions in `class_names`; None where an example may have several.
      labels: those that each example has; None where it has one.
      representation: what the head reads.
      logits: of the model's classes.
      reconstruction: images with masked places as the model paints them, pixels from 0 to 1.
      masked: 1 where a pixel was masked, else 0.
      num_examples: of the split, of which n could be read.
      class_names: of the labels.
      present: the classes that can occur, where these are known to be a subset.
      source: of the split, which tells what examples it shares with others.
      images: positions -> the examples' images as the model got them, uint8[h, w, c] each.
    """

    name: str
    index: Int[np.ndarray, " n"]
    label: Int[np.ndarray, " n"] | None = None
    labels: Bool[np.ndarray, "n k"] | None = None
    representation: Float[np.ndarray, "n r"] | None = None
    logits: Float[np.ndarray, "n k"] | None = None
    reconstruction: Float[np.ndarray, "n h w c"] | None = None
    masked: Float[np.ndarray, "n h w"] | None = None
    num_examples: int
    class_names: tuple[str, ...]
    present: tuple[int, ...] | None = None
    source: Source | None = None
    images: Callable[[Sequence[int]], list[UInt8[np.ndarray, "h w c"]]] | None = None


class Interval(NamedTuple):
    """In which a metric lies with a confidence of 95 %."""

    low: float
    high: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """What a protocol has found.

    Attributes:
      metrics: by name, without the evaluation's; those of `metric_names`, and maybe more.
      intervals: of some of the metrics.
      tables: what JSON can hold: per-class numbers, a confusion matrix.
      pictures: file name ending in .png -> what draws it there.
      files: other file names -> what writes them there.
      is_series: keeps the pictures of earlier steps, too, as steps/STEP_NAME.
      scored: examples that count; None for all that could be read.
      about: filled in by who runs the protocol: the step, the data, counts, settings.
    """

    metrics: dict[str, float]
    intervals: dict[str, Interval] = dataclasses.field(default_factory=dict)
    tables: dict[str, Any] = dataclasses.field(default_factory=dict)
    pictures: dict[str, Callable[[Path], None]] = dataclasses.field(default_factory=dict)
    files: dict[str, Callable[[Path], None]] = dataclasses.field(default_factory=dict)
    is_series: bool = False
    scored: int | None = None
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Protocol:
    """See the top of this file."""

    reads: ClassVar[tuple[str, ...]]  # of 'logits', 'representation', ...: what a task predicts
    brings_data: ClassVar[bool] = False  # True where an entry names no split and no source

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        """What data, by role; `TEST` is what is scored.

        Args:
          test: the entry of `config.evals`.
          training_split: that the model was trained on; None of published weights.
        """
        del training_split
        return {TEST: Request(settings=test)}

    def check(self, role: str, found: Collection[str]) -> None:
        """Raises `InputError` where examples of a role, which have `found`, lack what it needs."""

    def check_sources(self, sources: Mapping[str, Source]) -> None:
        """Raises `InputError` where roles share examples that they may not."""

    def metric_names(self) -> list[str]:
        """Those that `measure` always has; by one of them the best checkpoint may be kept."""
        raise NotImplementedError

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        """The outputs are made when they are asked for: one who asks late needs less memory."""
        raise NotImplementedError


def check_named(given: Mapping[Any, Any], where: str) -> None:
    """Raises `InputError` unless these are names that metrics can begin with, and keys of data."""
    for name, settings in given.items():
        if not (isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_.+-]+", name)):
            raise InputError(
                f"{where} has the name {name!r}; allowed: letters, digits, '_', '-', '.' and '+'."
            )
        if not isinstance(settings, Mapping):
            raise InputError(
                f"{where}.{name} is {settings!r}; allowed: keys of an evaluation, e.g. "
                "dict(source='folder:DIR', split='test')."
            )


def check_unique(names: Sequence[str]) -> None:
    """Raises `InputError` where two of a protocol's metrics would have one name."""
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"two metrics would be called {name!r}; allowed: other names of the data, and "
                "each setting once."
            )


def check_has(found: Collection[str], *allowed: str) -> None:
    """Raises `InputError` unless the examples have one of these: 'label', 'labels'."""
    if not set(allowed) & set(found):
        raise InputError(
            f"the examples have {', '.join(sorted(found))}; allowed: with {' or '.join(allowed)}."
        )
