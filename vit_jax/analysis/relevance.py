"""Which patches tell what a ViT says: relevance of patches, by several methods.

Letters: b images; H, W, C pixels and channels; rows, columns of patches.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float, Int

from vit_jax.core import Variables


def attention_relevance(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    classes: Int[Array, " b"] | None = None,
) -> Float[Array, "b rows columns"]:
    """Gradient-weighted attention (arXiv:2103.15679, section 3); 0 or more.

    Args:
      images: as the model takes them, normalised.
      classes: whose logits are explained; by default each image's predicted one. Of a model
        without a head the representation's likeness to itself is (arXiv:2203.01928).
    """
    raise NotImplementedError


def gradient_times_input(model, variables, images, *, classes=None):
    """Gradient times input, summed over each patch's pixels; of either sign."""
    raise NotImplementedError


def rollout(model, variables, images, *, classes=None):
    """Attention rollout (arXiv:2005.00928); the same for every class."""
    raise NotImplementedError


def last_attention(model, variables, images, *, classes=None):
    """What the head reads attends to this in the last layer; the same for every class."""
    raise NotImplementedError


METHODS: dict[str, Callable[..., Any]] = {
    "relevance": attention_relevance,
    "gradient_input": gradient_times_input,
    "rollout": rollout,
    "attention": last_attention,
}
