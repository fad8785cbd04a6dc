"""What a trained ViT attends to: maps, their rollout to the input, and how far they reach.

Maps are computed from the queries and keys of a forward pass, so they can be had of a model that
trained with a kernel which never stores them. The laws:

    maps      softmax(query · keyᵀ / sqrt(d) + bias), as in `layers.attention`
    rollout   R = A_l ... A_2 A_1 with A_i = (1 - r) · mean over heads of maps_i + r · identity and
              r = 1/2 for the residual connection (arXiv:2005.00928, section 3), rows made to sum to
              one; row q says how much of each token of the input there is in token q after layer l.
              Figure 6 of arXiv:2010.11929 shows the class token's row.
    distance  sum over keys of map[query, key] · |place(query) - place(key)| in pixels, averaged
              over queries and images (arXiv:2010.11929, Figures 7 and 11). Places are centres of
              patches. Tokens in front of the patches have none: they are left out as queries and
              as keys, and each query's weights on patches are made to sum to one.

Letters: l layers; b images; h heads; n tokens, the last m of them patches, numbered row by row;
p, q height and width of a patch in pixels.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.analysis.features import choose_layers
from vit_jax.analysis.heads import Layer, check_has_attention, output_weights, read_heads
from vit_jax.core import Variables
from vit_jax.errors import InputError
from vit_jax.layers.stem import STRIDES
from vit_jax.models.vit import VisionTransformer

RESIDUAL = 0.5  # the share of a token that a layer passes by, arXiv:2005.00928


def attention_maps(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    layers: Sequence[int] | None = None,
) -> Float[Array, "l b h n n"]:
    """Weights of each query (second to last axis) on each key (last) in the encoder's layers.

    Memory: l·b·h·n² numbers for the layers asked for, and queries and keys of all layers.

    Args:
      variables: {'params': ..., other collections}.
      images: as the model takes them, normalised.
      layers: from 0, or from the end if negative; all by default.

    Raises:
      InputError: for a model without attention, or a layer that it does not have.
    """
    chosen = choose_layers(check_has_attention(model), layers)
    return _maps(model, variables, images, chosen)


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _maps(model, variables, images, layers):
    found = read_heads(model, variables, images)
    return jax.lax.map(Layer.weights, found.layers_at(layers))


def attention_rollout(
    maps: Float[Array, "l b h n n"], *, residual: float = RESIDUAL
) -> Float[Array, "b n n"]:
    """How much of each token of the input is in each token after the last of these layers."""
    _check_residual(residual)
    if not len(maps):
        raise InputError("there are maps of 0 layers; allowed: 1 or more.")
    mixing = (1 - residual) * maps.mean(axis=2) + residual * jnp.eye(maps.shape[-1])
    mixing = mixing / mixing.sum(axis=-1, keepdims=True)
    return functools.reduce(lambda rolled, layer: layer @ rolled, mixing)


def _check_residual(residual: float) -> None:
    if not 0 <= residual < 1:
        raise InputError(f"residual is {residual}; allowed: 0 or more, less than 1.")


@functools.partial(jax.jit, static_argnames=("model", "residual"))
def output_rollout(
    model: VisionTransformer,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    residual: float = RESIDUAL,
) -> Float[Array, "b rows columns"]:
    """The patches' share in what the head reads, from images: rows of the rollout alone.

    What the head reads is one row: with weights w of the tokens after the last layer it is w·R, and
    w·R = (w·A_l)·A_{l-1}..., so that no product of two maps is needed.

    See `heads.output_weights`.

    Memory: queries, keys and values of all layers, and b·h·n² numbers.
    """
    _check_residual(residual)
    found = read_heads(check_has_attention(model), variables, images)

    def step(row, layer):
        attended = jnp.einsum("bq,bqk->bk", row, layer.weights().mean(axis=1))
        return (1 - residual) * attended + residual * row, None

    row, _ = jax.lax.scan(step, output_weights(model, found), found.layers, reverse=True)
    return as_grid(model, row, images)


def as_grid(
    model: VisionTransformer, tokens: Float[Array, "b n"], images: Float[Array, "b H W C"]
) -> Float[Array, "b rows columns"]:
    """One number for each patch, where it lies in the image."""
    return tokens[:, model.num_prefix :].reshape(-1, *model.grid(images.shape[1:3]))


def attention_distance(
    maps: Float[Array, "l b h n n"],
    grid: tuple[int, int],
    patch_size: tuple[int, int],
    *,
    num_prefix: int = 0,
) -> Float[Array, "l h"]:
    """Mean attention distance of each head in pixels; see the top of this file.

    Args:
      grid: rows and columns of patches.
      patch_size: pixels of the image from one patch to the next; `pixels_of_patch`.
      num_prefix: tokens in front of the patches; `model.num_prefix`.

    Returns:
      NaN of a head where a patch has no weight on any.
    """
    check_grid(grid, num_tokens=maps.shape[-1], num_prefix=num_prefix)
    distances = patch_distances(grid, patch_size)
    weights = maps[..., num_prefix:, num_prefix:]
    total = weights.sum(axis=-1)
    reach = (weights * distances).sum(axis=-1) / jnp.where(total == 0, jnp.nan, total)
    return reach.mean(axis=(1, 3))


@functools.partial(jax.jit, static_argnames="model")
def attention_distances(
    model: VisionTransformer, variables: Variables, images: Float[Array, "b H W C"]
) -> Float[Array, "l h"]:
    """`attention_distance` from images: of all layers, with one's maps in memory at a time."""
    found = read_heads(check_has_attention(model), variables, images)
    grid, patch_size = model.grid(images.shape[1:3]), pixels_of_patch(model)

    def of_layer(layer):
        maps = layer.weights()[None]
        return attention_distance(maps, grid, patch_size, num_prefix=model.num_prefix)[0]

    return jax.lax.map(of_layer, found.layers)


def check_grid(grid: tuple[int, int], *, num_tokens: int, num_prefix: int) -> None:
    """Raises `InputError` where these are not the patches of such a grid and what is in front."""
    if num_prefix + math.prod(grid) != num_tokens:
        raise InputError(
            f"a grid of {grid[0]}×{grid[1]} patches and {num_prefix} tokens in front of them are "
            f"{num_prefix + math.prod(grid)} tokens, but there are {num_tokens}; allowed: the "
            "grid of the image, and the model's num_prefix."
        )


def distance_trend(distance: Float[Array, "l h"]) -> float:
    """Does attention reach further in deeper layers? Spearman's correlation, from -1 to 1.

    Of a layer's number with the rank of its distance, averaged over heads.
    """
    means = np.asarray(distance).mean(axis=1)
    if len(means) < 2:
        raise InputError(f"there are distances of {len(means)} layer; allowed: 2 or more layers.")
    if np.ptp(means) == 0:  # a network before training, as a rule: nothing grows
        return 0.0
    from scipy.stats import spearmanr  # slow to import

    return float(spearmanr(np.arange(len(means)), means).statistic)


def patch_distances(grid: tuple[int, int], patch_size: tuple[int, int]) -> Float[np.ndarray, "m m"]:
    """Pixels between the centres of each two patches."""
    places = np.indices(grid).reshape(2, -1).T * np.asarray(patch_size, float)  # [m, 2]
    return np.sqrt(((places[:, None] - places) ** 2).sum(axis=-1))


def pixels_of_patch(model: VisionTransformer) -> tuple[int, int]:
    """Height and width of a patch in pixels of the image, also behind a stem's convolutions."""
    stride = STRIDES[model.stem] if model.stem else 1
    return model.patch_size[0] * stride, model.patch_size[1] * stride
