"""Reads a family's `Table` in both directions, and tells what became of every array.

Our parameters are a nested dictionary; a path is its names joined by '/'.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from vit_jax.errors import InputError
from vit_jax.weights.report import Leaf, Report, shape_text
from vit_jax.weights.table import Match, Table, listed, matches, rename

Tree = Mapping[str, Any]
# (their array in our layout, our shape) -> an array of our shape, or the very same array. Asked
# even where the shapes agree, since 4x9 positions are no 6x6 positions.
Adapter = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]


class Loaded(NamedTuple):
    params: dict[str, Any]  # nested; only what was loaded or resized
    report: Report


def to_ours(
    table: Table,
    arrays: Mapping[str, np.ndarray],
    *,
    target_shapes: Tree,
    adapters: Mapping[str, Adapter] | None = None,
    initialised: Mapping[str, str] | None = None,
    ignored: Mapping[str, str] | None = None,
) -> Loaded:
    """Their arrays in our layout and dtypes, and what became of each; see `Report.check`.

    Args:
      target_shapes: our tree; its leaves have a shape and a dtype, as those of `jax.eval_shape`.
      adapters: our path -> what resamples an array of another shape, e.g. positions.
      initialised: regular expression of whole paths of ours that keep their initial values,
        e.g. another task's head -> why.
      ignored: as the table's own, added to it.
    """
    targets = _flatten(target_shapes)
    arrays = rename(table, arrays)
    adapters, initialised = adapters or {}, initialised or {}
    fresh = {path: why for path in targets if (why := _reason(initialised, path))}
    _check_patterns(initialised, targets)
    unused = {**table.unused, **(ignored or {})}
    found: dict[str, tuple[np.ndarray, Leaf]] = {}
    problems: dict[str, list[tuple[Leaf, list[str]]]] = {}  # and the names it concerns
    used: set[str] = set()
    reasons: dict[str, str] = {}  # names of theirs -> why they are unused
    for match in matches(table, targets):
        theirs = [name for group in match.theirs for name in group if name in arrays]
        if set(match.ours) <= fresh.keys():
            reasons |= dict.fromkeys(theirs, f"{match.ours[0]} is initialised")
            continue
        if set(match.ours) <= found.keys():
            continue
        for path, (value, leaf) in _load(match, arrays, targets, adapters).items():
            if value is not None and path not in fresh:
                found[path] = (value, leaf)
                used.update(theirs)
            elif value is None:
                problems.setdefault(path, []).append((leaf, theirs))
    leaves = [
        found[path][1] if path in found else _absent(path, target, problems.get(path, []), fresh)
        for path, target in targets.items()
    ]
    for path in problems.keys() - found.keys():  # these names are told with their path
        used.update(name for _, names in problems[path] for name in names)
    for name in (name for name in arrays if name not in used):
        reason = reasons.get(name) or _reason(unused, name)
        leaves.append(Leaf(name, "unused", arrays[name].shape, reason=reason))
    params = {path: value for path, (value, _) in found.items()}
    report = Report(family=table.family, leaves=tuple(leaves))
    return Loaded(traverse_util.unflatten_dict(params, sep="/"), report)


def to_theirs(table: Table, params: Tree) -> dict[str, np.ndarray]:
    """Our parameters under their names and in their layout, in the order of the table.

    Raises:
      InputError: for a parameter that the table gives no place to.
    """
    leaves = {path: np.asarray(leaf) for path, leaf in _flatten(params).items()}
    arrays: dict[str, np.ndarray] = {}
    saved: set[str] = set()
    for match in matches(table, leaves):
        if set(match.ours) <= saved:
            continue
        saved |= set(match.ours)
        for layer, names in enumerate(match.theirs):
            ours = [leaves[path] for path in match.ours]
            if match.rule.is_stacked:
                ours = [leaf[layer] for leaf in ours]
            values = match.rule.transform.save(ours)
            for name, value in zip(names, values, strict=True):
                if name in arrays and not np.array_equal(arrays[name], value):
                    raise InputError(f"Two parameters of ours differ, but both are {name!r}.")
                arrays[name] = np.asarray(value, order="C")
    if homeless := [path for path in leaves if path not in saved]:
        raise InputError(
            f"{table.family!r} weights have no place for {', '.join(homeless[:10])} "
            f"({len(homeless)} of {len(leaves)} parameters)."
        )
    return arrays


def merge(initial: Tree, params: Tree) -> dict[str, Any]:
    """`initial` with the leaves that `params` has in their place; it may have no others."""
    leaves, loaded = _flatten(initial), _flatten(params)
    if strange := sorted(loaded.keys() - leaves.keys()):
        raise InputError(f"The model has no parameter {', '.join(strange[:10])}.")
    return traverse_util.unflatten_dict({**leaves, **loaded}, sep="/")


def _flatten(tree: Tree) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


def _load(
    match: Match,
    arrays: Mapping[str, np.ndarray],
    targets: Mapping[str, Any],
    adapters: Mapping[str, Adapter],
) -> dict[str, tuple[np.ndarray | None, Leaf]]:
    """Each path of a match: its array and leaf; without an array, the leaf says what is wrong."""
    shapes = {path: tuple(targets[path].shape) for path in match.ours}
    stacked = match.rule.is_stacked
    source = ", ".join(listed(match.rule.theirs) if stacked else match.theirs[0])

    def problem(status, reason):
        return {
            path: (None, Leaf(path, status, shape, source, reason=reason))
            for path, shape in shapes.items()
        }

    lacking = [name for group in match.theirs for name in group if name not in arrays]
    if lacking:
        more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        return problem("missing", f"the file lacks {lacking[0]}{more}")
    try:
        values = _transform(match, arrays, [shapes[path] for path in match.ours])
    except ValueError as error:
        return problem("mismatched", str(error))
    results = {}
    for path, value in zip(match.ours, values, strict=True):
        status, before = "loaded", value.shape
        # Before anything is computed: sums of bfloat16 numbers would be rounded to its 8 bits.
        value = np.asarray(value).astype(targets[path].dtype, copy=False)
        if path in adapters:
            adapted = adapters[path](value, shapes[path])
            status, value = ("loaded" if adapted is value else "resized"), adapted
        if value.shape != shapes[path]:
            status, value = "mismatched", None
        results[path] = (value, Leaf(path, status, shapes[path], source, before))
    return results


def _transform(match: Match, arrays, shapes) -> list[np.ndarray]:
    """Our arrays, layers stacked; ValueError where theirs cannot be brought into our layout."""
    is_stacked = match.rule.is_stacked
    shapes = [shape[1:] for shape in shapes] if is_stacked else shapes
    layers: list[list[np.ndarray]] = []
    for names in match.theirs:
        theirs = [arrays[name] for name in names]
        what = ", ".join(f"{n} {shape_text(a.shape)}" for n, a in zip(names, theirs, strict=True))
        try:
            values = match.rule.transform.load(theirs, shapes)
        except (ValueError, IndexError) as error:  # the latter: too few axes
            raise ValueError(f"{what} ({error})") from error
        if layers and [v.shape for v in values] != [v.shape for v in layers[0]]:
            raise ValueError(f"{what} is unlike the layers before it")
        layers.append(values)
    return [np.stack(parts) for parts in zip(*layers, strict=True)] if is_stacked else layers[0]


def _absent(path: str, target: Any, problems: list, fresh: Mapping[str, str]) -> Leaf:
    """Why a path of ours was not loaded; of several reasons a wrong shape says the most."""
    shape = tuple(target.shape)
    if path in fresh:
        return Leaf(path, "initialised", shape, reason=fresh[path])
    leaves = [leaf for leaf, _ in problems] or [
        Leaf(path, "missing", shape, reason="no rule names it")
    ]
    return next((leaf for leaf in leaves if leaf.status == "mismatched"), leaves[0])


def _check_patterns(initialised: Mapping[str, str], targets: Mapping[str, Any]) -> None:
    """A pattern with a slip in it would leave the arrays it means as they are in the file."""
    for pattern in initialised:
        if not any(re.fullmatch(pattern, path) for path in targets):
            raise InputError(
                f"initialised: no parameter matches {pattern!r}; they are {', '.join(targets)}."
            )


def _reason(patterns: Mapping[str, str], name: str) -> str:
    return next((why for pattern, why in patterns.items() if re.fullmatch(pattern, name)), "")
