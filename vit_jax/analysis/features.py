"""What layers make of images: tokens of each, their principal components, and maps of many images.

Layers are a ViT's or Mixer's blocks and a ResNet's stages, in their order, each with its features
at places of a grid and, of a ViT, with the tokens in front of them. The colouring by the first
three principal components is that of DINOv2 (arXiv:2304.07193, section 7.6), without its second
step, which leaves out the background.

Letters: b images; H, W, C pixels and channels; r, s rows and columns of the grid; m = r·s patches;
p tokens in front of them; c width; n examples; k components.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax import sections
from vit_jax.analysis.heads import runnable
from vit_jax.core import Variables
from vit_jax.errors import InputError
from vit_jax.layers.embed import grid_size
from vit_jax.models.mixer import Mixer
from vit_jax.models.resnet import ResNet
from vit_jax.models.vit import VisionTransformer

PERPLEXITY, NEIGHBOURS = 30, 15  # of t-SNE and UMAP: the defaults of their libraries
OUTLIERS = 1  # per cent of the tokens at either end, which all have the outermost colours


class LayerTokens(NamedTuple):
    """What a layer passes on to the next."""

    patches: Float[Array, "b r s c"]
    prefix: Float[Array, "b p c"]  # tokens in front of the patches


def layer_names(model: nn.Module) -> list[str]:
    """'0', '1', ... of blocks; 'stage1', 'stage2', ... of a ResNet."""
    if isinstance(model, ResNet):
        return [f"stage{i + 1}" for i in range(len(model.stages))]
    if isinstance(model, VisionTransformer | Mixer):
        return [str(i) for i in range(model.depth)]
    raise InputError(
        f"a {type(model).__name__} tells no layers; allowed: a VisionTransformer, a Mixer, a "
        "ResNet."
    )


def choose_layers(model: nn.Module, layers: Sequence[int] | None) -> tuple[int, ...]:
    """Positions in `layer_names`; negative ones count from the end, None is all."""
    depth = len(layer_names(model))
    chosen = tuple(range(depth)) if layers is None else tuple(layers)
    if strange := [i for i in chosen if not -depth <= i < depth]:
        raise InputError(f"layers has {strange[0]}; allowed: {-depth} to {depth - 1}.")
    if not chosen:
        raise InputError(f"layers is empty; allowed: some of {-depth} to {depth - 1}.")
    return tuple(i % depth for i in chosen)


def layer_tokens(
    model: nn.Module,
    variables: Variables,
    images: Float[Array, "b H W C"],
    *,
    layers: Sequence[int] | None = None,
) -> list[LayerTokens]:
    """Tokens behind these layers, in this order; see `choose_layers`.

    Args:
      images: as the model takes them, normalised.
    """
    chosen = choose_layers(model, layers)
    return _layer_tokens(runnable(model), variables, images, chosen)


@functools.partial(jax.jit, static_argnames=("model", "layers"))
def _layer_tokens(model, variables, images, layers):
    _, kept = model.apply(variables, images, mutable=["intermediates"])
    every = _tokens_of(model, kept["intermediates"], images.shape[1:3])
    return [every[i] for i in layers]


def _tokens_of(model, kept, size) -> list[LayerTokens]:
    """Of all layers, from what a forward pass has sown."""
    if isinstance(model, ResNet):
        stages = [kept[name]["features"][0] for name in layer_names(model)]
        return [LayerTokens(x, jnp.zeros((len(x), 0, x.shape[-1]))) for x in stages]
    is_vit = isinstance(model, VisionTransformer)
    (tokens,) = kept["encoder"]["blocks"]["tokens"] if is_vit else kept["blocks"]["tokens"]
    grid = model.grid(size) if is_vit else grid_size(size, model.patch_size)
    cut = model.num_prefix if is_vit else 0
    return [LayerTokens(x[:, cut:].reshape(len(x), *grid, -1), x[:, :cut]) for x in tokens]


class Pooled(NamedTuple):
    """One vector an image."""

    layers: list[Float[Array, "b _"]]  # behind each layer, of different widths
    representation: Float[Array, "b _"]  # what the head reads


def pooled_layers(
    model: nn.Module, variables: Variables, images: Float[Array, "b H W C"]
) -> Pooled:
    """The patches' means behind all layers, in one pass.

    Args:
      images: as the model takes them, normalised.
    """
    layer_names(model)
    return _pooled_layers(runnable(model), variables, images)


@functools.partial(jax.jit, static_argnames="model")
def _pooled_layers(model, variables, images):
    output, kept = model.apply(variables, images, mutable=["intermediates"])
    every = _tokens_of(model, kept["intermediates"], images.shape[1:3])
    means = [tokens.patches.mean(axis=(1, 2)) for tokens in every]
    return Pooled(means, output.representation)


class Components(NamedTuple):
    """Principal components of features, those first that explain most."""

    directions: Float[np.ndarray, "k c"]  # orthonormal; the largest number of each is positive
    coordinates: Float[np.ndarray, "n k"]  # of the features less their mean
    explained: Float[np.ndarray, " k"]  # share of the variance; zeros where nothing varies


def principal_components(features: Float[np.ndarray, "n c"], count: int) -> Components:
    """The reference is scikit-learn's `decomposition.PCA`."""
    _check_finite(features)
    most = min(features.shape)
    if not 1 <= count <= most:
        size = "x".join(map(str, features.shape))
        raise InputError(f"{count} components of {size} features; allowed: 1 to {most}.")
    x = np.asarray(features, np.float64)
    x = x - x.mean(axis=0)
    _, lengths, directions = np.linalg.svd(x, full_matrices=False)
    largest = np.abs(directions).argmax(axis=1)
    directions = directions * np.sign(directions[np.arange(most), largest])[:, None]
    directions, variances = directions[:count], lengths**2
    explained = variances[:count] / max(variances.sum(), np.finfo(float).tiny)
    return Components(directions, x @ directions.T, explained)


