"""Resampling: positions to another grid, patch kernels to another size or channels, images.

Every law here is separable and linear, so it is a pair of small matrices: an image x of h rows
and w columns becomes R x Cᵀ with R (H, h) and C (W, w). Row i of a matrix says which old samples
make new sample i, and sums to one. With the ratio r = old / new, sample i stands in the old image
at

    s(i) = (i + 1/2) · r - 1/2                  'bilinear', 'bicubic': the edges of both agree
    s(i) = i · (old - 1) / (new - 1)            'zoom': the centres of the outermost samples agree

    without antialias   weight of old sample j: f(s - j); what lies outside belongs to the edge
    with antialias      f((s - j) / max(r, 1)), divided by the sum over the samples that exist

f is the triangle 1 - |t|, or Keys' cubic with a = -3/4 without and -1/2 with antialias. Hence
bilinear and bicubic are PyTorch's F.interpolate(align_corners=False) in either setting; zoom is
scipy.ndimage.zoom(order=1), with which google-research/vision_transformer resizes positions.
(jax.image.resize has a = -1/2 in both, so its bicubic without antialias is another.)

Letters: b examples; h, w, H, W rows and columns of the old and the new grid; n tokens; p, q patch
height and width; C, N channels of an image before and after; c width.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from vit_jax import sections
from vit_jax.errors import InputError

Array = np.ndarray | jax.Array


def resize_positions(
    embedding: Float[Array, "1 n c"],
    *,
    old_grid: tuple[int, int],
    new_grid: tuple[int, int],
    num_prefix: int,
    method: str = "bicubic",
    antialias: bool = True,
) -> Float[Array, "1 m c"]:
    """Position embeddings for a grid of another size or shape.

    Args:
      embedding: of the prefix tokens, then of the patches row by row.
      old_grid, new_grid: patches in a column and in a row; `grid_of` where it is a square.
      num_prefix: tokens in front that are no patches (class, registers); they stay as they are.
      method: 'bicubic', 'bilinear' or 'zoom'.
      antialias: average over what falls together where the grid shrinks; not with 'zoom'.
    """
    num_tokens = embedding.shape[1]
    if num_tokens != num_prefix + math.prod(old_grid):
        raise InputError(
            f"There are {num_tokens} positions; allowed with the grid {_by(old_grid)} and "
            f"{num_prefix} prefix tokens: {num_prefix + math.prod(old_grid)}."
        )
    rows, columns = _matrices(old_grid, new_grid, method, antialias)
    if tuple(old_grid) == tuple(new_grid):
        return embedding  # bit for bit
    prefix, patches = embedding[:, :num_prefix], embedding[0, num_prefix:]
    patches = _apply(rows, columns, patches.reshape(*old_grid, -1))
    patches = patches.reshape(1, math.prod(new_grid), -1)
    return _numpy_of(embedding).concatenate([prefix, patches], axis=1)


def resize_images(
    image: Float[Array, "b h w C"],
    size: tuple[int, int],
    *,
    method: str = "bilinear",
    antialias: bool = True,
) -> Float[Array, "b H W C"]:
    """Images of another size (H, W); neither rounded nor cut to a range."""
    rows, columns = _matrices(image.shape[1:3], size, method, antialias)
    if image.shape[1:3] == tuple(size):
        return image  # bit for bit
    return _contract("Ww,bHwc->bHWc", columns, _contract("Hh,bhwc->bHwc", rows, image))


def resize_axis(
    table: Float[Array, "n c"], size: int, *, method: str = "bicubic", antialias: bool = True
) -> Float[Array, "size c"]:
    """Embeddings of the places along one axis of a grid, for an axis of another length."""
    matrix = resample_matrix(len(table), size, method=method, antialias=antialias)
    return table if len(table) == size else _contract("Nn,nc->Nc", matrix, table)


def resize_patch_kernel(
    kernel: Float[Array, "p q C c"],
    new_size: tuple[int, int],
    *,
    method: str = "bilinear",
    antialias: bool = False,
) -> Float[Array, "P Q C c"]:
    """FlexiViT's pseudo-inverse resize of a patch kernel (arXiv:2212.08013, section 3.4).

    Let x be a patch and Bx its resized self. The new kernel is the v for which <Bx, v> is as near
    <x, kernel> as it can be for every x: v = pinv(Bᵀ) kernel. Where patches grow, the two are
    equal, so an upsampled image has the tokens of the original.
    """
    old_size = kernel.shape[:2]
    rows, columns = _matrices(old_size, new_size, method, antialias)
    if tuple(old_size) == tuple(new_size):
        return kernel
    # B is the Kronecker product of the two, and so is its pseudo-inverse of theirs.
    rows, columns = np.linalg.pinv(rows.T), np.linalg.pinv(columns.T)
    p, q, *channels = kernel.shape
    resized = _apply(rows, columns, kernel.reshape(p, q, -1))
    return resized.reshape(*new_size, *channels)


def adapt_channels(kernel: Float[Array, "p q C c"], channels: int) -> Float[Array, "p q N c"]:
    """A patch kernel for images with another number of channels.

    An image whose channels are all equal keeps its tokens: the sum over channels stays what it
    was. So three channels become one by adding, not by averaging, and a grey image has the tokens
    that it had as a grey RGB image. Where channels are added they repeat in turn (R G B R ...),
    each old kernel shared out equally among its copies; where channels are fewer, old ones fall
    together in turn.
    """
    old = kernel.shape[2]
    if channels < 1:
        raise InputError(f"channels is {channels}; allowed: 1 or more.")
    if channels == old:
        return kernel
    period = min(old, channels)
    copies = (np.arange(channels)[:, None] % period) == (np.arange(old) % period)
    mixing = copies / copies.sum(axis=0)  # (N, C); every old channel is given out once
    return _contract("NC,pqCc->pqNc", mixing, kernel)


def grid_of(num_tokens: int) -> tuple[int, int]:
    """The square grid of so many patches."""
    side = math.isqrt(max(num_tokens, 0))
    if side < 1 or side * side != num_tokens:
        raise InputError(
            f"{num_tokens} patches make no square grid; pass the grid as (rows, columns)."
        )
    return side, side


def position_adapter(
    *,
    new_grid: tuple[int, int],
    num_prefix: int,
    old_grid: tuple[int, int] | None = None,
    method: str = "bicubic",
    antialias: bool = True,
) -> Callable[[np.ndarray, tuple[int, ...]], np.ndarray]:
    """`resize_positions` as an adapter of `mapping.to_ours`; an old grid not given is a square."""

    def adapt(embedding: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if embedding.shape[-1] != shape[-1]:
            return embedding  # another width: the mapping says so, with both shapes
        grid = old_grid or grid_of(embedding.shape[1] - num_prefix)
        return resize_positions(
            embedding,
            old_grid=grid,
            new_grid=new_grid,
            num_prefix=num_prefix,
            method=method,
            antialias=antialias,
        )

    return adapt


def axis_adapter(
    *, method: str = "bicubic", antialias: bool = True
) -> Callable[[np.ndarray, tuple[int, ...]], np.ndarray]:
    """`resize_axis` as an adapter of `mapping.to_ours`."""

    def adapt(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if table.shape[1:] != shape[1:]:
            return table
        return resize_axis(table, shape[0], method=method, antialias=antialias)

    return adapt


def adapt_patch_kernel(kernel: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`resize_patch_kernel` and `adapt_channels` as an adapter of `mapping.to_ours`."""
    if len(kernel.shape) != len(shape) or kernel.shape[-1] != shape[-1]:
        return kernel
    return adapt_channels(resize_patch_kernel(kernel, shape[:2]), shape[2])


