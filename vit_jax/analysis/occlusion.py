"""Occlusion sensitivity (arXiv:1311.2901, section 4.2): what is lost where a part is hidden."""

import flax.linen as nn
from jaxtyping import Array, Float, Int

from vit_jax.core import Variables


def occlusion(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    window: tuple[int, int],
    stride: tuple[int, int] | None = None,
    classes: Int[Array, " b"] | None = None,
    score: str = "probability",
    fill: str = "mean",
    batch_size: int = 64,
) -> Float[Array, "b rows columns"]:
    """Drop of the score where a window around each place is filled; of any model.

    Places are `stride` pixels apart (by default a window), one in each cell of that size, so the
    result is a picture of ceil(H / stride) rows; `pixels_of_patch(model)` is a ViT's window.

    Args:
      score: 'probability' (softmax), 'sigmoid' or 'logit' of the class; without a head it is the
        cosine similarity of the representation to that of the whole image.
      fill: 'mean' (each image's mean colour), 'zero' (after normalisation) or 'blur'.
    """
    raise NotImplementedError
