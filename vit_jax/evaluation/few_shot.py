"""Few-shot classification by least squares: how good frozen representations are.

arXiv:2010.11929, section 4.1: of each class a few training images are taken, and a linear map of
their representations to targets of -1, and 1 for the class, is fitted by least squares with an L2
penalty, which has a closed-form solution. The paper does not tell the rest; this is its authors'
later `fewshot_lsr` (google-research/big_vision), with which it agrees in every step:

    1. representations are standardised with the mean and standard deviation (+ 1e-5) of the images
       taken;
    2. a constant channel of 100 is the bias, so large that the penalty hardly touches it;
    3. weights minimise |x·w - y|² + penalty·|w|², penalty 2^10 whatever the number of shots;
    4. the class of the largest output counts; three seeds of which images are taken.

Letters: n images; d channels of a representation; k classes.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import interval_of_mean
from vit_jax.evaluation.features import OnFeatures, both, check_finite
from vit_jax.evaluation.linear_classifier import SMALLEST_DEVIATION, LinearClassifier
from vit_jax.evaluation.protocol import Report, SplitOutputs

BIAS = 100.0
PENALTY = 2.0**10


@dataclasses.dataclass(frozen=True, kw_only=True)
class FewShot(OnFeatures):
    """Accuracy after a few training images of each class, over several choices of these.

    Metrics are 'top1_5shot', the mean over seeds, and 'top1_5shot_std', their sample standard
    deviation (over seeds - 1), where there are several.

    The interval of a mean is over test images, each with its share of seeds that tell it right; the
    deviation has none, since a bootstrap over three seeds tells nothing.

    Attributes:
      shots: training images of each class.
      seeds: choices of images.
      l2: the penalty.
    """

    shots: tuple[int, ...] = (1, 5, 10, 25)
    seeds: int = 3
    l2: float = PENALTY

    def __post_init__(self):
        if not self.shots or len(set(self.shots)) < len(self.shots):
            raise InputError(f"shots are {self.shots}; allowed: one or several different numbers.")
        for value in (*self.shots, self.seeds):
            sections.positive_int(value, "shots and seeds")
        sections.check_ranges("few_shot", l2=(self.l2, sections.TINY, math.inf))

    def metric_names(self) -> list[str]:
        kinds = ("", "_std") if self.seeds > 1 else ("",)
        return [f"top1_{shots}shot{kind}" for shots in self.shots for kind in kinds]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        train, test = both(outputs)
        metrics, intervals, by_seed = {}, {}, {}
        for shots in self.shots:
            hits = np.array(
                [
                    few_shot_hits(*train, *test, shots=shots, l2=self.l2, seed=seed)
                    for seed in range(self.seeds)
                ]
            )
            by_seed[f"{shots}shot"] = values = hits.mean(axis=1).tolist()
            metrics[f"top1_{shots}shot"] = float(np.mean(values))
            intervals[f"top1_{shots}shot"] = interval_of_mean(hits.mean(axis=0))
            if self.seeds > 1:
                metrics[f"top1_{shots}shot_std"] = float(np.std(values, ddof=1))
        return Report(metrics=metrics, intervals=intervals, tables={"top1_by_seed": by_seed})


def few_shot_accuracy(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, " n"],
    test_features: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, " m"],
    *,
    shots: int,
    l2: float = PENALTY,
    seed: int = 0,
) -> float:
    """Share of test images whose class is told right after `shots` images of each class."""
    given = (train_features, train_labels, test_features, test_labels)
    return float(few_shot_hits(*given, shots=shots, l2=l2, seed=seed).mean())


def few_shot_hits(
    train_features: Float[np.ndarray, "n d"],
    train_labels: Int[np.ndarray, " n"],
    test_features: Float[np.ndarray, "m d"],
    test_labels: Int[np.ndarray, " m"],
    *,
    shots: int,
    l2: float,
    seed: int,
) -> Bool[np.ndarray, " m"]:
    """Which test images are told right.

    Raises:
      InputError: where a class has too few training images, or a number is not finite.
    """
    chosen = choose_shots(train_labels, shots=shots, seed=seed)
    check(train_features[chosen], train_labels[chosen], test_features, test_labels, l2)
    classes, labels = np.unique(train_labels[chosen], return_inverse=True)
    found = fit(train_features[chosen], labels, num_classes=len(classes), l2=l2)
    return classes[found(test_features).argmax(axis=1)] == test_labels


def check(train_features, train_labels, test_features, test_labels, l2: float) -> None:
    """Raises `InputError` for what would give an accuracy of nothing."""
    if not len(train_labels) or not len(test_labels):
        raise InputError(
            f"there are {len(train_labels)} training and {len(test_labels)} test images; allowed: "
            "at least one of each."
        )
    if unknown := sorted(set(np.unique(test_labels)) - set(np.unique(train_labels))):
        raise InputError(
            f"the class {unknown[0]} of test images has no training image; allowed: classes that "
            "can be learned."
        )
    for name, features in (("training", train_features), ("test", test_features)):
        check_finite(features, f"the {name} features")
    if not (math.isfinite(l2) and l2 > 0):
        raise InputError(f"l2 is {l2}; allowed: a finite number above 0.")


def choose_shots(labels: Int[np.ndarray, " n"], *, shots: int, seed: int) -> Int[np.ndarray, " s"]:
    """Positions of `shots` images of each class that occurs, class by class."""
    if shots < 1:
        raise InputError(f"shots is {shots}; allowed: 1 or more.")
    rng, chosen = np.random.default_rng(seed), []
    for label in np.unique(labels):
        places = rng.permutation(np.flatnonzero(labels == label))
        if len(places) < shots:
            raise InputError(
                f"class {label} has {len(places)} training images; allowed: {shots} or more, the "
                "shots asked for."
            )
        chosen.append(places[:shots])
    return np.concatenate(chosen)


def fit(
    features: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, " n"],
    *,
    num_classes: int,
    l2: float,
) -> LinearClassifier:
    """The exact minimum, in float64; the weights of the constant channel are the bias."""
    features = np.asarray(features, np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + SMALLEST_DEVIATION
    x = np.pad((features - mean) / deviation, ((0, 0), (0, 1)), constant_values=BIAS)
    y = 2 * np.eye(num_classes)[labels] - 1
    n, d = x.shape
    # (xᵀx + l2)⁻¹ xᵀ y = xᵀ (x xᵀ + l2)⁻¹ y; the smaller of the two systems is solved.
    if n >= d:
        weights = np.linalg.solve(x.T @ x + l2 * np.eye(d), x.T @ y)
    else:
        weights = x.T @ np.linalg.solve(x @ x.T + l2 * np.eye(n), y)
    return LinearClassifier(mean, deviation, weights[:-1], BIAS * weights[-1])
