"""What the attention of whole encoders comes to, in the memory of one layer's maps.

`attention.attention_maps` keeps the maps of all layers that are asked for; where images are large
those do not fit. Here each layer's maps are made, reduced to what is wanted, and let go. The laws
are those of `attention`; memory is b·h·n² numbers, and queries and keys of all layers.

Letters: l layers; b images; H, W, C pixels and channels; h heads; n tokens, the last m of them
patches; r, s rows and columns of the grid.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.analysis import attention
from vit_jax.analysis.features import choose_layers
from vit_jax.core import Variables
from vit_jax.layers.attention import attention_weights
from vit_jax.models.vit import VisionTransformer


def maps_of_output(
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

    Args:
      images: as the model takes them, normalised.
      layers: from 0, or from the end if negative; all by default.
    """
    model = attention.check_has_attention(model)
    return _maps_of_output(model, variables, images, choose_layers(model, layers))


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _maps_of_output(model, variables, images, layers):
    grid = model.grid(images.shape[1:3])
    heads = jax.tree.map(lambda x: x[np.asarray(layers)], _heads(model, variables, images))

    def of_layer(layer):
        rows = read_rows(model, _weights(layer))
        return rows[..., model.num_prefix :].reshape(*rows.shape[:2], *grid)

    return jax.lax.map(of_layer, heads)


def read_rows(
    model: VisionTransformer, maps: Float[Array, "*layers n n"]
) -> Float[Array, "*layers n"]:
    """The rows of those tokens that the head reads, averaged; see `attention.rollout_of_output`."""
    patches = maps[..., model.num_prefix :, :].mean(axis=-2)
    return {
        "cls": lambda: maps[..., 0, :],
        "gap": lambda: patches,
        "cls_gap": lambda: (maps[..., 0, :] + patches) / 2,
        "map": lambda: maps.mean(axis=-2),
    }[model.pool]()


@functools.partial(jax.jit, static_argnames=("model", "residual"))
def rollout(
    model: VisionTransformer,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    residual: float = attention.RESIDUAL,
) -> Float[Array, "b n n"]:
    """`attention.attention_rollout` of all layers' maps."""

    def add_layer(rolled, layer):
        step = attention.attention_rollout(_weights(layer)[None], residual=residual)
        return step @ rolled, None

    heads = _heads(model, variables, images)
    identity = jnp.eye(heads[0].shape[2])
    first = jnp.broadcast_to(identity, (len(images), *identity.shape))
    return jax.lax.scan(add_layer, first, heads)[0]


@functools.partial(jax.jit, static_argnames="model")
def distances(
    model: VisionTransformer, variables: Variables, images: Float[Array, "b H W C"]
) -> Float[Array, "l h"]:
    """`attention.attention_distance` of all layers' maps, in pixels."""
    grid, patch_size = model.grid(images.shape[1:3]), attention.pixels_of_patch(model)

    def of_layer(layer):
        (found,) = attention.attention_distance(
            _weights(layer)[None], grid, patch_size, num_prefix=model.num_prefix
        )
        return found

    return jax.lax.map(of_layer, _heads(model, variables, images))


def _heads(model, variables, images):
    """Queries and keys f[l, b, n, h, d], and a bias of the scores or None."""
    _, kept = model.apply(variables, images, mutable=["intermediates"])
    ((query, key, _, bias),) = kept["intermediates"]["encoder"]["blocks"]["attention"]["heads"]
    return query, key, bias


def _weights(layer):
    query, key, bias = (None if x is None else x.astype(jnp.float32) for x in layer)
    return attention_weights(query, key, None, bias)
