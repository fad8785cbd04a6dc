"""What the head's tokens attend to in each layer and head: rows of the maps, as pictures.

Letters: l layers; b images; H, W, C pixels and channels; h heads; n tokens; r, s rows and columns
of patches.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax.analysis.features import choose_layers
from vit_jax.analysis.heads import check_has_attention, output_weights, read_heads
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

    Rows of the maps, averaged as the head reads their tokens: see `heads.output_weights`. Weights
    on tokens in front of the patches are left out, and not shared among the patches.

    Memory: queries, keys and values of all layers, and b·h·n² numbers.

    Args:
      images: as the model takes them, normalised.
      layers: from 0, or from the end if negative; all by default.
    """
    chosen = choose_layers(check_has_attention(model), layers)
    return _output_maps(model, variables, images, chosen)


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _output_maps(model, variables, images, layers):
    found = read_heads(model, variables, images)
    reads = output_weights(model, found)

    def of_layer(layer):
        return jnp.einsum("bq,bhqk->bhk", reads, layer.weights())

    patches = jax.lax.map(of_layer, found.layers_at(layers))[..., model.num_prefix :]
    return patches.reshape(*patches.shape[:-1], *model.grid(images.shape[1:3]))