def feature_colours(patches: Float[np.ndarray, "b r s c"]) -> Float[np.ndarray, "b r s 3"]:
    """Red, green and blue from 0 to 1: the first three principal components of all patches.

    They are those of all images together, so that like parts of different images have like
    colours. Each is stretched to its range without the `OUTLIERS`. Grey where fewer than three
    components vary.
    """
    *shape, width = patches.shape
    tokens = np.asarray(patches, np.float64).reshape(-1, width)
    found = principal_components(tokens, min(3, *tokens.shape)).coordinates
    low, high = np.percentile(found, (OUTLIERS, 100 - OUTLIERS), axis=0)
    varies = high - low > 1e-9 * np.abs(tokens).max()
    scaled = np.clip((found - low) / np.where(varies, high - low, 1), 0, 1)
    colours = np.full((len(tokens), 3), 0.5)
    colours[:, : found.shape[1]] = np.where(varies, scaled, 0.5)
    return colours.reshape(*shape, 3)


def project(
    features: Float[np.ndarray, "n c"], method: str, *, seed: int = 0
) -> Float[np.ndarray, "n 2"]:
    """Places in the plane where like examples lie close: a name of `PROJECTIONS`."""
    function = sections.choose(PROJECTIONS, method, where="method")
    count, width = features.shape
    if count < 5 or width < 2:
        raise InputError(
            f"a map of {count} examples with {width} features; allowed: 5 or more with 2 or more."
        )
    _check_finite(features)
    x = np.asarray(features, np.float64)
    # t-SNE divides by the spread, and where that is 0 scikit-learn ends the whole process.
    if not np.ptp(x, axis=0).any():
        raise InputError(f"features of {count} examples are all the same; allowed: some that vary.")
    # No map asks for place or scale, but float32 would lose what is small beside a large mean.
    x = x - x.mean(axis=0)
    x = (x / np.abs(x).max()).astype(np.float32)
    return np.asarray(function(x, seed), np.float64)


def _check_finite(features: np.ndarray) -> None:
    bad = int((~np.isfinite(features)).sum())
    if bad:
        raise InputError(
            f"features have {bad:,} of {np.size(features):,} numbers that are not finite; allowed: "
            "finite ones."
        )


def _tsne(features: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    law = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    # Threads that wait for each other thousands of times crawl on a machine that is busy.
    with threadpool_limits(1):
        return law.fit_transform(features)


def _umap(features: np.ndarray, seed: int) -> np.ndarray:
    check_umap()
    from umap import UMAP

    neighbours = min(NEIGHBOURS, len(features) - 1)
    # With a seed it runs in one thread, which it warns of unless told so.
    return UMAP(n_neighbors=neighbours, random_state=seed, n_jobs=1).fit_transform(features)


def check_umap() -> None:
    """Refuses where the library is missing."""
    try:
        import umap  # noqa: F401
    except ImportError as error:
        raise InputError(
            "UMAP needs the package umap-learn, which is not installed; allowed: "
            "pip install 'vit_jax[umap]', or t-SNE in its place."
        ) from error


PROJECTIONS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "tsne": _tsne,  # van der Maaten and Hinton 2008
    "umap": _umap,  # arXiv:1802.03426
}
