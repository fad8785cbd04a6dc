"""Colour jitter, blur and the like follow torchvision's law."""

import pickle
from collections import Counter

import numpy as np
import pytest
import references
from pictures import images
from PIL import Image
from scipy import stats

from vit_jax.data.augment import colour, jitter
from vit_jax.errors import InputError

DRAWS = 4000
STRENGTHS = dict(brightness=0.4, contrast=0.3, saturation=1.5, hue=0.1)
STEPS = {
    "color_jitter": jitter.build_color_jitter(**STRENGTHS, probability=0.7),
    "grayscale": jitter.build_grayscale(probability=0.3),
    "blur": jitter.build_gaussian_blur(probability=0.6, min_radius=0.5),
    "kernel_blur": jitter.build_gaussian_blur(probability=0.6, min_radius=0.5, kernel_size=5),
    "solarize": jitter.build_solarize(probability=0.2, threshold=100),
}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_done_with_its_probability_and_draws_from_the_generator(name):
    step, example = STEPS[name], {"image": images()["noise"][:6, :6]}
    copy, changed = pickle.loads(pickle.dumps(step)), 0
    for k in range(1000):
        result = step(example, np.random.default_rng(k))["image"]
        again = copy(example, np.random.default_rng(k))["image"]
        assert np.array_equal(result, again) and result.shape == (6, 6, 3)
        changed += not np.array_equal(result, example["image"])
    expected = stats.binom(1000, step.probability)
    assert expected.ppf(1e-3) <= changed <= expected.ppf(1 - 1e-3)


@pytest.mark.parametrize("name", STEPS)
def test_grey_images_stay_grey(name):
    image = images(1)["noise"]
    for k in range(20):
        result = STEPS[name]({"image": image}, np.random.default_rng(k))["image"]
        assert result.shape == image.shape and result.dtype == np.uint8


def test_jitter_draws_uniform_factors_in_uniform_order():
    rng = np.random.default_rng(0)
    drawn = [jitter.draw_jitter(rng, **STRENGTHS) for _ in range(DRAWS)]
    orders = Counter(tuple(name for name, _ in steps) for steps in drawn)
    assert len(orders) == 24 and stats.chisquare(list(orders.values())).pvalue > 0.01
    laws = {
        "brightness": (0.6, 1.4),
        "contrast": (0.7, 1.3),
        "saturation": (0.0, 2.5),
        "hue": (-0.1, 0.1),
    }
    for name, (low, high) in laws.items():
        values = [dict(steps)[name] for steps in drawn]
        assert stats.kstest(values, stats.uniform(low, high - low).cdf).pvalue > 0.01


def test_a_strength_of_zero_leaves_its_step_out():
    rng = np.random.default_rng(0)
    steps = jitter.draw_jitter(rng, brightness=0, contrast=0.3, saturation=0, hue=0)
    assert [name for name, _ in steps] == ["contrast"]


def test_blur_radius_is_uniform(monkeypatch):
    seen, rng = [], np.random.default_rng(0)
    monkeypatch.setattr(colour, "gaussian_blur", lambda image, radius: seen.append(radius) or image)
    step = jitter.build_gaussian_blur(probability=1.0, min_radius=0.5, max_radius=1.5)
    for _ in range(DRAWS):
        step({"image": images()["even"]}, rng)
    assert stats.kstest(seen, stats.uniform(0.5, 1).cdf).pvalue > 0.01


def test_the_frames_of_a_video_change_alike():
    frame = images()["noise"]
    for name, step in STEPS.items():
        for k in range(5):
            result = step({"video": np.stack([frame] * 3)}, np.random.default_rng(k))["video"]
            expected = step({"image": frame}, np.random.default_rng(k))["image"]
            assert np.array_equal(result, np.stack([expected] * 3)), name


@pytest.mark.reference
def test_jitter_equals_torchvision():
    """The same factors in the same order give the same pixels; the factors have the same law."""
    transforms = references.load_torchvision().transforms
    import torch

    torch.manual_seed(0)
    functional, image = transforms.functional, images()["noise"]
    rng, names = np.random.default_rng(0), tuple(STRENGTHS)
    for _ in range(30):
        steps = jitter.draw_jitter(rng, **STRENGTHS)
        expected = Image.fromarray(image)
        for name, setting in steps:
            expected = getattr(functional, f"adjust_{name}")(expected, setting)
        np.testing.assert_array_equal(jitter.apply_jitter(image, steps), np.asarray(expected))
    theirs = transforms.ColorJitter(**STRENGTHS)
    settings = (theirs.brightness, theirs.contrast, theirs.saturation, theirs.hue)
    drawn = np.array([theirs.get_params(*settings)[1:] for _ in range(DRAWS)])
    ours = [dict(jitter.draw_jitter(rng, **STRENGTHS)) for _ in range(DRAWS)]
    for k, name in enumerate(names):
        assert stats.ks_2samp([one[name] for one in ours], drawn[:, k]).pvalue > 0.01


@pytest.mark.parametrize(
    "builder, settings, message",
    [
        ("color_jitter", {}, "changes nothing"),
        ("color_jitter", {"brightness": -0.1}, "0 or more"),
        ("color_jitter", {"hue": 0.6}, "0 to 0.5"),
        ("color_jitter", {"hue": 0.1, "probability": 0}, "at most 1"),
        ("grayscale", {"probability": 1.1}, "at most 1"),
        ("gaussian_blur", {"min_radius": 3}, "0 < min_radius <= max_radius"),
        ("gaussian_blur", {"kernel_size": 4}, "odd number"),
        ("solarize", {"threshold": 256}, "0 to 255"),
    ],
)
def test_builders_refuse(builder, settings, message):
    with pytest.raises(InputError, match=message):
        getattr(jitter, f"build_{builder}")(**settings)