@functools.lru_cache(maxsize=64)  # FlexiViT draws one of a few sizes at every step
def resample_matrix(
    old: int, new: int, *, method: str, antialias: bool
) -> Float[np.ndarray, "new old"]:
    """The matrix of one axis, float64; the file's docstring gives the law."""
    sections.choose(_KERNELS, method, where="method")
    if min(old, new) < 1:
        raise InputError(f"A resize from {old} to {new} samples; allowed: 1 or more.")
    if method == "zoom" and antialias:
        raise InputError("antialias is True; allowed with method 'zoom': False.")
    ratio = old / new
    kernel = _KERNELS[method](antialias)
    if method == "zoom":  # one sample alone is the first, as SciPy has it
        position = np.arange(new) * ((old - 1) / max(new - 1, 1))
    else:
        position = (np.arange(new) + 0.5) * ratio - 0.5
    if antialias:
        weights = kernel((position[:, None] - np.arange(old)) / max(ratio, 1))
        matrix = weights / weights.sum(axis=1, keepdims=True)
    else:
        matrix = np.zeros((new, old))
        first = np.floor(position).astype(int)
        for tap in range(-1, 3):  # the cubic reaches two samples to either side
            weights = kernel(position - (first + tap))
            np.add.at(matrix, (np.arange(new), np.clip(first + tap, 0, old - 1)), weights)
    matrix.setflags(write=False)  # the cache hands out the same array again
    return matrix


def _triangle(antialias: bool) -> Callable[[np.ndarray], np.ndarray]:
    return lambda t: np.maximum(1 - np.abs(t), 0)


def _cubic(antialias: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Keys' convolution kernel (IEEE TASSP 29, 1981, equation 15, with a free)."""
    a = -0.5 if antialias else -0.75

    def kernel(t: np.ndarray) -> np.ndarray:
        t = np.abs(t)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        return np.where(t <= 1, near, np.where(t < 2, far, 0))

    return kernel


_KERNELS = {"bicubic": _cubic, "bilinear": _triangle, "zoom": _triangle}


def _matrices(old_size, new_size, method: str, antialias: bool) -> list[np.ndarray]:
    """Those of the rows and of the columns."""
    return [
        resample_matrix(old, new, method=method, antialias=antialias)
        for old, new in zip(old_size, new_size, strict=True)
    ]


def _apply(rows: np.ndarray, columns: np.ndarray, image: Array) -> Array:
    """[h, w, c] -> [H, W, c]"""
    return _contract("Ww,Hwc->HWc", columns, _contract("Hh,hwc->Hwc", rows, image))


def _contract(law: str, matrix: np.ndarray, array: Array) -> Array:
    """NumPy's arrays in float64, JAX's in float32; either keeps its dtype."""
    if isinstance(array, jax.Array):
        # Else a GPU would round the factors to 10 bits.
        highest = jax.lax.Precision.HIGHEST
        matrix, wide = jnp.asarray(matrix, jnp.float32), array.astype(jnp.float32)
        return jnp.einsum(law, matrix, wide, precision=highest).astype(array.dtype)
    return np.einsum(law, matrix, array.astype(np.float64)).astype(array.dtype)


def _numpy_of(array: Array):
    return jnp if isinstance(array, jax.Array) else np


def _by(grid: tuple[int, int]) -> str:
    return "x".join(map(str, grid))
