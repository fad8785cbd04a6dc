"""Classification, measured in full: overall, by class, and what is taken for what.

An example with several labels, or none, as in ImageNet ReaL (arXiv:2006.07159): a prediction is
right if it is any of the labels, and examples without one do not count. The law is that of
google-research/reassessed-imagenet and of big_vision's evaluator.

Where only some of the model's classes can occur, as in ImageNet-A and -R (arXiv:1907.07174,
arXiv:2006.16241: 200 of 1,000), published figures choose among these alone.

Letters: n examples; k classes.
"""

import dataclasses
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vit_jax.analysis import classification_figures
from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import interval_of, interval_of_mean
from vit_jax.evaluation.logits import check_among, chosen
from vit_jax.evaluation.protocol import TEST, Protocol, Report, SplitOutputs, check_has

AT_ONCE = 4096  # rows of logits that are copied together
MOST_IN_FULL = 100  # classes up to which a confusion matrix is written down
MOST_CONFUSED = 50  # pairs of classes that are listed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Protocol):
    """Accuracy by the model's own head.

    Metrics: `top1`, `top5`; `mean_class_accuracy`, of the examples that have a class the share
    that is predicted right, averaged over the classes that occur.

    Attributes:
      among: 'present', 'all' or None, see `logits.chosen`.
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)

    among: str | None = None

    def __post_init__(self):
        check_among(self.among, where="classification.among")

    def check(self, role: str, found: Collection[str]) -> None:
        check_has(found, "label", "labels")

    def metric_names(self) -> list[str]:
        return ["top1", "top5", "mean_class_accuracy"]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        test = outputs[TEST]
        logits, number = chosen(test, self.among)
        pairs = pairs_of(test)
        counts = np.bincount(pairs.example, minlength=len(logits)) > 0
        if not counts.any():
            raise InputError(f"no example of {test.name} has a label; allowed: at least one.")
        hits = {f"top{k}": any_hits(logits, pairs, k=k) for k in (1, 5)}
        accuracy = functools.partial(mean_class_accuracy, hits["top1"], pairs)
        of_drawn = lambda drawn: accuracy(np.bincount(drawn, minlength=len(drawn)))  # noqa: E731
        tables: dict[str, Any] = {"chosen_among": number, "classes": logits.shape[1]}
        pictures = {}
        if test.label is not None:
            predicted = ranked_first(logits)
            matrix = confusion_matrix(test.label, predicted, num_classes=logits.shape[1])
            tables |= tables_of(matrix, test.class_names)
            draw = classification_figures.draw_confusion
            pictures["confusion.png"] = functools.partial(draw, matrix, test.class_names)
        shares = {name: float(hit[counts].mean()) for name, hit in hits.items()}
        intervals = {name: interval_of_mean(hit[counts]) for name, hit in hits.items()}
        intervals["mean_class_accuracy"] = interval_of(of_drawn, np.arange(len(logits)))
        return Report(
            metrics={**shares, "mean_class_accuracy": accuracy()},
            intervals=intervals,
            tables=tables,
            pictures=pictures,
            scored=int(counts.sum()),
        )


class Pairs(NamedTuple):
    """Which example has which label; an example may have several, or none."""

    example: Int[np.ndarray, " p"]  # from 0 to n - 1
    label: Int[np.ndarray, " p"]


def pairs_of(outputs: SplitOutputs) -> Pairs:
    if outputs.label is not None:
        return Pairs(np.arange(len(outputs.label)), outputs.label)
    return Pairs(*np.nonzero(outputs.labels))


def any_hits(logits: Float[np.ndarray, "n k"], pairs: Pairs, *, k: int) -> Bool[np.ndarray, " n"]:
    """Is any of an example's labels among its k largest logits?"""
    is_hit = np.zeros(len(logits), bool)
    for first in range(0, len(pairs.example), AT_ONCE):
        example, label = (values[first : first + AT_ONCE] for values in pairs)
        np.logical_or.at(is_hit, example, top_k_hits(logits[example], label, k=k))
    return is_hit


def top_k_hits(
    logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"], *, k: int
) -> Bool[np.ndarray, " n"]:
    """Is the label among the k largest logits?

    Of equal logits the first counts as the larger, and NaN as larger than all: a broken model
    scores nothing. This is scikit-learn's `top_k_accuracy_score`, but for equal logits, of which
    that takes the last.
    """
    own = np.take_along_axis(logits, label[:, None], axis=1)
    is_before = (logits == own) & (np.arange(logits.shape[1]) < label[:, None])
    rank = (~(logits <= own) | is_before).sum(axis=1)
    return (rank < k) & ~np.isnan(own[:, 0])


def ranked_first(logits: Float[np.ndarray, "n k"]) -> Int[np.ndarray, " n"]:
    """The class of the largest logit, the first of equal ones."""
    return np.where(np.isnan(logits), np.inf, logits).argmax(axis=1)


def mean_class_accuracy(
    is_right: Bool[np.ndarray, " n"],
    pairs: Pairs,
    weight: Int[np.ndarray, " n"] | None = None,
) -> float:
    """For one label an example, scikit-learn's `balanced_accuracy_score`.

    Args:
      weight: how often each example counts.
    """
    weights = np.ones(len(pairs.example)) if weight is None else weight[pairs.example]
    support = np.bincount(pairs.label, weights)
    right = np.bincount(pairs.label, weights * is_right[pairs.example])
    return float((right[support > 0] / support[support > 0]).mean())


def confusion_matrix(
    label: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], *, num_classes: int
) -> Int[np.ndarray, "k k"]:
    """Examples by label (row) and prediction (column): scikit-learn's `confusion_matrix`."""
    places = label.astype(np.int64) * num_classes + predicted
    return np.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)


class PerClass(NamedTuple):
    """Of each class; 0 where nothing was predicted as it, or none of it occurs."""

    precision: Float[np.ndarray, " k"]
    recall: Float[np.ndarray, " k"]
    f1: Float[np.ndarray, " k"]
    support: Int[np.ndarray, " k"]


def per_class(matrix: Int[np.ndarray, "k k"]) -> PerClass:
    """scikit-learn's `precision_recall_fscore_support` with zero_division=0."""
    right, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(
        precision=right / np.maximum(predicted, 1),
        recall=right / np.maximum(support, 1),
        f1=2 * right / np.maximum(predicted + support, 1),
        support=support,
    )


def tables_of(matrix: Int[np.ndarray, "k k"], class_names: Sequence[str]) -> dict[str, Any]:
    """What report.json says of classes."""
    columns = per_class(matrix)
    rows = [
        {"class": name, **{key: values[i] for key, values in columns._asdict().items()}}
        for i, name in enumerate(class_names)
    ]
    tables: dict[str, Any] = {
        "per_class": rows,
        "most_confused": most_confused(matrix, class_names),
    }
    if len(matrix) <= MOST_IN_FULL:
        tables["confusion_matrix"] = matrix
    return tables


def most_confused(
    matrix: Int[np.ndarray, "k k"], class_names: Sequence[str]
) -> list[dict[str, Any]]:
    """The pairs of classes by how often the one is taken for the other, at most `MOST_CONFUSED`."""
    wrong = matrix * ~np.eye(len(matrix), dtype=bool)
    order = np.argsort(-wrong, axis=None, kind="stable")[:MOST_CONFUSED]
    pairs = [np.unravel_index(place, wrong.shape) for place in order]
    return [
        {"class": class_names[i], "taken_for": class_names[j], "examples": wrong[i, j]}
        for i, j in pairs
        if wrong[i, j]
    ]
