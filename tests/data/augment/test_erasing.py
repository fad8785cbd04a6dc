"""Random erasing and Cutout: where they paint, how often, and with what."""

import numpy as np
import pytest
from references import load_timm, load_torchvision
from scipy import stats

from vit_jax.data.augment.erasing import (
    build_cutout,
    build_erasing,
    cutout_box,
    erased_box,
    paint,
)
from vit_jax.data.images.decode import Box
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError

DRAWS = 3000
MEAN, STD = (0.2, 0.5, 0.8), (0.1, 0.05, 0.02)
PREPROCESSING = Preprocessing(image_size=(32, 40), channels=3, mean=MEAN, std=STD)


def erasing(dialect=None, **settings):
    settings = {"probability": 1.0, **settings}
    return build_erasing(preprocessing=PREPROCESSING, dialect=dialect, **settings)


def described(boxes, size):
    """Of boxes top, left, height, width; f64[draws, 4]."""
    top, left, height, width = np.array(boxes, float).T
    return {
        "area": height * width / (size[0] * size[1]),
        "log ratio": np.log(height / width),
        "top": (top + 0.5) / (size[0] - height + 1),
        "left": (left + 0.5) / (size[1] - width + 1),
    }


def draw(size, area, ratio, seed=0):
    rng = np.random.default_rng(seed)
    return [erased_box(size, rng, area=area, ratio=ratio) for _ in range(DRAWS)]


def test_rectangles_follow_the_stated_law():
    size, ratio = (1000, 1000), (0.3, 1 / 0.3)
    # Areas to 0.25 so that every first try fits and the law is not bent by rejection.
    found = described(draw(size, (0.02, 0.25), ratio), size)
    low, high = np.log(ratio)
    assert stats.kstest(found["area"], stats.uniform(0.02, 0.23).cdf).pvalue > 0.01
    assert stats.kstest(found["log ratio"], stats.uniform(low, high - low).cdf).pvalue > 0.01
    for name in ("top", "left"):
        assert stats.kstest(found[name], stats.uniform.cdf).pvalue > 0.01
    wrong = described(draw(size, (0.02, 0.25), (0.3, 3.0)), size)
    assert stats.kstest(wrong["log ratio"], stats.uniform(low, high - low).cdf).pvalue < 1e-3


def assert_same_law(found, expected, other, size):
    found, expected, other = (described(one, size) for one in (found, expected, other))
    for name, values in found.items():
        assert stats.ks_2samp(values, expected[name]).pvalue > 0.01, name
    assert min(stats.ks_2samp(other[name], expected[name]).pvalue for name in found) < 1e-4


@pytest.mark.reference
def test_torchvision_draws_alike():
    load_torchvision()
    import torch
    from torchvision.transforms import RandomErasing

    torch.manual_seed(0)
    size, own, image = (60, 200), erasing("torchvision"), torch.zeros(1, 60, 200)
    reference = RandomErasing()
    assert (own.area, own.ratio) == (reference.scale, reference.ratio)
    expected = [
        reference.get_params(image, reference.scale, reference.ratio, [0.0])[:4]
        for _ in range(DRAWS)
    ]
    expected = [box for box in expected if box[2:] != size]  # the image, where none fitted
    found = draw(size, own.area, own.ratio)
    assert_same_law(found, expected, draw(size, (0.02, 0.25), own.ratio), size)


@pytest.mark.reference
def test_timm_draws_alike():
    load_timm()
    import random

    import torch
    from timm.data.random_erasing import RandomErasing

    random.seed(0)
    size, own = (60, 200), erasing("timm")
    reference = RandomErasing(probability=1.0, mode="const", device="cpu")
    assert own.area == (reference.min_area, reference.max_area)
    np.testing.assert_allclose(np.log(own.ratio), reference.log_aspect_ratio)
    expected = []
    for _ in range(DRAWS):
        rows, columns = np.nonzero(reference(torch.ones(1, *size))[0].numpy() == 0)
        if len(rows):
            top, left = rows.min(), columns.min()
            expected.append((top, left, rows.max() + 1 - top, columns.max() + 1 - left))
    found = draw(size, own.area, own.ratio)
    assert_same_law(found, expected, draw(size, (0.02, 0.25), own.ratio), size)


def erased(transform, image, seed):
    """The image, and where it changed: bool[h,w]."""
    found = transform({"image": image}, np.random.default_rng(seed))["image"]
    return found, (found != image).any(-1)


def flat(value=255):
    return np.full((32, 40, 3), value, np.uint8)


def test_probability():
    transform = erasing(probability=0.3)
    changed = sum(erased(transform, flat(), seed)[1].any() for seed in range(DRAWS))
    assert stats.binomtest(int(changed), DRAWS, 0.3).pvalue > 0.01
    assert stats.binomtest(int(changed), DRAWS, 0.25).pvalue < 1e-6


