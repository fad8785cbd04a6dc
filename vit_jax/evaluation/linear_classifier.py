"""What linear probes share: the classifier itself, and how strongly it is fitted.

A solver has one strength to choose (a penalty, a learning rate): it is the one that classifies a
held-out part of the training examples best, and the classifier is then fitted to all of them.

Letters: n examples; r channels of a representation; k classes.
"""

from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from vit_jax.errors import InputError
from vit_jax.evaluation.classification import top_k_hits
from vit_jax.evaluation.features import Examples

SMALLEST_DEVIATION = 1e-5


class LinearClassifier(NamedTuple):
    """Logits are ((x - mean) / deviation) · weights + bias."""

    mean: Float[np.ndarray, " r"]
    deviation: Float[np.ndarray, " r"]
    weights: Float[np.ndarray, "r k"]
    bias: Float[np.ndarray, " k"]

    def __call__(self, features: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n k"]:
        return (features - self.mean) / self.deviation @ self.weights + self.bias


class Solver:
    """Fits linear classifiers.

    Attributes:
      strength: what it has one of, e.g. 'l2'.
    """

    strength: ClassVar[str]

    def fit(
        self, train: Examples, strengths: tuple[float, ...], *, num_classes: int
    ) -> list[LinearClassifier]:
        """One classifier for each strength."""
        raise NotImplementedError

    def curve(self, train: Examples, held_out: Examples, *, num_classes: int) -> dict[float, float]:
        """Strength, ascending -> accuracy on the held-out examples."""
        raise NotImplementedError


class Probe(NamedTuple):
    """A classifier fitted to all training examples, and why with this strength.

    Attributes:
      curve: strength -> accuracy on the held-out examples; empty where there was no choice.
    """

    classifier: LinearClassifier
    strength: float
    curve: dict[float, float]


def choose_and_fit(
    solver: Solver,
    train: Examples,
    held_out: Examples | None,
    *,
    num_classes: int,
    strengths: tuple[float, ...] | None,
) -> Probe:
    """Chooses the strength on the held-out examples, and then learns from those, too.

    Of strengths that are equally good the larger one is taken: the stronger penalty, or the larger
    steps. A single one of `strengths` is no choice, and needs no held-out examples.
    """
    if strengths is not None and len(strengths) == 1:
        curve, chosen = {}, strengths[0]
    else:
        curve = solver.curve(train, held_out, num_classes=num_classes)
        chosen = best_of(curve)
    whole = train
    if held_out is not None:
        whole = Examples(*map(np.concatenate, zip(train, held_out, strict=True)))
    [classifier] = solver.fit(whole, (chosen,), num_classes=num_classes)
    if not all(np.isfinite(values).all() for values in (classifier.weights, classifier.bias)):
        raise InputError(
            f"a linear probe with {solver.strength} {chosen:g} does not converge; allowed: other "
            "strengths."
        )
    return Probe(classifier, chosen, curve)


def best_of(curve: dict[float, float]) -> float:
    return max(curve, key=lambda strength: (curve[strength], strength))


def accuracy(classifier: LinearClassifier, examples: Examples) -> float:
    """Nothing of a classifier that diverged: its logits are no numbers, which rank nowhere."""
    with np.errstate(over="ignore", invalid="ignore"):
        logits = classifier(examples.features)
    if not np.isfinite(logits).all():
        return 0.0
    return float(top_k_hits(logits, examples.label, k=1).mean())


def hold_out(examples: Examples, *, share: float, seed: int) -> tuple[Examples, Examples]:
    """All but a random share of the examples, and that share."""
    count = round(share * len(examples.label))
    if not 0 < count < len(examples.label):
        raise InputError(
            f"held_out is {share}, which is {count} of {len(examples.label)} training examples; "
            "allowed: a share that leaves some on either side."
        )
    order = np.random.default_rng(seed).permutation(len(examples.label))
    return examples.at(order[count:]), examples.at(order[:count])


class Scale(NamedTuple):
    mean: Float[np.ndarray, " r"]
    deviation: Float[np.ndarray, " r"]

    @classmethod
    def of(cls, features: Float[np.ndarray, "n r"], *, standardise: bool) -> "Scale":
        """Each channel's own, or nothing at all."""
        if not standardise:
            channels = features.shape[1]
            return cls(np.zeros(channels, np.float32), np.ones(channels, np.float32))
        mean, deviation = features.mean(axis=0), features.std(axis=0) + SMALLEST_DEVIATION
        return cls(mean.astype(np.float32), deviation.astype(np.float32))

    def __call__(self, features: Float[np.ndarray, "n r"]) -> Float[np.ndarray, "n r"]:
        return ((features - self.mean) / self.deviation).astype(np.float32)
