"""What the rules of a mesh did with each array of a state: where its parts are, and why not more.

Rules ask for axes that may not divide an array, such as two devices for three heads; it then stays
whole along that axis, and the run works as before but saves and gains less. This says so.
"""

import math
import re
from typing import Any, NamedTuple

import jax
from jax.sharding import AbstractMesh, Mesh

from vit_jax.errors import InputError
from vit_jax.train import patterns, sharding


class Placed(NamedTuple):
    """One array of a state.

    Attributes:
      axes: for each axis of the array the axes of the mesh that split it, e.g. (None, 'tensor').
      device_bytes: of its part on one device.
      note: why it is not split as its rule asks; empty if it is.
    """

    path: str
    shape: tuple[int, ...]
    axes: tuple[Any, ...]
    device_bytes: int
    note: str


def describe(
    state: Any, mesh: Mesh | AbstractMesh, rules: patterns.Rules = sharding.TENSOR_RULES
) -> list[Placed]:
    """A row for each array of a tree of arrays or shapes, in the tree's order."""
    places = jax.tree.leaves(sharding.state_sharding(state, mesh, rules))
    rows = []
    for (path, leaf), place in zip(_leaves(state), places, strict=True):
        axes = (*place.spec, *[None] * (leaf.ndim - len(place.spec)))
        size = math.prod(place.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        rows.append(Placed(path, leaf.shape, axes, size, _note(path, leaf.shape, mesh, rules)))
    return rows


def notes(params: Any, mesh: Mesh | AbstractMesh, rules: patterns.Rules) -> list[str]:
    """A sentence for each group of parameters that stays whole where its rule would split it."""
    paths: dict[str, list[str]] = {}
    for row in describe(params, mesh, rules):
        if row.note:
            paths.setdefault(row.note, []).append(row.path)
    return [f"{', '.join(found)}: {note}" for note, found in paths.items()]


def check(params: Any, mesh: Mesh | AbstractMesh, rules: patterns.Rules) -> None:
    """Raises `InputError` for a rule without effect, or a `tensor` axis that splits nothing."""
    leaves = _leaves(params)
    for pattern, axes in rules[: -len(sharding.TENSOR_RULES)]:
        shown = pattern.removeprefix("(?:.*/)?(?:").removesuffix(")")
        matched = [(path, leaf) for path, leaf in leaves if re.fullmatch(pattern, path)]
        if not matched:
            raise InputError(
                f"config.mesh.rules has {shown!r}, which matches no parameter; allowed: the end of "
                f"a path such as {leaves[0][0]!r}."
            )
        for path, leaf in matched:
            _check_axes(shown, axes or (), path, leaf.shape, mesh)
    size = mesh.shape["tensor"]
    places = jax.tree.leaves(sharding.state_sharding(params, mesh, rules))
    if size > 1 and not any("tensor" in jax.tree.leaves(tuple(place.spec)) for place in places):
        raise InputError(
            f"config.mesh.tensor is {size}, but splits no parameter of this model: {size} divides "
            "neither heads nor channels of an MLP; allowed: 1, or a divisor of one of them."
        )


def _check_axes(
    pattern: str, axes: tuple, path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh
) -> None:
    """What a rule of one's own asks for must be possible."""
    parts = [sharding.num_parts(axis, mesh) for axis in axes]
    if len(axes) > len(shape) or any(s % p for s, p in zip(shape, parts, strict=False)):
        raise InputError(
            f"config.mesh.rules has {axes} for {pattern!r}, that is {parts} parts, but {path!r} is "
            f"{shape}; allowed: no more axes than it has, and parts that divide them."
        )


def _note(
    path: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh, rules: patterns.Rules
) -> str:
    wanted = patterns.match(rules, path, where="config.mesh.rules") or ()
    for i, (axis, size) in enumerate(zip(wanted, shape, strict=False)):
        parts = sharding.num_parts(axis, mesh)
        if size % parts:
            return f"{axis}={parts} does not divide the {size} of axis {i}, which stays whole"
    return ""


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    found = jax.tree_util.tree_leaves_with_path(tree)
    return [(patterns.path_of(path), leaf) for path, leaf in found]
