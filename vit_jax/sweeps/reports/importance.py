"""How much of the metric's variance each setting explains: functional ANOVA by random forests.

Hutter, Hoos, Leyton-Brown, "An efficient approach for assessing hyperparameter importance", ICML
2014 (fANOVA). A regression tree f is constant on boxes, so that its mean over any settings is a
finite sum. With f0 the mean of f and a_d(v) its mean where setting d has the value v and all others
vary, the main effect of d is

    V_d / V = E_v[(a_d(v) - f0)²] / E[(f - f0)²]

and what the sum over d lacks of 1 are interactions. All means are over the values that were tried,
each as often as it was, independently from setting to setting (the paper: uniform over a box). On a
whole grid that is the classic analysis of variance. Shares are means over the trees of a forest
and over forests of different seeds; the standard deviation over these tells how stable the forests
are, and not how another set of trials would turn out.

Nothing is said where there are too few points, or where forests, asked for points that they have
not seen (5 folds, all seeds of a point in one), predict no better than the mean does.

Letters: n trials, d settings.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vit_jax.sweeps.reports.findings import Findings, setting
from vit_jax.sweeps.reports.labels import text_of

NUM_TREES = 64  # as in Optuna's fANOVA
NUM_FORESTS = 8
FOLDS = 5
MIN_POINTS = 8
POINTS_A_SETTING = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Importance:
    """Attributes:
    why_not: why nothing can be said; then the rest is empty.
    shares: short name -> (mean, standard deviation over forests) of V_d / V, the largest first.
    interactions: the same of what no setting explains alone.
    determination: R² at points that a forest had not seen.
    """

    why_not: str = ""
    shares: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    interactions: tuple[float, float] | None = None
    determination: float | None = None


def of(findings: Findings) -> Importance:
    """The importance of each swept setting for the finished trials' metric."""
    groups = findings.measured_groups
    names = list(findings.short.values())
    needed = max(MIN_POINTS, POINTS_A_SETTING * len(names))
    if len(names) < 2:
        return Importance(
            why_not=f"it compares settings, and the sweep varies {len(names) or 'none'}"
        )
    if len(groups) < needed:
        few = f"{len(groups)} of its points are finished"
        return Importance(why_not=f"{few}, and {len(names)} settings need at least {needed}")
    counted = findings.counted
    points = np.asarray([group.rank for group in groups for _ in group.counted])
    inputs = np.stack([codes([setting(r, key) for r in counted]) for key in findings.short], 1)
    targets = np.asarray([findings.value(record) for record in counted])
    if not np.ptp(targets):
        return Importance(why_not="the metric is the same everywhere")
    determination = unseen_determination(inputs, targets, points)
    if determination <= 0:
        return Importance(
            why_not="random forests predict trials that they have not seen no better than the mean "
            f"does (R² {determination:.2f})"
        )
    found = np.stack([main_effects(inputs, targets, seed=seed) for seed in range(NUM_FORESTS)])
    rest = 1 - found.sum(1)
    shares = zip(names, found.mean(0), found.std(0, ddof=1), strict=True)
    ordered = sorted(shares, key=lambda share: (-share[1], share[0]))
    return Importance(
        shares={name: (float(mean), float(std)) for name, mean, std in ordered},
        interactions=(float(rest.mean()), float(rest.std(ddof=1))),
        determination=determination,
    )


def codes(values: list) -> np.ndarray:
    """f64[n]: the place of each value among all; trees know only the order.

    Numbers come by size, all else, 'not set' included, by name and before them.
    """
    is_number = [isinstance(v, int | float) and not isinstance(v, bool) for v in values]
    keys = [
        (1, float(value), "") if number else (0, 0.0, text_of(value))
        for value, number in zip(values, is_number, strict=True)
    ]
    place = {key: i for i, key in enumerate(sorted(set(keys)))}
    return np.asarray([place[key] for key in keys], np.float64)


def unseen_determination(inputs: np.ndarray, targets: np.ndarray, points: np.ndarray) -> float:
    """R² of forests at points that were held out; 1 is perfect, 0 is the mean's."""
    from sklearn.model_selection import GroupKFold

    predicted = np.empty_like(targets)
    for train, test in GroupKFold(FOLDS).split(inputs, targets, points):
        forest = _forest(inputs[train], targets[train], seed=0)
        predicted[test] = forest.predict(inputs[test])
    errors = ((predicted - targets) ** 2).sum()
    return float(1 - errors / ((targets - targets.mean()) ** 2).sum())


def main_effects(inputs: np.ndarray, targets: np.ndarray, *, seed: int) -> np.ndarray:
    """f64[d]: V_d / V of a forest, from inputs f64[n, d] and targets f64[n]."""
    forest = _forest(inputs, targets, seed=seed)
    trees = [tree_effects(one.tree_, inputs) for one in forest.estimators_]
    return np.mean([effects for effects in trees if effects is not None], axis=0)


def tree_effects(tree, inputs: np.ndarray) -> np.ndarray | None:
    """f64[d]: V_d / V of one tree; None for a tree without a split."""
    if tree.node_count == 1:
        return None
    values = [np.unique(column, return_counts=True) for column in inputs.T]
    weights = [counts / counts.sum() for _, counts in values]
    leaves = np.flatnonzero(tree.children_left < 0)
    inside = _boxes(tree, [value for value, _ in values])[leaves]
    along = np.split(inside, np.cumsum([len(weight) for weight in weights])[:-1], axis=1)
    heights = tree.value[leaves, 0, 0]
    # The share of each leaf's box along each setting, [leaves, d], and of the whole box.
    sides = np.stack([box @ weight for box, weight in zip(along, weights, strict=True)], 1)
    volumes = sides.prod(1)
    mean = volumes @ heights
    variance = volumes @ (heights - mean) ** 2
    if variance <= 0:
        return None
    effects = []
    for d, (box, weight) in enumerate(zip(along, weights, strict=True)):
        marginal = (np.delete(sides, d, axis=1).prod(1) * heights) @ box
        effects.append(weight @ (marginal - mean) ** 2 / variance)
    return np.asarray(effects)


def _boxes(tree, values: list[np.ndarray]) -> np.ndarray:
    """f64[nodes, all values]: 1 where a node's box has that value of that setting."""
    starts = np.cumsum([0, *map(len, values)])
    inside = np.ones((tree.node_count, starts[-1]))
    for node in range(tree.node_count):  # children come after their parents
        left, right, d = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left >= 0:
            inside[left] = inside[right] = inside[node]
            is_left, columns = values[d] <= tree.threshold[node], slice(starts[d], starts[d + 1])
            inside[left, columns] *= is_left
            inside[right, columns] *= ~is_left
    return inside


def _forest(inputs: np.ndarray, targets: np.ndarray, *, seed: int):
    from sklearn.ensemble import RandomForestRegressor  # slow to import

    return RandomForestRegressor(NUM_TREES, random_state=seed).fit(inputs, targets)
