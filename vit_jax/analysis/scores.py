"""What of a model's output is explained, and what is left of it in images that were changed.

The field explains a class's logit, and measures by its probability. A model without a head is
explained by its representation f: f(x) · f(x) with one factor held fixed, which is the "label-free"
functional of arXiv:2203.01928, and measured by the cosine between the representations of the whole
and of the changed image, as in arXiv:2112.10161.

Letters: b images; p changed images; k classes; r channels of a representation; H, W, C pixels.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from vit_jax import sections
from vit_jax.analysis.heads import runnable
from vit_jax.core import Tree, Variables
from vit_jax.errors import InputError


def explained(output: Any, classes: Int[Array, " b"] | None) -> Float[Array, " b"]:
    """The logit of the class, by default the predicted one; without a head f · f, one f fixed."""
    if output.logits is None:
        f = output.representation.astype(jnp.float32)
        return (f * jax.lax.stop_gradient(f)).sum(axis=-1)
    classes = output.logits.argmax(axis=-1) if classes is None else classes
    return _of_class(output.logits, classes)


def _of_class(values: Float[Array, "b k"], classes: Int[Array, " b"]) -> Float[Array, " b"]:
    return jnp.take_along_axis(values, classes[:, None], axis=1)[:, 0]


def _similarity(output: Any, whole: Float[Array, "p r"]) -> Float[Array, " p"]:
    found = output.representation.astype(jnp.float32)
    norms = jnp.linalg.norm(found, axis=-1) * jnp.linalg.norm(whole, axis=-1)
    return (found * whole).sum(axis=-1) / jnp.maximum(norms, 1e-12)


# (output of p images, their classes or their whole images' representations) -> [p]
SCORES: dict[str, Callable[..., Array]] = {
    "probability": lambda output, classes: _of_class(jax.nn.softmax(output.logits), classes),
    "sigmoid": lambda output, classes: _of_class(jax.nn.sigmoid(output.logits), classes),
    "logit": lambda output, classes: _of_class(output.logits, classes),
    "similarity": _similarity,
}
SIMILARITY = "similarity"


class Scorer:
    """Scores changed images of these.

    Args:
      images: as the model takes them, normalised; of any model whose output has `logits` and
        `representation`.
      classes: by default each image's predicted one.
      score: a name in `SCORES`; by default 'probability', or 'similarity' without a head.
      batch_size: images that pass at a time.

    Attributes:
      whole: scores of the images as they are.
    """

    def __init__(
        self,
        model: nn.Module,
        variables: Variables,
        images: Float[Array, "b H W C"],
        *,
        classes: Int[Array, " b"] | None = None,
        score: str | None = None,
        batch_size: int = 64,
    ):
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}; allowed: 1 or more.")
        model = runnable(model)
        self._model, self._variables, self._batch_size = model, variables, batch_size
        output = _outputs(model, variables, images, batch_size)
        self.score = score or (SIMILARITY if output.logits is None else "probability")
        of_output = sections.choose(SCORES, self.score, where="score")
        self._reference = _reference(output, classes, self.score)
        self.whole = of_output(output, self._reference)

    def __call__(
        self, change: Callable[..., Array], count: int, inputs: Tree
    ) -> Float[Array, "b count"]:
        """Scores of `count` changes of each image.

        Args:
          change: (inputs, images [p], changes [p]) -> the changed images [p, H, W, C]; a function
            of a file, or it is compiled again at each call.
          inputs: arrays.
        """
        settings = (self._model, change, count, self.score, self._batch_size)
        return _score_changes(*settings, self._variables, inputs, self._reference)


class Kept(NamedTuple):
    """Of a model's output."""

    representation: Float[Array, "b r"]
    logits: Float[Array, "b k"] | None


@functools.partial(jax.jit, static_argnames=("model", "batch_size"))
def _outputs(model, variables, images, batch_size):
    def of_some(index):
        output = model.apply(variables, images[index])
        return Kept(output.representation.astype(jnp.float32), output.logits)

    return in_batches(of_some, len(images), batch_size)


@functools.partial(jax.jit, static_argnums=range(5))
def _score_changes(model, change, count, score, batch_size, variables, inputs, reference):
    def of_some(index):
        image, number = jnp.divmod(index, count)
        output = model.apply(variables, change(inputs, image, number))
        return SCORES[score](output, reference[image])

    return in_batches(of_some, len(reference) * count, batch_size).reshape(-1, count)


def _reference(output: Kept, classes: Int[Array, " b"] | None, score: str) -> Array:
    """What a score compares with: classes, or the representation of the whole images."""
    if score == SIMILARITY:
        if classes is not None:
            raise InputError("classes are given, but score is 'similarity'; allowed: None.")
        return output.representation
    if output.logits is None:
        raise InputError(f"score is {score!r}, but the model has no head; allowed: 'similarity'.")
    if classes is None:
        return output.logits.argmax(axis=-1)
    return check_classes(classes, *output.logits.shape)


def check_classes(classes: Int[Array, " b"], num_images: int, num_classes: int) -> Array:
    classes = np.asarray(classes)
    is_inside = (classes >= 0) & (classes < num_classes)
    if classes.shape != (num_images,) or not is_inside.all():
        raise InputError(
            f"classes are {classes.tolist()}; allowed: for each of {num_images} images one from 0 "
            f"to {num_classes - 1}."
        )
    return jnp.asarray(classes)


def in_batches(function: Callable[..., Tree], count: int, batch_size: int) -> Tree:
    """What `function` makes of the numbers from 0 to `count`, so many at a time: trees [count ...].

    The last batch is filled up, since a compiled loop has steps of one size.
    """
    size = min(batch_size, count)
    index = jnp.arange(-(-count // size) * size) % count
    found = jax.lax.map(function, index.reshape(-1, size))
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:count], found)