def test_const_is_the_mean():
    image, where = erased(erasing(), flat(), 0)
    assert where.any() and np.array_equal(image[where], np.tile([51, 128, 204], (where.sum(), 1)))


@pytest.mark.parametrize("mode", ["rand", "pixel"])
def test_noise_is_normal_after_normalisation(mode):
    transform, values = erasing(mode=mode), []
    for seed in range(400):
        image, where = erased(transform, flat(), seed)
        colours = np.unique(image[where], axis=0)
        assert len(colours) == 1 if mode == "rand" else len(colours) > 1
        values.append(image[where][0])
    normalised = (np.array(values) / 255 - MEAN) / STD
    # Whole levels are 0.04, 0.08 and 0.2 deviations apart, small beside a test of 400.
    for channel in normalised.T:
        smooth = channel + np.random.default_rng(0).uniform(-0.5, 0.5, 400) / 255 / 0.05
        assert stats.kstest(smooth, "norm").pvalue > 0.01
        assert stats.kstest(smooth * 1.5, "norm").pvalue < 0.01


def test_more_rectangles_share_the_area():
    """Each has its part of the range, so that the sum stays in it, where they do not overlap."""
    transform = erasing(max_count=4, mode="rand", min_area=0.3, max_area=0.3)
    shares, counts = [], []
    for seed in range(300):
        image, where = erased(transform, flat(), seed)
        shares.append(where.mean())
        counts.append(len(np.unique(image[where], axis=0)))
    assert set(counts) == {1, 2, 3, 4}
    assert max(shares) < 0.33 and np.median(shares) > 0.25


def test_boxes_and_the_given_image_stay():
    image, boxes = flat(), np.float32([[0, 0, 40, 32]])
    example = {"image": image, "boxes": boxes, "label": 1}
    found = erasing()(example, np.random.default_rng(0))
    assert found["boxes"] is boxes and found["label"] == 1 and np.all(image == 255)


def test_videos_lose_the_same_rectangle_in_all_frames():
    video = np.stack([flat(250), flat(255)])
    found = erasing()({"video": video}, np.random.default_rng(0))["video"]
    first, second = (found != video).any(-1)
    assert first.any() and np.array_equal(first, second)


def test_an_image_that_no_rectangle_fits_stays():
    image = np.full((1, 300, 3), 255, np.uint8)
    assert erased_box((1, 300), np.random.default_rng(0), area=(0.5, 1), ratio=(1, 1)) is None
    assert np.array_equal(erased(erasing(), image, 0)[0], image)


def test_cutout_has_its_centre_anywhere():
    rng, size, side = np.random.default_rng(0), (9, 12), 4
    counts = np.zeros(size)
    for _ in range(DRAWS):
        box = cutout_box(size, rng, side=side)
        bottom, right = box.top + box.height, box.left + box.width
        # Its centre is two from the edge that the image did not cut.
        row = bottom - 2 if box.top == 0 else box.top + 2
        column = right - 2 if box.left == 0 else box.left + 2
        counts[row, column] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 0.01


def test_cutout_paints_what_is_asked():
    rng = np.random.default_rng(0)
    for fill, colour in ((None, (51, 128, 204)), (128, (128,) * 3), ((1, 2, 3), (1, 2, 3))):
        transform = build_cutout(side=6, fill=fill, preprocessing=PREPROCESSING)
        found = transform({"image": flat()}, rng)["image"]
        where = (found != 255).any(-1)
        assert 9 <= where.sum() <= 36 and np.all(found[where] == colour)


def test_painting_a_box():
    image = paint({"image": flat(9)}, Box(2, 3, 4, 5), np.uint8([0]))["image"]
    assert np.all(image[2:6, 3:8] == 0) and image.sum() == 9 * 3 * (32 * 40 - 20)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"probability": 0}, "probability is 0"),
        ({"mode": "black"}, "const, rand, pixel"),
        ({"min_area": 0.5}, "min_area and max_area"),
        ({"max_area": 1.5}, "min_area and max_area"),
        ({"min_ratio": 0}, "min_ratio and max_ratio"),
        ({"max_count": 0}, "max_count is 0"),
        ({"max_count": 2, "dialect": "torchvision"}, "max_count is 2.*torchvision"),
        ({"dialect": "keras"}, "big_vision, torchvision, timm"),
    ],
)
def test_erasing_refuses(config, message):
    with pytest.raises(InputError, match=message):
        erasing(**config)


@pytest.mark.parametrize(
    "config, message",
    [
        ({"side": 0}, "side is 0"),
        ({"side": 4, "fill": 300}, "fill is"),
        ({"side": 4, "fill": (1, 2)}, "fill is"),
        ({"side": 4, "probability": 2}, "probability is 2"),
    ],
)
def test_cutout_refuses(config, message):
    with pytest.raises(InputError, match=message):
        build_cutout(preprocessing=PREPROCESSING, **config)
