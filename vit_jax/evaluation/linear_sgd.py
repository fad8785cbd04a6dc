"""A linear classifier by stochastic gradient descent: linear evaluation on frozen features.

In the manner of DINO (arXiv:2104.14294, eval_linear.py) and MoCo (arXiv:1911.05722,
main_lincls.py): cross-entropy, momentum 0.9, no weight decay, 100 epochs. It is neither of the two
exactly:

    here                                             there
    features of images as for evaluation, once       images are augmented anew in each epoch
    what the model's head reads                      DINO: class tokens of the last 4 layers (S) or
                                                     1 layer with the mean of patches (B)
    the rate falls along a cosine step by step       DINO: once an epoch; MoCo: to a tenth after
                                                     60 and 80 epochs
    rates are scaled by batch / 256                  MoCo: told for batches of 256, not scaled
    the rate is chosen on held-out training images   it is given
    what is told is the last epoch's accuracy        the best epoch's, by the test images
    weights start at zero, since the loss is convex  at small random ones

So its numbers compare models with each other, and with published ones roughly.

    velocity = 0.9 · velocity + gradient;   weights -= rate(step) · velocity
    rate(step) = learning_rate · batch / 256 · (1 + cos(π · step / num_steps)) / 2

All learning rates are trained at once on the same batches. An epoch is a random order of the
examples, of which those that fill no batch are left out. The features lie on one device whole.

Letters: n examples; r channels; k classes; l learning rates; s steps of an epoch; b examples.
"""

import dataclasses
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.evaluation.features import Examples
from vit_jax.evaluation.linear_classifier import LinearClassifier, Scale, Solver, accuracy

MOMENTUM = 0.9
REFERENCE_BATCH = 256  # that learning rates are told for
# Half-decades from DINO's rate to MoCo's.
LEARNING_RATES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GradientDescent(Solver):
    """See the top of this file; tested against its plain loop.

    Attributes:
      strengths: learning rates to choose from; None is `LEARNING_RATES`.
      standardise: each channel by its mean and deviation over the training examples.
      epochs: times that each example is seen.
      examples_per_step: of a batch; no more than there are.
      seed: of the order.
    """

    strength: ClassVar[str] = "learning_rate"

    strengths: tuple[float, ...] | None = None
    standardise: bool = False
    epochs: int = 100
    examples_per_step: int = 1_024
    seed: int = 0

    def __post_init__(self):
        sections.positive_int(self.epochs, "epochs")
        sections.positive_int(self.examples_per_step, "examples_per_step")

    def fit(
        self, train: Examples, strengths: tuple[float, ...], *, num_classes: int
    ) -> list[LinearClassifier]:
        scale = Scale.of(train.features, standardise=self.standardise)
        n, size = len(train.label), min(self.examples_per_step, len(train.label))
        data = jax.device_put((scale(train.features), train.label), jax.local_devices()[0])
        rates = np.asarray(strengths) * (size / REFERENCE_BATCH)
        single = np.finfo(np.float32)
        if (rates < single.tiny).any() or (rates > single.max).any():
            raise InputError(
                f"strengths are {strengths}, for batches of {size} out of single precision's "
                "range; allowed: learning rates such as 0.1."
            )
        rates = rates.astype(np.float32)
        rng, steps = np.random.default_rng(self.seed), n // size
        shape = (len(rates), train.features.shape[1] + 1, num_classes)
        state = _State(np.int32(0), np.zeros(shape, np.float32), np.zeros(shape, np.float32))
        for _ in range(self.epochs):
            order = rng.permutation(n)[: steps * size].reshape(steps, size).astype(np.int32)
            state = _epoch(state, data, order, rates, np.int32(self.epochs * steps))
        return [LinearClassifier(*scale, w[:-1], w[-1]) for w in np.asarray(state.weights)]

    def curve(self, train: Examples, held_out: Examples, *, num_classes: int) -> dict[float, float]:
        rates = tuple(sorted(self.strengths or LEARNING_RATES))
        found = self.fit(train, rates, num_classes=num_classes)
        return {rate: accuracy(c, held_out) for rate, c in zip(rates, found, strict=True)}


class _State(NamedTuple):
    step: Int[Array, ""]
    weights: Float[Array, "l r1 k"]  # the bias last
    velocity: Float[Array, "l r1 k"]


@jax.jit
def _epoch(
    state: _State,
    data: tuple[Float[Array, "n r"], Int[Array, " n"]],
    order: Int[Array, "s b"],
    rates: Float[Array, " l"],
    num_steps: Int[Array, ""],
) -> _State:
    """All steps of an epoch, for all learning rates."""

    def step(state: _State, rows: Int[Array, " b"]) -> tuple[_State, None]:
        features, label = (values[rows] for values in data)
        gradient = jax.vmap(jax.grad(_loss), (0, None, None))(state.weights, features, label)
        velocity = MOMENTUM * state.velocity + gradient
        cosine = (1 + jnp.cos(jnp.pi * state.step / num_steps)) / 2
        weights = state.weights - (rates * cosine)[:, None, None] * velocity
        return _State(state.step + 1, weights, velocity), None

    return jax.lax.scan(step, state, order)[0]


def _loss(weights: Array, features: Array, label: Array) -> Array:
    logits = jnp.matmul(features, weights[:-1], precision=jax.lax.Precision.HIGHEST)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits + weights[-1], label)
    return losses.mean()
