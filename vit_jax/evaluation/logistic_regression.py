"""Multinomial logistic regression with an L2 penalty, by L-BFGS: CLIP's linear probe.

arXiv:2103.00020, appendix A.3. Minimised is

    sum over n of cross_entropy(x·W + b, y)  +  l2 / 2 · |W|²

whose l2 is 1 / C of scikit-learn's LogisticRegression; the bias b has no penalty. Loss and gradient
of all examples are one jitted call, which the devices of this host share, in float32; SciPy's
L-BFGS-B takes the steps, in float64. It stops as soon as no component of the gradient of the
objective divided by n is more than GRADIENT, or a step lowers that by less than PROGRESS, which is
about what float32 can tell of it, or after `max_iterations`, CLIP's 1,000.

The penalty is chosen as CLIP chooses it, by a binary search over its exponent: 10^-6, 10^-4, ...,
10^6 first, and then the neighbours of the best one at half the distance, down to an eighth of a
decade. The paper does not tell how equally good ones are told apart: the stronger penalty is taken.
A fit of the search begins at the weights of the penalty nearest to its own, the final one at zero.

Letters: n examples; r channels of a representation; k classes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from vit_jax import sections
from vit_jax.evaluation.features import Examples
from vit_jax.evaluation.linear_classifier import LinearClassifier, Scale, Solver, accuracy, best_of

GRADIENT = 1e-6
PROGRESS = 1e-7
EXPONENTS = (-6.0, 6.0)
FIRST_DISTANCE = 2.0  # decades
LAST_DISTANCE = 1 / 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogisticRegression(Solver):
    """See the top of this file; tested against scikit-learn's LogisticRegression.

    Attributes:
      strengths: penalties to choose from; None is the binary search.
      standardise: each channel by its mean and deviation over the training examples; CLIP does not.
      max_iterations: of L-BFGS.
    """

    strength: ClassVar[str] = "l2"

    strengths: tuple[float, ...] | None = None
    standardise: bool = False
    max_iterations: int = 1_000

    def __post_init__(self):
        sections.positive_int(self.max_iterations, "max_iterations")

    def fit(
        self, train: Examples, strengths: tuple[float, ...], *, num_classes: int
    ) -> list[LinearClassifier]:
        scale = Scale.of(train.features, standardise=self.standardise)
        objective = _objective(scale(train.features), train.label)
        start = np.zeros((train.features.shape[1] + 1, num_classes), np.float32)
        found = [self._minimise(objective, start, l2) for l2 in strengths]
        return [LinearClassifier(*scale, weights[:-1], weights[-1]) for weights in found]

    def curve(self, train: Examples, held_out: Examples, *, num_classes: int) -> dict[float, float]:
        scale = Scale.of(train.features, standardise=self.standardise)
        objective = _objective(scale(train.features), train.label)
        # With no end of a penalty all weights are nothing.
        known = {math.inf: np.zeros((train.features.shape[1] + 1, num_classes), np.float32)}

        def score(l2: float) -> float:
            nearest = min(known, key=lambda other: abs(math.log(other / l2)))
            weights = known[l2] = self._minimise(objective, known[nearest], l2)
            return accuracy(LinearClassifier(*scale, weights[:-1], weights[-1]), held_out)

        if self.strengths is None:
            return binary_search(score)
        found = {l2: score(l2) for l2 in sorted(self.strengths, reverse=True)}
        return dict(sorted(found.items()))

    def _minimise(
        self, objective: Callable[..., Any], start: Float[np.ndarray, "r1 k"], l2: float
    ) -> Float[np.ndarray, "r1 k"]:
        return minimise(objective, start, l2=l2, max_iterations=self.max_iterations)


def binary_search(score: Callable[[float], float]) -> dict[float, float]:
    """Penalty, ascending -> its score, of those that the search comes upon."""
    low, high = EXPONENTS
    first = np.arange(high, low - 1, -FIRST_DISTANCE).tolist()
    found = {exponent: score(10**exponent) for exponent in first}
    distance = FIRST_DISTANCE
    while distance > LAST_DISTANCE:
        distance /= 2
        peak = best_of(found)
        for exponent in (peak - distance, peak + distance):
            if low <= exponent <= high and exponent not in found:
                found[exponent] = score(10**exponent)
    return {10**exponent: found[exponent] for exponent in sorted(found)}


def minimise(
    objective: Callable[[np.ndarray, float], tuple[Array, Array]],
    start: Float[np.ndarray, "r1 k"],
    *,
    l2: float,
    max_iterations: int,
) -> Float[np.ndarray, "r1 k"]:
    """The weights, the bias last."""
    from scipy.optimize import minimize

    def of_flat(flat: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = objective(flat.reshape(start.shape).astype(np.float32), l2)
        return float(value), np.asarray(gradient, np.float64).ravel()

    options = dict(maxiter=max_iterations, maxfun=20 * max_iterations)
    options |= dict(gtol=GRADIENT, ftol=PROGRESS)
    first = start.astype(np.float64).ravel()
    found = minimize(of_flat, first, jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape).astype(np.float32)


def _objective(
    features: Float[np.ndarray, "n r"], label: Int[np.ndarray, " n"]
) -> Callable[[np.ndarray, float], tuple[Array, Array]]:
    """Of examples that lie on this host's devices, in equal shares."""
    devices = jax.local_devices()
    share = NamedSharding(Mesh(np.asarray(devices), ("examples",)), PartitionSpec("examples"))
    lacking = -len(label) % len(devices)
    counts = np.pad(np.ones(len(label), np.float32), (0, lacking))  # padding does not
    rows = (np.pad(features, ((0, lacking), (0, 0))), np.pad(label, (0, lacking)), counts)
    return functools.partial(_value_and_gradient, jax.device_put(rows, share))


@jax.jit
def _value_and_gradient(
    rows: tuple[Array, Array, Array], weights: Float[Array, "r1 k"], l2: float | Array
) -> tuple[Array, Array]:
    features, label, counts = rows

    def objective(weights: Array) -> Array:
        logits = jnp.matmul(features, weights[:-1], precision=jax.lax.Precision.HIGHEST)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits + weights[-1], label)
        penalty = l2 / 2 * (weights[:-1] ** 2).sum()
        return ((losses * counts).sum() + penalty) / counts.sum()

    return jax.value_and_grad(objective)(weights)
