"""What the head's tokens attend to in each layer and head: rows of the maps, as pictures.

Letters: l layers; b images; H, W, C pixels and channels; h heads; n tokens; r, s rows and columns
of patches.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.analysis.attention import attention_layers
from vit_jax.core import Variables
from vit_jax.models.vit import VisionTransformer


def output_maps(
    model: VisionTransformer,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    layers: Sequence[int] | None = None,
) -> Float[Array, "l b h r s"]:
    """How much of each patch the tokens that the head reads attend to, a picture for each head.

    That is the class token's row of the maps, the mean over the patches' rows, or the mean of both,
    as the model pools; where attention pools, the mean over all rows. A row's weights on tokens in
    front of the patches are left out, and not shared among the patches.

    Memory: that of `attention_layers`.

    Args:
      images: as the model takes them, normalised.
      layers: from 0, or from the end if negative; all by default.
    """
    maps = attention_layers(model, variables, images, layers=layers)
    rows = jnp.stack([_output_rows(model, of_layer) for of_layer in maps])
    patches = rows[..., model.num_prefix :]
    return patches.reshape(*patches.shape[:-1], *model.grid(images.shape[1:3]))


@functools.partial(jax.jit, static_argnames="model")
def _output_rows(model, maps: Float[Array, "b h n n"]) -> Float[Array, "b h n"]:
    token, patches = maps[..., 0, :], maps[..., model.num_prefix :, :].mean(axis=-2)
    return {
        "cls": token,
        "gap": patches,
        "cls_gap": (token + patches) / 2,
        "map": maps.mean(axis=-2),
    }[model.pool]
