"""Resizing by two laws: what both must do, and what tf.image.resize says of the second."""

import numpy as np
import pytest
from references import load_tensorflow

from vit_jax.data.images.resampling import Resample, resize
from vit_jax.errors import InputError

SIZES = [
    ((300, 400), (224, 224)),
    ((64, 48), (32, 16)),
    ((37, 53), (64, 80)),
    ((9, 200), (50, 20)),
    ((1, 1), (3, 4)),
]
OPENCV = [("bilinear", False), ("area", True), ("area", False)]


def noise(h, w, c, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)


@pytest.mark.parametrize("interpolation, antialias", OPENCV)
@pytest.mark.parametrize("c", [1, 2, 3, 4, 6])
def test_channels_do_not_mix_and_constants_stay(interpolation, antialias, c):
    image = noise(20, 23, c)
    found = resize(image, (9, 30), interpolation, antialias=antialias)
    assert found.shape == (9, 30, c) and found.dtype == np.uint8
    for k in range(c):
        alone = resize(image[..., k : k + 1], (9, 30), interpolation, antialias=antialias)
        assert np.array_equal(alone[..., 0], found[..., k])
    constant = resize(np.full((20, 23, c), 77, np.uint8), (9, 30), interpolation)
    # Cut off to whole levels, a sum of weights that falls below one by rounding loses a level.
    assert np.all((constant == 77) | (constant == 76))


def test_without_antialiasing_a_shrunk_image_is_sampled():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, 3::8] = 255  # every eighth column, one of the two that bilinear reads
    sampled = resize(stripes, (64, 8), "bilinear", antialias=False)
    averaged = resize(stripes, (64, 8), "bilinear")
    assert np.all(sampled == 127) and averaged.max() < 45
    assert np.all(resize(stripes, (64, 8), "area") == 255 // 8)


def test_area_is_the_mean_of_whole_blocks():
    image = noise(60, 48, 3)
    means = image.reshape(20, 3, 12, 4, 3).astype(float).mean(axis=(1, 3))
    found = resize(image, (20, 12), "area")
    assert np.abs(found - np.floor(means)).max() <= 1
    # The float32 sum decides at whole means alone, one of them in twelve.
    assert np.mean(found != np.floor(means)) < 1 / 12


@pytest.mark.parametrize("interpolation, antialias", OPENCV)
def test_a_box_is_what_is_cut(interpolation, antialias):
    image = noise(30, 40, 3)
    boxed = resize(image, (7, 9), interpolation, antialias=antialias, box=(5, 4, 25, 24))
    cut = resize(image[4:24, 5:25], (7, 9), interpolation, antialias=antialias)
    assert np.array_equal(boxed, cut)


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos", "box", "spline"])
def test_refuses_what_is_not_offered(interpolation):
    with pytest.raises(InputError, match="nearest, bilinear.*area"):
        resize(noise(4, 4, 3), (2, 2), interpolation, antialias=False)
    with pytest.raises(InputError, match="area"):
        Resample(interpolation, antialias=False).check(where="interpolation")


def test_refuses_a_box_of_parts_of_pixels_where_only_pillow_can():
    with pytest.raises(InputError, match="whole pixels"):
        resize(noise(4, 4, 3), (2, 2), "area", box=(0, 0.5, 4, 4))


@pytest.mark.reference
@pytest.mark.parametrize("method, antialias", [("bilinear", False), ("area", False)])
@pytest.mark.parametrize("size, target", SIZES)
def test_equals_tensorflow(method, antialias, size, target):
    tensorflow = load_tensorflow()
    image = noise(*size, 3)
    exact = tensorflow.image.resize(image, target, method=method, antialias=False).numpy()
    found = resize(image, target, method, antialias=antialias).astype(float)
    # Both compute in float32, in another order; 0.02 levels were seen at most. Cut off to whole
    # levels, ours is within that of the floor.
    assert np.all((found <= exact + 0.02) & (exact - 0.02 < found + 1))


@pytest.mark.reference
def test_nearest_equals_tensorflow():
    tensorflow = load_tensorflow()
    for size, target in SIZES:
        image = noise(*size, 3)
        expected = tensorflow.image.resize(image, target, method="nearest").numpy()
        assert np.array_equal(resize(image, target, "nearest"), expected)
