"""Deletion and insertion against plain loops and the rule of RISE's code; gains by resampling."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratic import Quadratic, built
from toys import normal

from vit_jax.analysis.faithfulness import (
    RANDOM,
    area,
    cells_of_pixels,
    faithfulness,
    gain,
    rank_cells,
    step_counts,
)
from vit_jax.analysis.fills import fill_images
from vit_jax.errors import InputError

GRID = (2, 3)
CLASSES = jnp.asarray([2, 0, 1])


def curve_in_loops(model, variables, before, after, relevance, counts, of_class):
    """Scores while cells of `after` take the place of those of `before`."""
    order = sorted(range(6), key=lambda cell: -relevance.ravel()[cell])
    scores = []
    for count in counts:
        image = np.array(before)
        for cell in order[:count]:
            row, column = divmod(cell, 3)
            place = (slice(4 * row, 4 * row + 4), slice(2 * column, 2 * column + 2))
            image[place] = np.asarray(after)[place]
        logits = model.apply(variables, jnp.asarray(image)[None]).logits[0]
        scores.append(jax.nn.softmax(logits)[of_class])
    return scores


def test_curves_and_areas_equal_plain_loops():
    model, variables = built(Quadratic(), (8, 6, 1))
    images, relevance = normal(3, 8, 6, 1), np.random.default_rng(1).normal(size=(3, *GRID))
    settings = dict(classes=CLASSES, steps=4, removed="zero", hidden="blur", batch_size=5)
    found = faithfulness(model, variables, images, {"a": relevance}, seeds=2, **settings)["a"]
    counts = [0, 2, 3, 4, 6]  # 1.5 and 4.5 cells, rounded to even numbers
    np.testing.assert_allclose(found.curves.shares, np.array(counts) / 6)
    blurred = fill_images(images, "blur", size=(4, 2))
    for part, befores, afters in (
        ("deletion", images, jnp.zeros_like(images)),
        ("insertion", blurred, images),
    ):
        expected = [
            curve_in_loops(model, variables, *three, counts, int(of_class))
            for *three, of_class in zip(befores, afters, relevance, CLASSES, strict=True)
        ]
        curves = getattr(found.curves, part)
        np.testing.assert_allclose(curves, expected, rtol=1e-4, atol=1e-6)
        areas = [np.trapezoid(curve, np.array(counts) / 6) for curve in curves]
        mean, error = getattr(found, part)
        assert mean == pytest.approx(np.mean(areas))
        assert error == pytest.approx(np.std(areas, ddof=1) / np.sqrt(3))


def test_area_at_even_steps_is_that_of_the_authors_code():
    scores = np.random.default_rng(0).random((4, 9))
    published = (scores.sum(axis=1) - scores[:, 0] / 2 - scores[:, -1] / 2) / 8
    np.testing.assert_allclose(area(np.linspace(0, 1, 9), scores), published)


def test_cells_come_in_order_and_cover_the_image_in_any_proportion():
    relevance = np.array([[[0.1, 3.0], [-2.0, 0.1]]])
    np.testing.assert_array_equal(rank_cells(relevance), [[1, 0, 3, 2]])  # of equals the first
    np.testing.assert_array_equal(step_counts(4, 99), [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(
        cells_of_pixels((3, 5), (2, 2)), [[0, 0, 1, 1, 1], [2, 2, 3, 3, 3], [2, 2, 3, 3, 3]]
    )


def test_gain_is_a_ratio_of_means_with_the_error_of_resampled_images():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.4, 0.8, 400)
    loss = chance * rng.uniform(0.2, 0.6, 400)
    found = gain(loss, chance)
    assert found.mean == pytest.approx(1 - loss.mean() / chance.mean())
    drawn = rng.integers(0, 400, (4000, 400))
    spread = (1 - loss[drawn].mean(axis=1) / chance[drawn].mean(axis=1)).std()
    # The spread of 4000 draws is known to 1/sqrt(2·4000), about 1 %; and a bootstrap's own bias.
    assert found.error == pytest.approx(spread, rel=0.06)
    same = gain(chance, chance)
    assert same.mean == 0 and same.error == 0
    assert np.isnan(gain(loss[:1], chance[:1]).error)


def test_an_order_by_what_counts_beats_chance_and_its_reverse_does_not():
    """The logits are sums over cells of known weights."""
    model, variables = built(Quadratic(), (8, 6, 1))
    kernel = np.zeros((95, 3), np.float32)
    weights = np.array([0.1, 0.2, 0.4, 0.8, 1.6, 3.2])
    kernel[:48, 1] = weights[cells_of_pixels((8, 6), GRID)].ravel()
    variables = {"params": {"Dense_0": {"kernel": kernel, "bias": np.zeros(3, np.float32)}}}
    images = jnp.abs(normal(4, 8, 6, 1))
    order = np.broadcast_to(weights.reshape(GRID), (4, *GRID))
    found = faithfulness(
        model, variables, images, {"best": order, "worst": -order}, removed="zero", hidden="zero"
    )
    for part in ("deletion_gain", "insertion_gain"):
        best, chance, worst = (getattr(found[name], part) for name in ("best", RANDOM, "worst"))
        assert best.mean > 2 * best.error > 0 and chance == (0, 0)
        assert worst.mean < -2 * worst.error < 0


def test_what_cannot_be_compared_is_refused():
    model, variables = built(Quadratic())
    images, picture = normal(2, 5, 7, 2), np.zeros((2, 3, 3))

    def call(relevances, **settings):
        faithfulness(model, variables, images, relevances, **settings)

    for settings in (dict(steps=0), dict(seeds=0)):
        with pytest.raises(InputError, match="is 0; allowed: 1 or more"):
            call({"a": picture}, **settings)
    with pytest.raises(InputError, match="score is 'logit'"):
        call({"a": picture}, score="logit")
    for relevances in ({}, {RANDOM: picture}):
        with pytest.raises(InputError, match="one or more methods"):
            call(relevances)
    for relevances in ({"a": picture, "b": picture[:, :2]}, {"a": picture[:1]}, {"a": picture[0]}):
        with pytest.raises(InputError, match="the same number of rows and columns"):
            call(relevances)


def test_where_chance_loses_nothing_there_is_no_gain_to_tell():
    with np.errstate(all="raise"):
        found = gain(np.array([0.1, 0.2]), np.zeros(2))
    assert np.isnan(found.mean) and np.isnan(found.error)
    assert f"{gain(np.array([0.1, 0.3]), np.ones(2)):.2f}" == "0.80 ± 0.10"


def test_nothing_is_neither_gained_nor_ranked():
    for loss, by_chance in ((np.zeros(0), np.zeros(0)), (np.ones(2), np.ones(3))):
        with pytest.raises(InputError, match="allowed: of the same, one or more"):
            gain(loss, by_chance)
    with pytest.raises(InputError, match="relevance has 1 NaN of 6; allowed: numbers"):
        rank_cells(np.array([[[0, 1, np.nan], [3, 4, 5]]]))
