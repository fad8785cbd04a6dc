"""Which patches tell what a ViT says: relevance of patches, by methods with one interface.

    relevance       gradient-weighted attention (arXiv:2103.15679, section 3): with A a layer's maps
                    and ∇A the gradient of what is explained by them,

                        Ā = mean over heads of (∇A ⊙ A)⁺        (equation 5)
                        R ← R + Ā·R, from R = identity up       (equation 6)

                    of which the rows that the head reads are shown. Where attention pools, its own
                    Ā is that row: equation 10 without its normalisation.
    gradient_input  gradient times input, summed over a patch: to first order, the loss if it were
                    grey; of either sign.
    rollout         attention rollout (arXiv:2005.00928), as in Figure 6 of arXiv:2010.11929.
    attention       the map of the last layer alone, of what the head reads, averaged over heads
                    (as arXiv:2104.14294 shows the class token's).

∇A needs no kernel that stores A. Attention gives out[q] = Σ_k A[q, k]·value[k], so with g the
gradient at `out`, which zeros added there tell, ∇A[q, k] = Σ_d g[q, d]·value[k, d]. One forward and
one backward pass leave queries, keys, values and g, all linear in the tokens; then a row vector r,
at first what the head reads, walks r ← r + r·Ā from the last layer down: r·(1 + Ā_l)...(1 + Ā_1).
So one layer's maps are in memory at a time, whatever kernel the model runs.

Letters: l layers; b images; h heads; n tokens, q and k of them; d channels of a head; H, W, C
pixels and channels; rows, columns of patches.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vit_jax.analysis.attention import as_grid, output_rollout, pixels_of_patch
from vit_jax.analysis.heads import (
    Heads,
    Layer,
    check_has_attention,
    find_heads,
    output_weights,
    read_heads,
    rolled,
    with_distillation,
)
from vit_jax.analysis.scores import check_classes, explained
from vit_jax.core import Variables
from vit_jax.errors import InputError
from vit_jax.models.vit import VisionTransformer

Method = Callable[..., Float[Array, "b rows columns"]]


def attention_relevance(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    classes: Int[Array, " b"] | None = None,
) -> Float[Array, "b rows columns"]:
    """Gradient-weighted attention, 0 or more; see the top of this file.

    Tested against a dense implementation of the rule in the authors' code,
    hila-chefer/Transformer-MM-Explainability.

    Args:
      images: as the model takes them, normalised.
      classes: whose logits are explained; by default each image's predicted one. None for a model
        without a head, see `scores.explained`.
    """
    return _relevance(model, variables, images, _check(model, images, classes))


@functools.partial(jax.jit, static_argnames="model")
def _relevance(model, variables, images, classes):
    heads, gradients = backward(model, variables, images, classes)
    if heads.pool is None:
        row = output_weights(model, heads)
    else:
        row = with_distillation(model, weigh(heads.pool, gradients.pool)[:, 0])

    def step(row, layer):
        return row + jnp.einsum("bq,bqk->bk", row, weigh(*layer)), None

    row, _ = jax.lax.scan(step, row, (heads.layers, gradients.layers), reverse=True)
    return as_grid(model, row, images)


def weigh(layer: Layer, gradient: Float[Array, "b q h d"]) -> Float[Array, "b q k"]:
    """Ā of one layer, from the gradient at what its attention gives."""
    of_map = jnp.einsum(
        "bqhd,bkhd->bhqk", gradient.astype(jnp.float32), layer.value.astype(jnp.float32)
    )
    return jnp.maximum(of_map * layer.weights(), 0).mean(axis=1)


class Gradients(NamedTuple):
    """Of what is explained, at what attention gives in each layer, and in the head."""

    layers: Float[Array, "l b n h d"]
    pool: Float[Array, "b 1 h d"] | None


def backward(
    model: VisionTransformer,
    variables: Variables,
    images: Float[Array, "b H W C"],
    classes: Int[Array, " b"] | None,
) -> tuple[Heads, Gradients]:
    """One forward and one backward pass; a part of what is to be compiled."""
    lean = sparing(model)

    def target(gradients):
        added = {"encoder": {"blocks": {"attention": {"attended": gradients.layers}}}}
        if gradients.pool is not None:
            added["pool"] = {"attention": {"attended": gradients.pool}}
        output, kept = lean.apply(
            {**variables, "perturbations": added}, images, mutable=["intermediates"]
        )
        heads = find_heads(model, variables, kept["intermediates"])
        return explained(output, classes).sum(), heads  # images do not see each other

    shapes = jax.eval_shape(functools.partial(read_heads, model), variables, images)
    pool = None if shapes.pool is None else jnp.zeros_like(shapes.pool.query)
    zeros = Gradients(jnp.zeros_like(shapes.layers.query), pool)
    gradients, heads = jax.grad(target, has_aux=True)(zeros)
    return heads, gradients


def sparing(model: VisionTransformer) -> VisionTransformer:
    """The same function, whose backward pass keeps nothing of a layer but its input."""
    return rolled(model).clone(remat="full")


def gradient_times_input(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    classes: Int[Array, " b"] | None = None,
) -> Float[Array, "b rows columns"]:
    """Gradient times input, summed over each patch's pixels; arguments of `attention_relevance`.

    Of a patch embedding that is linear it equals the same of its tokens, but for the bias.
    """
    return _gradient_times_input(model, variables, images, _check(model, images, classes))


@functools.partial(jax.jit, static_argnames="model")
def _gradient_times_input(model, variables, images, classes):
    def target(images):
        return explained(sparing(model).apply(variables, images), classes).sum()

    product = (jax.grad(target)(images) * images).sum(axis=-1)
    grid, patch_size = model.grid(images.shape[1:3]), pixels_of_patch(model)
    rows, columns = (
        jax.nn.one_hot(jnp.arange(size) // patch, count, dtype=product.dtype)
        for size, patch, count in zip(product.shape[1:], patch_size, grid, strict=True)
    )
    return jnp.einsum("byx,yr,xc->brc", product, rows, columns)


def rollout(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    classes: Int[Array, " b"] | None = None,
) -> Float[Array, "b rows columns"]:
    """`attention.output_rollout`, which is the same for all classes."""
    _check(model, images, classes)
    return output_rollout(model, variables, images)


def last_attention(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    classes: Int[Array, " b"] | None = None,
) -> Float[Array, "b rows columns"]:
    """Weights of patches in the last map before the head, which are the same for all classes."""
    _check(model, images, classes)
    return _last_attention(model, variables, images)


@functools.partial(jax.jit, static_argnames="model")
def _last_attention(model, variables, images):
    heads = read_heads(model, variables, images)
    row = output_weights(model, heads)
    if heads.pool is None:  # else the head's own map is the last
        last = jax.tree.map(lambda x: x[-1], heads.layers)
        row = jnp.einsum("bq,bqk->bk", row, last.weights().mean(axis=1))
    return as_grid(model, row, images)


def _check(model, images, classes):
    """The classes, if the model is one that can be explained by them."""
    num_classes = check_has_attention(model).num_classes
    if classes is None:
        return None
    if not num_classes:
        raise InputError("classes are given, but the model has no head; allowed: None.")
    return check_classes(classes, len(images), num_classes)


METHODS: dict[str, Method] = {
    "relevance": attention_relevance,
    "gradient_input": gradient_times_input,
    "rollout": rollout,
    "attention": last_attention,
}
