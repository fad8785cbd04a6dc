"""Corruptions depend on the image alone, hurt more the stronger they are, and take any image.

Letters: h, w, c = height, width, channels.
"""

import itertools
import pickle

import numpy as np
import pytest
from scipy import ndimage

from vit_jax.data import pipeline
from vit_jax.data.corruptions import digital
from vit_jax.data.corruptions.corrupt import COMMON, CORRUPTIONS, EXTRA, Corruption, corrupt
from vit_jax.data.corruptions.settings import SETTINGS, SEVERITIES, SIZES, nearest_size
from vit_jax.errors import InputError


def scene(height, width, channels=3, *, seed=0):
    """Smooth shades, a bright square and a little texture: something that each can hurt."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    phase = rng.uniform(0, 6, size=(channels, 2))
    waves = np.sin(9 * y[..., None] / height + phase[:, 0]) * np.cos(
        7 * x[..., None] / width + phase[:, 1]
    )
    image = 90 + 50 * waves + rng.normal(0, 6, size=(height, width, channels))
    image[height // 4 : height // 2, width // 3 : width // 2] += 60
    return np.clip(image, 0, 255).astype(np.uint8)


def damage(image, name, severity):
    found = corrupt(image, name, severity=severity)
    return np.mean((found.astype(float) - image) ** 2)


def test_there_are_fifteen_and_four_and_each_has_its_settings():
    assert (len(COMMON), len(EXTRA)) == (15, 4) and CORRUPTIONS.keys() == SETTINGS.keys()
    for name, sizes in SETTINGS.items():
        assert tuple(sizes) == SIZES, name
        for columns in sizes.values():
            assert {len(values) for values in columns.values()} == {len(SEVERITIES)}, name


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_any_size_and_grey_or_colour(name):
    sizes = [(1, 1), (2, 3), (8, 8), (33, 47), (28, 28)]
    for (height, width), channels, severity in itertools.product(sizes, (1, 3), (1, 5)):
        image = scene(height, width, channels)
        before = image.copy()
        found = corrupt(image, name, severity=severity)
        assert (found.shape, found.dtype) == (image.shape, np.uint8)
        np.testing.assert_array_equal(image, before)


# Weak elastic transforms move the whole image, at 224 pixels by up to a fifth of its side; strong
# ones move small parts of it.
SHRINKS = {"elastic_transform"}


@pytest.mark.parametrize("size", SIZES)
def test_severity_hurts_more_on_average(size):
    """By the mean squared error; each from first to last, and at each step all together."""
    images = [scene(size, size, seed=seed) for seed in range(2 if size == 224 else 8)]
    shares = []
    for name in CORRUPTIONS:
        means = np.array([np.mean([damage(i, name, s) for i in images]) for s in SEVERITIES])
        assert means.min() > 0, name
        assert (means[0] < means[-1]) != (name in SHRINKS), name
        shares.append(means / means.max())
    assert (np.diff(np.mean(shares, axis=0)) > 0).all()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_same_pixels_same_corruption_and_other_pixels_another(name):
    image, severity = scene(20, 24), 3
    again = np.asfortranarray(image.copy())
    first = corrupt(image, name, severity=severity)
    np.testing.assert_array_equal(first, corrupt(again, name, severity=severity))
    moved = Corruption(name, severity)
    found = pickle.loads(pickle.dumps(moved))({"image": image, "label": 3})
    np.testing.assert_array_equal(found["image"], first)
    assert found["label"] == 3 and repr(moved) != repr(Corruption(name, 4))


@pytest.mark.parametrize("name", ["gaussian_noise", "snow", "frost", "motion_blur"])
def test_random_numbers_differ_by_image_and_severity(name):
    """Noise that all images share would be learned, not suffered."""
    dark = np.zeros((16, 16, 1), np.uint8)
    images = [dark, dark + np.uint8(1)]
    images[0][:8], images[1][:8] = 200, 201
    differences = [corrupt(i, name, severity=5).astype(int) - i for i in images]
    assert (differences[0] != differences[1]).mean() > 0.02


@pytest.mark.parametrize("name", ["impulse_noise", "glass_blur", "elastic_transform"])
def test_neither_hosts_nor_batches_nor_workers_matter(name):
    def images(*, batch_size=4, **reading):
        splits = pipeline.Splits(
            origin=pipeline.Origin(source="digits"),
            training_split="train",
            preprocessing=BUILT.preprocessing,
            class_names=BUILT.class_names,
            reading=reading,
        )
        data = splits.open(
            pipeline.EvalSettings(split="test[:9]"),
            batch_size=batch_size,
            transform=Corruption(name, 4),
        )
        return {
            int(batch["index"][k]): batch["image"][k]
            for batch in data
            for k in np.flatnonzero(batch["mask"])
        }

    whole = images(num_threads=2)
    parts = [images(batch_size=6, process_index=i, process_count=2) for i in range(2)]
    parts += [images(batch_size=2, num_workers=1)]
    together = parts[0] | parts[1]
    assert set(parts[0]) | set(parts[1]) == set(whole) == set(parts[2]) == set(range(9))
    for i, image in whole.items():
        np.testing.assert_array_equal(image, together[i])
        np.testing.assert_array_equal(image, parts[2][i])


BUILT = pipeline.build(source="digits", batch_size=4, image_size=8, seed=0)


# Others draw numbers for each channel, or have colours of their own.
COLOURLESS = [n for n in CORRUPTIONS if not n.endswith("noise") and n not in ("frost", "spatter")]


@pytest.mark.parametrize("name", COLOURLESS)
def test_grey_is_what_equal_channels_would_be(name):
    grey = scene(32, 32, 1)
    three = np.repeat(grey, 3, axis=2)
    found, colour = (
        corrupt(image, name, severity=2, rng=np.random.default_rng(0)) for image in (grey, three)
    )
    # A level is lost where sums in another order fall just below a whole number.
    assert abs(found.astype(int) - colour).max() <= 1


def test_elastic_displacements_are_smooth_noise_of_the_given_strength():
    """A ramp that is displaced shows by how much, since interpolation is exact on it."""
    y, x = np.mgrid[:40, :40]
    ramp = np.stack([5 * y, 5 * x, 5 * (39 - x)], axis=2).astype(np.uint8)
    settings = dict(strength=0.1, sigma=0.05, corners=0.0)
    found = digital.elastic_transform(ramp, np.random.default_rng(0), **settings)
    inner = (slice(8, -8), slice(8, -8))
    down, right, left = np.moveaxis((found - ramp)[inner] / 5, 2, 0)
    np.testing.assert_allclose(right, -left, atol=1e-4)  # float32
    noise = np.random.default_rng(0)
    noise.uniform(size=(3, 2))  # which the corners took
    expected = 0.1 * 40 * ndimage.gaussian_filter(noise.uniform(-1, 1, (2, 40, 40)), (0, 2, 2),
                                                  mode="reflect", truncate=3)  # fmt: skip
    for values, wanted in zip((right, down), expected, strict=True):
        np.testing.assert_allclose(values, wanted[inner], atol=1e-4)
    assert right.std() > 0.05


def test_affine_part_of_elastic_transforms_keeps_lines_straight():
    y, x = np.mgrid[:64, :64]
    ramp = (60 + y + x).astype(np.uint8)[..., None]
    settings = dict(strength=0.0, sigma=0.0, corners=0.05)
    found = digital.elastic_transform(ramp, np.random.default_rng(1), **settings)[12:-12, 12:-12, 0]
    # OpenCV reads places to 1/32 of a pixel.
    for axis in (0, 1):
        assert abs(np.diff(found, 2, axis=axis)).max() < 0.15
    assert abs(found - ramp[12:-12, 12:-12, 0]).max() > 0.5


@pytest.mark.parametrize("side, expected", [(1, 32), (45, 32), (46, 64), (119, 64), (120, 224)])
def test_settings_are_of_the_nearest_size(side, expected):
    assert nearest_size(side, side) == nearest_size(side, 3 * side) == expected


def test_mistakes_are_told():
    image = scene(8, 8)
    with pytest.raises(InputError, match="severity is 6; allowed: 1 to 5"):
        Corruption("fog", 6)
    with pytest.raises(InputError, match="corruption is 'fogg'.*fog.*; allowed: gaussian_noise"):
        corrupt(image, "fogg", severity=1)
    with pytest.raises(InputError, match=r"fog found an image float32\[8, 8, 3\]; allowed: uint8"):
        corrupt(image.astype(np.float32), "fog", severity=1)
    with pytest.raises(InputError, match=r"uint8\[8, 8, 4\]; allowed"):
        corrupt(np.zeros((8, 8, 4), np.uint8), "fog", severity=1)
    with pytest.raises(InputError, match="found an example with video; allowed: an image"):
        Corruption("fog", 1)({"video": None})


@pytest.mark.parametrize("severity", [1.0, "1", None, 2.5])
def test_severity_is_a_whole_number(severity):
    with pytest.raises(InputError, match=f"severity is {severity!r}; allowed: 1 to 5"):
        corrupt(scene(8, 8), "fog", severity=severity)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_is_no_image_is_refused(name):
    for image, found in (
        (np.zeros((0, 8, 3), np.uint8), r"an image uint8\[0, 8, 3\]"),
        (scene(8, 8).tolist(), "a list"),
    ):
        with pytest.raises(InputError, match=f"{name} found {found}; allowed: uint8"):
            corrupt(image, name, severity=1)
