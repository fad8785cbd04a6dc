"""Augmentations follow their stated laws; nothing configured is ignored."""

import math

import numpy as np
import pytest
from scipy import stats

from vit_jax.data.augment import build as augment
from vit_jax.data.image import Preprocessing
from vit_jax.errors import InputError

DRAWS = 4000


def noise(h, w, c, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)


def boxes(size, min_area, max_area):
    rng = np.random.default_rng(0)
    drawn = [augment.crop_box(size, rng, min_area, max_area) for _ in range(DRAWS)]
    return np.array(drawn, float).T


def test_crop_box_follows_the_inception_law():
    # Areas to 0.5 so that every first try fits and the law is not bent by rejection.
    top, left, height, width = boxes((1000, 1000), 0.08, 0.5)
    area, log_ratio = height * width / 1e6, np.log(width / height)
    low, high = np.log(augment.ASPECT_RATIOS)
    assert stats.kstest(area, stats.uniform(0.08, 0.42).cdf).pvalue > 0.01
    assert stats.kstest(log_ratio, stats.uniform(low, high - low).cdf).pvalue > 0.01
    assert abs(area.mean() - 0.29) < 4 * 0.42 / math.sqrt(12 * DRAWS)
    for offset, side in ((top, height), (left, width)):
        assert stats.kstest(offset / (1000 - side), stats.uniform.cdf).pvalue > 0.01


@pytest.mark.parametrize("size", [(8, 8), (50, 300), (300, 50), (1, 1), (1, 500)])
def test_crop_box_stays_inside(size):
    top, left, height, width = boxes(size, 0.08, 1.0)
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
    assert (top + height).max() <= size[0] and (left + width).max() <= size[1]
    if min(size) >= 50:
        ratio = width / height
        assert ratio.min() > 0.7 and ratio.max() < 1.4


def test_crop_box_falls_back_to_the_largest_centred_box():
    rng = np.random.default_rng(0)
    # Nine tenths of so long an image never have an allowed ratio.
    assert augment.crop_box((300, 3000), rng, 0.9, 1.0) == (0, 1300, 300, 400)
    assert augment.crop_box((3000, 300), rng, 0.9, 1.0) == (1300, 0, 400, 300)


@pytest.mark.parametrize("c", [1, 3, 5])
def test_random_resized_crop_shapes(c):
    rng = np.random.default_rng(0)
    result = augment.random_resized_crop(noise(20, 30, c), rng, size=(7, 9))
    assert result.shape == (7, 9, c) and result.dtype == np.uint8


def test_random_flip_frequency():
    rng, image = np.random.default_rng(0), np.arange(6, dtype=np.uint8).reshape(1, 3, 2)
    for probability in (0.0, 0.3, 1.0):
        drawn = [augment.random_flip(image, rng, probability=probability) for _ in range(DRAWS)]
        flips = sum(not np.array_equal(one, image) for one in drawn)
        spread = math.sqrt(DRAWS * probability * (1 - probability))
        assert abs(flips - DRAWS * probability) <= 4 * spread
    assert np.array_equal(drawn[0], image[:, ::-1])


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_pad_and_shift_is_padding_and_cropping_at_uniform_offsets(mode):
    image, padding = noise(5, 6, 2), 3
    padded = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)), mode=mode)
    crops = {
        padded[y : y + 5, x : x + 6].tobytes(): (y, x)
        for y in range(2 * padding + 1)
        for x in range(2 * padding + 1)
    }
    rng, counts = np.random.default_rng(0), np.zeros((7, 7))
    for _ in range(DRAWS):
        shifted = augment.pad_and_shift(image, rng, padding=padding, mode=mode)
        counts[crops[shifted.tobytes()]] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 0.01


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"flip_probability": 0.5},
        {"crop": "resized", "min_area": 0.25, "max_area": 0.9, "flip_probability": 0.5},
        {"crop": "shift", "padding": 4},
        {"crop": "shift", "padding": 5, "padding_mode": "reflect"},
    ],
)
@pytest.mark.parametrize("c, channels", [(1, 3), (3, 1), (3, 3), (5, 5)])
def test_build_augment_is_a_function_of_the_generator(config, c, channels):
    preprocessing = Preprocessing(image_size=(6, 9), channels=channels)
    transform, image = (
        augment.build_augment(preprocessing=preprocessing, **config),
        noise(12, 10, c),
    )
    before = image.copy()
    results = [transform(image, np.random.default_rng(seed)) for seed in range(20)]
    assert all(r.shape == preprocessing.image_shape and r.dtype == np.uint8 for r in results)
    again = transform(image, np.random.default_rng(3))
    assert np.array_equal(again, results[3]) and np.array_equal(image, before)
    kinds = {r.tobytes() for r in results}
    assert len(kinds) == 1 if not config else len(kinds) > 1
    if not config:
        assert np.array_equal(results[0], preprocessing(image))


@pytest.mark.parametrize(
    "config, message",
    [
        ({"crop": "random"}, "none, resized, shift"),
        ({"min_area": 0.5}, "augment.min_area has no effect with crop='none'"),
        ({"crop": "shift", "padding": 2, "max_area": 0.5}, "augment.max_area has no effect"),
        ({"crop": "resized", "padding": 2}, "set crop='shift'"),
        ({"padding_mode": "reflect"}, "augment.padding_mode has no effect"),
        ({"crop": "shift"}, "padding is 0"),
        ({"crop": "shift", "padding": 1.5}, "padding is 1.5"),
        ({"crop": "shift", "padding": 8, "padding_mode": "reflect"}, "1 to 7 pixels"),
        ({"crop": "shift", "padding": 2, "padding_mode": "wrap"}, "constant, reflect"),
        ({"crop": "resized", "min_area": 0}, "min_area"),
        ({"crop": "resized", "min_area": 0.9, "max_area": 0.5}, "min_area"),
        ({"flip_probability": 1.5}, "allowed: 0 to 1"),
        ({"flip_probability": "yes"}, "finite number"),
    ],
)
def test_build_augment_refuses(config, message):
    preprocessing = Preprocessing(image_size=(8, 8), channels=3)
    with pytest.raises(InputError, match=message):
        augment.build_augment(preprocessing=preprocessing, **config)
