"""What protocols on frozen features share: training examples that they learn from, and checks.

The model stays as it is; what its head reads of an image is a point with a label, and a simple
learner of such points tells how good they are. Its classes are those of the source, which need not
be the model's.

Letters: n examples; r channels of a representation.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import interval_of_mean
from vit_jax.evaluation.protocol import TEST, Interval, Protocol, Request, SplitOutputs, check_has

TRAIN = "train"  # the role of the split that is learned from


class Examples(NamedTuple):
    """Points with their classes."""

    features: Float[np.ndarray, "n r"]
    label: Int[np.ndarray, " n"]

    def at(self, places: Int[np.ndarray, " m"]) -> "Examples":
        return Examples(self.features[places], self.label[places])


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnFeatures(Protocol):
    """A protocol that learns from one split and is scored on another one.

    Attributes:
      train: the split to learn from, of the source that is scored; None is the model's training
        split, which published weights and an evaluation with a source of its own do not have.
    """

    reads: ClassVar[tuple[str, ...]] = ("representation",)

    train: str | None = None

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        split = self.train or (training_split if test.source is None else None)
        if split is None:
            raise InputError(
                f"the evaluation on {test.split!r} learns from training examples, but no split of "
                "them is given; allowed: train, e.g. train='train'."
            )
        asked = {TRAIN: dataclasses.replace(test, split=split), TEST: test}
        return {role: Request(settings=s, own_classes=True) for role, s in asked.items()}

    def check(self, role: str, found: Collection[str]) -> None:
        check_has(found, "label")


def both(outputs: Mapping[str, SplitOutputs]) -> tuple[Examples, Examples]:
    """Training and test examples, of the same classes."""
    train, test = outputs[TRAIN], outputs[TEST]
    check_same_classes(train, test)
    return examples_of(train), examples_of(test)


def check_same_classes(train: SplitOutputs, test: SplitOutputs) -> None:
    if train.class_names != test.class_names:
        raise InputError(
            f"{train.name} has {len(train.class_names)} classes and {test.name} others, "
            f"{len(test.class_names)}; allowed: the same."
        )


def examples_of(outputs: SplitOutputs) -> Examples:
    """Raises `InputError` for features that are no numbers."""
    check_finite(outputs.representation, f"the features of {outputs.name}")
    return Examples(outputs.representation, outputs.label)


def check_finite(
    features: Float[np.ndarray, "n ..."], what: str = "representations"
) -> Float[np.ndarray, "n ..."]:
    # Neither end of a range is finite where something in it is not; and no copy is made.
    if features.size:
        ends = np.abs(np.asarray([features.min(), features.max()], np.float64)).max()
        if not ends <= np.finfo(np.float32).max:  # in which all is computed
            raise InputError(
                f"{what} are not all finite; allowed: numbers that single precision holds."
            )
    return features


def shares_of(hits: Mapping[str, Bool[np.ndarray, " n"]]) -> dict[str, float]:
    """Of the examples that are hits, by the metric's name."""
    return {name: float(hit.mean()) for name, hit in hits.items()}


def intervals_of(hits: Mapping[str, Bool[np.ndarray, " n"]]) -> dict[str, Interval]:
    """In which these shares lie."""
    return {name: interval_of_mean(hit.astype(np.float64)) for name, hit in hits.items()}
