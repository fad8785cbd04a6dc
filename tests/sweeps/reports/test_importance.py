"""Importance is the analysis of variance of the forest, found by brute force too."""

import itertools

import numpy as np
import pytest
import synthetic_sweeps as synthetic
from sklearn.tree import DecisionTreeRegressor

from vit_jax.sweeps.folder import State
from vit_jax.sweeps.reports import importance
from vit_jax.sweeps.reports.findings import NOT_SET, gather


def test_main_effects_of_a_tree_are_those_of_its_predictions_on_the_whole_grid():
    """Every combination of values that were tried, weighted by how often each was."""
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, (2, 3, 4), (30, 3)).astype(float)
    targets = inputs @ [1.0, -2.0, 0.0] + inputs[:, 0] * inputs[:, 2] + rng.normal(0, 0.1, 30)
    tree = DecisionTreeRegressor(random_state=0).fit(inputs, targets)
    found = importance.tree_effects(tree.tree_, inputs)

    values = [np.unique(column, return_counts=True) for column in inputs.T]
    grid = np.asarray(list(itertools.product(*(value for value, _ in values))))
    weights = np.prod(list(itertools.product(*(count / 30 for _, count in values))), axis=1)
    heights = tree.predict(grid)
    mean = weights @ heights
    for d in range(3):
        effect = 0.0
        for value in np.unique(grid[:, d]):
            here = grid[:, d] == value
            share = weights[here].sum()
            effect += share * (weights[here] @ heights[here] / share - mean) ** 2
        assert found[d] == pytest.approx(effect / (weights @ (heights - mean) ** 2))


def test_an_additive_metric_is_explained_by_its_settings_alone():
    """On a grid with y = 2a + b the shares are those of the variances, 4 to 1; c has none."""
    grid = np.asarray(list(itertools.product(range(4), repeat=3)), float)
    shares = importance.main_effects(grid, 2 * grid[:, 0] + grid[:, 1], seed=0)
    # Bootstrap samples lack a third of the grid, so trees err by a few hundredths.
    np.testing.assert_allclose(shares, [0.8, 0.2, 0.0], atol=0.05)


def test_a_product_of_centred_settings_is_all_interaction():
    grid = np.asarray(list(itertools.product(range(4), repeat=2)) * 4, float)
    targets = (grid[:, 0] - 1.5) * (grid[:, 1] - 1.5)
    assert importance.main_effects(grid, targets, seed=0).sum() < 0.05  # by the same errors


def test_codes_keep_the_order_of_numbers_and_set_apart_what_is_none():
    found = importance.codes([10.0, 2, NOT_SET, "adam", 2.0, True])
    assert found[4] == found[1] < found[0]
    assert max(found[2], found[3], found[5]) < found[1] and len(set(found)) == 5


def sweep(path, value, *, points=16, state=State.FINISHED):
    folder, rng = synthetic.new_sweep(path), np.random.default_rng(0)
    for rate, decay in rng.uniform(0, 1, (points, 2)):
        overrides = {"optimizer.learning_rate": rate, "optimizer.weight_decay": decay}
        synthetic.add(folder, overrides, value(rate, decay), state=state)
    return gather(folder)


def test_the_setting_that_matters_comes_first(tmp_path):
    found = importance.of(sweep(tmp_path / "a", lambda rate, decay: 0.1 * rate + 0.5 * decay))
    assert not found.why_not and found.determination > 0.5
    assert list(found.shares) == ["weight_decay", "learning_rate"]
    total = sum(mean for mean, _ in found.shares.values()) + found.interactions[0]
    assert total == pytest.approx(1)


@pytest.mark.parametrize(
    "settings, why",
    [
        (dict(points=7), "need at least 8"),
        (dict(state=State.PRUNED), "need at least 8"),
        (dict(value=lambda *_: 0.5), "the same everywhere"),
        (dict(value=lambda rate, _: hash(rate) % 97 / 97, points=24), "no better than the mean"),
    ],
)
def test_nothing_is_said_where_nothing_is_known(settings, why, tmp_path):
    found = importance.of(sweep(tmp_path / "a", **{"value": lambda rate, _: rate, **settings}))
    assert why in found.why_not and not found.shares


def test_one_setting_is_compared_with_nothing(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "a")
    for i in range(10):
        synthetic.add(folder, {"task.model.depth": i}, 0.1 * i)
    assert "compares settings" in importance.of(gather(folder)).why_not
