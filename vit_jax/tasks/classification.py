"""Image classification with softmax or sigmoid cross-entropy.

Letters: b examples; h, w, c pixels and channels; k classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from vit_jax import models, sections
from vit_jax.core import Aux, Batch, Mean, Outputs, Task, TrainState, Tree, Variables
from vit_jax.data.mixing import Mixing
from vit_jax.errors import InputError
from vit_jax.losses import accuracy
from vit_jax.tasks import pixels
from vit_jax.tasks.randomness import MIXING, step_key

LOSSES = {
    # Targets f32[b, k] sum to one over k; the result is f32[b].
    "softmax": optax.softmax_cross_entropy,
    # One binary question a class, summed (arXiv:2006.07159).
    "sigmoid": lambda logits, target: optax.sigmoid_binary_cross_entropy(logits, target).sum(-1),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """Batches hold `image` uint8[b, h, w, c], `mask` bool[b], and `label` int32[b] or, where an
    example may have several, `labels` f32[b, k] of 0 and 1."""

    model: nn.Module
    num_classes: int
    mean: tuple[float, ...]  # of a channel, in units of the range [0, 1]
    std: tuple[float, ...]
    loss_name: str = "softmax"
    label_smoothing: float = 0.0
    mixing: Mixing = dataclasses.field(default_factory=Mixing)

    def init(self, rng: Array, batch: Batch) -> Variables:
        return self.model.init(rng, self.normalise(batch["image"]))

    def loss(
        self, params: Tree, state: TrainState, batch: Batch, rng: Array, *, train: bool
    ) -> tuple[Mean, Aux]:
        """Cross-entropy; metrics top1 and top5 count the unmixed label."""
        image, target, mask = self.examples(state, batch, train=train)
        output, model_state = self.apply(params, state, image, rng, train=train)
        loss = Mean.of(LOSSES[self.loss_name](output.logits, target), mask)
        return loss, Aux(model_state, accuracy.of_batch(output.logits, batch), {})

    def examples(self, state: TrainState, batch: Batch, *, train: bool) -> tuple[Array, ...]:
        """Pixels [b, h, w, c], targets f32[b, k], rows that count; mixed and smoothed to train."""
        image, target, mask = batch["image"], self.target(batch), self.counted(batch)
        if train:
            image, target = self.mixing(step_key(state, MIXING), image, target, mask)
            target = optax.smooth_labels(target, self.label_smoothing)
        return image, target, mask

    def apply(self, params: Tree, state: TrainState, image: Array, rng: Array, *, train: bool):
        """The model's output for pixels, and its other collections after it."""
        variables, others = {"params": params, **state.model_state}, list(state.model_state)
        image, rngs = self.normalise(image), {"dropout": rng}
        return self.model.apply(variables, image, train=train, rngs=rngs, mutable=others)

    def target(self, batch: Batch) -> Float[Array, "b k"]:
        """Rows sum to one, but for several labels under the sigmoid, which asks for each alone."""
        if "label" in batch:
            return jax.nn.one_hot(batch["label"], self.num_classes)
        if "labels" not in batch:
            found = ", ".join(sorted(batch))
            raise InputError(f"the data's examples have {found}; allowed: with label or labels.")
        labels = batch["labels"]
        if self.loss_name == "sigmoid":
            return labels
        return labels / jnp.maximum(labels.sum(-1, keepdims=True), 1)

    def counted(self, batch: Batch) -> Bool[Array, " b"]:
        """Rows of which a loss can be told: for the softmax, those with a label."""
        if "label" in batch or self.loss_name == "sigmoid":
            return batch["mask"]
        return batch["mask"] & batch["labels"].any(-1)

    def predict(self, variables: Variables, batch: Batch, rng: Array) -> Outputs:
        """Representation f32[b, r]; of a model with a head logits f32[b, k] and probabilities."""
        output = self.model.apply(variables, self.normalise(batch["image"]))
        found = {"representation": output.representation}
        if output.logits is None:
            return found
        activation = {"softmax": jax.nn.softmax, "sigmoid": jax.nn.sigmoid}[self.loss_name]
        return {**found, "logits": output.logits, "probabilities": activation(output.logits)}

    def normalise(self, image: Array) -> Float[Array, "b h w c"]:
        """Pixels to float32 with the stated mean and standard deviation."""
        return pixels.normalise(image, self.mean, self.std)


def build(
    *,
    model: Mapping[str, Any],
    info: Any,
    num_classes: int | None = None,
    loss: str = "softmax",
    label_smoothing: float = 0.0,
    mixing: Mapping[str, Any] | None = None,
) -> Classification:
    """The task that `config.task` describes.

    Args:
      model: keys of the model's builder, and `name`.
      info: the data set: its `class_names` and its `preprocessing` (mean, std).
      num_classes: classes of the head, those of the data; 0 where neither has any: such a model
        is measured by its representation.
      loss: 'softmax' or 'sigmoid'.
      label_smoothing: share of the target spread evenly over the classes.
      mixing: keys of `Mixing`.
    """
    sections.choose(LOSSES, loss, where="config.task.loss")
    if not 0 <= label_smoothing < 1:
        raise InputError(
            f"config.task.label_smoothing is {label_smoothing}; allowed: 0 <= share < 1."
        )
    found = len(info.class_names)
    _check_batch(info.batch, found if num_classes is None else 1)
    if num_classes is not None and num_classes != found:
        raise InputError(
            f"config.task.num_classes is {num_classes}, but the data has {found} classes "
            f"({', '.join(info.class_names[:5])}{', ...' if found > 5 else ''}); allowed: {found}."
        )
    return Classification(
        model=models.of_task(model, num_classes=found),
        num_classes=found,
        mean=tuple(info.preprocessing.mean),
        std=tuple(info.preprocessing.std),
        loss_name=loss,
        label_smoothing=label_smoothing,
        mixing=sections.call(Mixing, mixing or {}, where="config.task.mixing"),
    )


def _check_batch(batch: Mapping[str, Any], num_classes: int):
    """Raises `InputError` where the task's images, its labels or all classes are missing."""
    found = ", ".join(sorted(batch))
    if "image" not in batch:
        raise InputError(
            f"the data's examples have {found}; allowed for classification: with image, so without "
            "config.data.augment.multi_crop."
        )
    if "label" not in batch and "labels" not in batch:
        raise InputError(f"the data's examples have {found}; allowed: with label or labels.")
    if not num_classes:
        raise InputError("the data has no classes, as no example has a label; allowed: 1 or more.")
