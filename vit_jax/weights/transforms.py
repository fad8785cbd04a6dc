"""How one layer's arrays differ between their layout and ours: pairs of pure functions.

`load` takes their arrays and our shapes and gives our arrays; `save` takes our arrays and gives
theirs. Each only moves numbers about, so saving what was loaded gives the same bits. Arrays of
the wrong size raise ValueError, which the mapping tells with both shapes.

Letters: i, o inputs and outputs of a dense layer; c width; h heads; d channels of a head; p, q
patch height and width; C channels of an image; n tokens.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

Arrays = list[np.ndarray]
Shapes = Sequence[tuple[int, ...]]


class Transform(NamedTuple):
    load: Callable[[Arrays, Shapes], Arrays]
    save: Callable[[Arrays], Arrays]


def each(
    load: Callable[[np.ndarray, tuple[int, ...]], np.ndarray],
    save: Callable[[np.ndarray], np.ndarray],
) -> Transform:
    """As many arrays on our side as on theirs, each one on its own."""

    def load_all(arrays: Arrays, shapes: Shapes) -> Arrays:
        return [load(array, shape) for array, shape in zip(arrays, shapes, strict=True)]

    return Transform(load_all, lambda arrays: [save(array) for array in arrays])


def leading(axes: int) -> Transform:
    """Ours has `axes` axes of size 1 in front: a class token (c) -> (1, 1, c) for 2."""
    return each(
        lambda array, _: array.reshape((1,) * axes + array.shape),
        lambda array: array.reshape(_after_ones(array.shape, axes)),
    )


def squeeze(axes: int) -> Transform:
    """Theirs has `axes` axes of size 1 in front: (1, c) -> (c) for 1."""
    return each(
        lambda array, _: array.reshape(_after_ones(array.shape, axes)),
        lambda array: array.reshape((1,) * axes + array.shape),
    )


def trailing_one() -> Transform:
    """Theirs has an axis of size 1 at the end: (k, 1) -> (k)."""

    def load(array: np.ndarray, _: tuple[int, ...]) -> np.ndarray:
        if array.shape[-1:] != (1,):
            raise ValueError(f"the last axis of {array.shape} is not 1")
        return array[..., 0]

    return each(load, lambda array: array[..., None])


def squeeze_if_there(axes: int) -> Transform:
    """As `squeeze`, for a family of which some files lack those axes; they are written."""

    def load(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if array.ndim == len(shape) else array.reshape(_after_ones(array.shape, axes))

    return each(load, lambda array: array.reshape((1,) * axes + array.shape))


def split(part: Transform) -> Transform:
    """Theirs is one array, ours are several, stacked in it along its first axis.

    `split(heads)` serves PyTorch's fused query, key and value: [3·h·d, c] -> three (c, h, d).
    """

    def load(arrays: Arrays, shapes: Shapes) -> Arrays:
        (fused,) = arrays
        pieces = np.split(fused, len(shapes))  # ValueError unless they are equal
        return [part.load([p], [s])[0] for p, s in zip(pieces, shapes, strict=True)]

    def save(arrays: Arrays) -> Arrays:
        return [np.concatenate([part.save([array])[0] for array in arrays])]

    return Transform(load, save)


def join(*sizes: int, axis: int) -> Transform:
    """Theirs are several, ours is one: they follow each other along `axis`, of these sizes."""

    def load(arrays: Arrays, shapes: Shapes) -> Arrays:
        found = tuple(array.shape[axis] for array in arrays)
        if found != sizes:
            raise ValueError(f"sizes {found} along axis {axis}; allowed: {sizes}")
        return [np.concatenate(arrays, axis)]

    def save(arrays: Arrays) -> Arrays:
        return np.split(arrays[0], np.cumsum(sizes)[:-1], axis)

    return Transform(load, save)


def _after_ones(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    if shape[:axes] != (1,) * axes:
        raise ValueError(f"the first {axes} of {shape} are not 1")
    return shape[axes:]


def _flat(array: np.ndarray) -> np.ndarray:
    """[a, ...] -> [a, the rest in one axis]"""
    return array.reshape(array.shape[0], -1)


# These name every size but their own width, which may differ and is then found out by its shape:
# a -1 would take any array with as many numbers, a transposed one among them.
def _heads(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array.T.reshape(array.shape[1], *shape[1:])


def _heads_bias(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim != 1:
        raise ValueError(f"a bias of shape {array.shape}; allowed: one axis")
    return array.reshape(shape)


def _to_last(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return array.T.reshape(*shape[:-1], array.shape[0])


def _spatial_first(array: np.ndarray, _: tuple[int, ...]) -> np.ndarray:
    return array.transpose(*range(2, array.ndim), 1, 0)


def _spatial_last(array: np.ndarray) -> np.ndarray:
    return array.transpose(array.ndim - 1, array.ndim - 2, *range(array.ndim - 2))


# The layouts on the left are PyTorch's.
copy = each(lambda array, _: array, lambda array: array)
# dense [o, i] -> (i, o)
linear = each(lambda array, _: array.T, lambda array: array.T)
# convolution [o, i, p, q] -> (p, q, i, o), with any number of spatial axes
conv = each(_spatial_first, _spatial_last)
# patches as a dense layer [c, p·q·C] -> (p, q, C, c)
patches = each(_to_last, lambda array: array.reshape(-1, array.shape[-1]).T)
# query, key or value [h·d, c] -> (c, h, d). h is not in their file: only our shape tells it.
heads = each(_heads, lambda array: _flat(array).T)
# query, key or value bias [h·d] -> (h, d)
heads_bias = each(_heads_bias, lambda array: array.reshape(-1))
# attention's last layer [c, h·d] -> (h, d, c)
heads_out = each(_to_last, lambda array: array.reshape(-1, array.shape[-1]).T)
# query, key and value in one: [3·h·d, c] -> three (c, h, d); [3·h·d] -> three (h, d)
fused_heads = split(heads)
fused_heads_bias = split(heads_bias)
trailing = trailing_one()  # magnitudes [k, 1] -> (k)
class_token = leading(2)  # (c) -> (1, 1, c)
positions = leading(1)  # [n, c] -> (1, n, c)
