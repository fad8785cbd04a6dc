"""Occlusion against a loop over windows; fills; scores of models of every kind."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from quadratic import Quadratic, built
from toys import normal

from vit_jax import models
from vit_jax.analysis.fills import fill_images
from vit_jax.analysis.occlusion import occlusion, spans
from vit_jax.analysis.scores import Scorer
from vit_jax.errors import InputError


def scores_one_by_one(model, variables, image, whole, score, of_class):
    output = model.apply(variables, image[None])
    if score == "similarity":
        one, other = output.representation[0], whole.representation[0]
        return one @ other / (jnp.linalg.norm(one) * jnp.linalg.norm(other))
    logits = output.logits[0]
    values = dict(
        logit=logits, probability=jax.nn.softmax(logits), sigmoid=1 / (1 + jnp.exp(-logits))
    )
    return values[score][of_class]


@pytest.mark.parametrize(
    "score, fill, window, stride, batch_size",
    [
        ("probability", "mean", (2, 3), None, 64),
        ("logit", "zero", (3, 3), (2, 2), 5),
        ("sigmoid", "blur", (1, 7), (1, 2), 1),
        ("similarity", "mean", (4, 2), (3, 3), 7),
    ],
)
def test_drops_equal_a_loop_over_windows(score, fill, window, stride, batch_size):
    model, variables = built(Quadratic())
    images = normal(3, 5, 7, 2)
    settings = dict(window=window, stride=stride, score=score, fill=fill, batch_size=batch_size)
    found = np.asarray(occlusion(model, variables, images, **settings))
    filled = fill_images(images, fill, size=window)
    for i, image in enumerate(images):
        whole = model.apply(variables, image[None])
        settings = (whole, score, int(whole.logits[0].argmax()))
        kept = scores_one_by_one(model, variables, image, *settings)
        for row, (top, bottom) in enumerate(spans(5, window[0], (stride or window)[0])):
            for column, (left, right) in enumerate(spans(7, window[1], (stride or window)[1])):
                hidden = np.array(image)
                hidden[top:bottom, left:right] = filled[i, top:bottom, left:right]
                lost = kept - scores_one_by_one(model, variables, jnp.asarray(hidden), *settings)
                np.testing.assert_allclose(found[i, row, column], lost, rtol=1e-4, atol=1e-5)
    assert np.ptp(found) > 1e-3


def test_windows_are_centred_on_cells_and_cut_at_the_border():
    np.testing.assert_array_equal(spans(8, 4, 4), [[0, 4], [4, 8]])
    np.testing.assert_array_equal(spans(7, 3, 3), [[0, 3], [3, 6], [6, 7]])
    np.testing.assert_array_equal(spans(8, 6, 4), [[0, 5], [3, 8]])
    np.testing.assert_array_equal(spans(4, 1, 2), [[0, 1], [2, 3]])


def test_fills():
    images = normal(2, 6, 5, 3)
    mean = fill_images(images, "mean", size=(2, 2))
    np.testing.assert_allclose(mean[1, 3, 2], np.asarray(images[1]).mean(axis=(0, 1)), rtol=1e-4)
    assert mean.shape == images.shape and not np.any(fill_images(images, "zero", size=(2, 2)))
    blurred = np.asarray(fill_images(images, "blur", size=(2.0, 1.0)))
    expected = np.zeros(3)
    total = 0.0
    for y in range(6):
        for x in range(5):
            weight = np.exp(-((y - 1) ** 2) / (2 * 4) - (x - 4) ** 2 / 2)
            expected, total = expected + weight * np.asarray(images[0, y, x]), total + weight
    np.testing.assert_allclose(blurred[0, 1, 4], expected / total, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="fill"):
        fill_images(images, "grey", size=(2, 2))


def test_any_model_is_occluded():
    images = normal(1, 32, 32, 3)
    for name, settings in (
        ("resnet", dict(stages=(1,), num_classes=0)),
        ("mixer", dict(width=8, depth=1, token_mlp_dim=4, channel_mlp_dim=8, patch_size=16)),
    ):
        model, variables = built(models.build(name, **{"num_classes": 2, **settings}), (32, 32, 3))
        found = occlusion(model, variables, images, window=(16, 32))
        assert found.shape == (1, 2, 1) and np.ptp(found) > 0, name


def test_what_cannot_be_scored_is_refused():
    model, variables = built(Quadratic())
    headless, without = built(Quadratic(num_classes=0))
    images = normal(2, 5, 7, 2)
    for window in ((0, 2), (6, 2)):
        with pytest.raises(InputError, match=r"window is .* pixels; allowed: from 1 to \(5, 7\)"):
            occlusion(model, variables, images, window=window)
    assert Scorer(headless, without, images).score == "similarity"
    with pytest.raises(InputError, match="has no head; allowed: 'similarity'"):
        Scorer(headless, without, images, score="probability")
    with pytest.raises(InputError, match="classes are given, but score is 'similarity'"):
        Scorer(headless, without, images, classes=jnp.asarray([0, 1]))
    with pytest.raises(InputError, match=r"classes are \[0, 3\]; allowed"):
        Scorer(model, variables, images, classes=jnp.asarray([0, 3]))
    with pytest.raises(InputError, match="batch_size is 0"):
        Scorer(model, variables, images, batch_size=0)
