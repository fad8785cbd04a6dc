"""What a ViT's first layer has learned: filters of the patches, and positions (arXiv:2010.11929,
Figures 7 and 10).

Letters: p, q patch height and width; C channels; c width; h, w rows and columns of the grid; m
patches, numbered row by row.
"""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax.analysis.attention import check_has_attention
from vit_jax.core import Variables
from vit_jax.errors import InputError
from vit_jax.layers import position
from vit_jax.layers.position_tables import AxisPositions
from vit_jax.layers.resize import resize_positions
from vit_jax.models.vit import VisionTransformer

KINDS = ("learned", "learned2d", *position.FIXED)  # of positions, those that are added to tokens


def patch_filters(variables: Variables, count: int = 28) -> Float[np.ndarray, "count p q C"]:
    """Principal components of the patch embedding, those that explain most first.

    The embedding has c filters of p·q·C numbers; these are the orthonormal directions along which
    filters differ from their mean. A component's sign means nothing: its largest number is made
    positive. Fewer than `count` where filters have fewer numbers.
    """
    embedding = variables["params"].get("patch_embedding")
    if embedding is None:
        raise InputError("the model has no patch_embedding; allowed: a ViT, a hybrid or a Mixer.")
    kernel = np.asarray(embedding["kernel"], np.float64)
    if not np.isfinite(kernel).all():
        raise InputError("patch_embedding has numbers that are not finite; allowed: finite ones.")
    filters = kernel.reshape(-1, kernel.shape[-1]).T  # [c, p·q·C]
    _, _, components = np.linalg.svd(filters - filters.mean(axis=0), full_matrices=False)
    components = components[:count]
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return (components * signs[:, None]).reshape(-1, *kernel.shape[:-1]).astype(np.float32)


def position_embeddings(
    model: VisionTransformer, variables: Variables, grid: tuple[int, int]
) -> Float[np.ndarray, "m c"]:
    """What the model adds to the patches' tokens by their places; of all kinds that it adds.

    Raises:
      InputError: for positions that act within attention, and for none.
    """
    kind, params = check_has_attention(model).position_embedding, variables["params"]
    if kind in position.FIXED:
        return np.asarray(position.FIXED[kind](grid, model.width))
    if kind not in KINDS:
        raise InputError(
            f"position_embedding is {kind!r}, which adds nothing to the tokens; allowed: "
            f"{', '.join(KINDS)}."
        )
    kept = model.position_grid or grid
    if kind == "learned2d":
        tables = AxisPositions(kept, model.width)
        return np.asarray(tables.apply({"params": params["position_embedding"]}, grid))[0]
    stored = jnp.asarray(params["position_embedding"])
    patches = stored[:, stored.shape[1] - math.prod(kept) :]
    return np.asarray(resize_positions(patches, old_grid=kept, new_grid=grid, num_prefix=0))[0]


def position_similarity(
    positions: Float[np.ndarray, "m c"], grid: tuple[int, int]
) -> Float[np.ndarray, "h w h w"]:
    """Cosine of the angle between the positions of each two patches."""
    norms = np.linalg.norm(positions, axis=-1, keepdims=True)
    directions = positions / np.maximum(norms, np.finfo(np.float32).tiny)
    return (directions @ directions.T).reshape(*grid, *grid)


def neighbour_contrast(similarity: Float[np.ndarray, "h w h w"]) -> float:
    """Mean similarity of patches one step apart, minus that of those half a grid or more apart.

    Steps along both axes are added. Positive where "closer patches tend to have more similar
    position embeddings" (arXiv:2010.11929, section 4.5).
    """
    along_rows, along_columns = _steps(similarity.shape[:2])
    steps = along_rows + along_columns
    if not steps.any():
        raise InputError("the grid is 1x1; allowed: two patches or more.")
    return float(similarity[steps == 1].mean() - similarity[steps >= steps.max() / 2].mean())


def axis_contrast(similarity: Float[np.ndarray, "h w h w"]) -> float:
    """Mean similarity of patches of a row or column, minus that of others as many steps apart.

    For each number of steps from two on, and then averaged over those numbers. Positive where "a
    row-column structure appears; patches in the same row/column have similar embeddings" (there).
    """
    along_rows, along_columns = _steps(similarity.shape[:2])
    steps, is_aligned = along_rows + along_columns, (along_rows == 0) | (along_columns == 0)
    contrasts = [
        similarity[(steps == count) & is_aligned].mean()
        - similarity[(steps == count) & ~is_aligned].mean()
        for count in range(2, max(similarity.shape[:2]))
        if ((steps == count) & ~is_aligned).any()
    ]
    if not contrasts:
        size = "x".join(map(str, similarity.shape[:2]))
        raise InputError(f"the grid is {size}; allowed: two rows and columns, and three of one.")
    return float(np.mean(contrasts))


def _steps(grid: tuple[int, int]) -> list[np.ndarray]:
    """Rows, and columns, between each two patches, [h, w, h, w] each."""
    return [abs(x[:, :, None, None] - x) for x in np.indices(grid)]
