"""Random crops follow their stated laws, and those of the libraries that they are named after.

A law is compared with its distribution function, or with draws of the library, by the test of
Kolmogorov and Smirnov at 1%; that each comparison can fail is shown by a wrong law that does.
"""

import numpy as np
import pytest
from PIL import Image
from references import load_tensorflow, load_timm, load_torchvision
from scipy import stats

from vit_jax.data.augment.crop_laws import uniform_area, uniform_height
from vit_jax.data.augment.crops import RANDOM, InceptionCrop, ResizedWindow, shift_image
from vit_jax.data.dialects import DIALECTS
from vit_jax.data.images.resampling import Resample

DRAWS = 4000
LAWS = {"uniform_area": uniform_area, "uniform_height": uniform_height}


def noise(h, w, c, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)


def boxes(law, size, *, area, ratio=(3 / 4, 4 / 3), attempts=10, draws=DRAWS, seed=0):
    """top, left, height, width; f64[4, draws]."""
    rng = np.random.default_rng(seed)
    drawn = [law(size, rng, area=area, ratio=ratio, attempts=attempts) for _ in range(draws)]
    return np.array(drawn, float).T


def of_dialect(name, size, draws=DRAWS):
    own = DIALECTS[name]
    return boxes(
        LAWS[own.crop_law],
        size,
        area=own.crop_area,
        ratio=own.crop_ratio,
        attempts=own.crop_attempts,
        draws=draws,
    )


def described(drawn, size):
    """What two laws may differ in; the relative offsets only where there is room."""
    top, left, height, width = drawn
    found = {
        "area": height * width / (size[0] * size[1]),
        "log ratio": np.log(width / height),
        "height": height / size[0],
    }
    for name, offset, side, whole in (
        ("top", top, height, size[0]),
        ("left", left, width, size[1]),
    ):
        room = side < whole
        found[name] = (offset[room] + 0.5) / (whole - side[room])
    return found


# the stated laws


def test_uniform_area():
    # Areas to 0.5 so that every first try fits and the law is not bent by rejection.
    drawn = boxes(uniform_area, (1000, 1000), area=(0.08, 0.5))
    found, (low, high) = described(drawn, (1000, 1000)), np.log([3 / 4, 4 / 3])
    assert stats.kstest(found["area"], stats.uniform(0.08, 0.42).cdf).pvalue > 0.01
    assert stats.kstest(found["log ratio"], stats.uniform(low, high - low).cdf).pvalue > 0.01
    for name in ("top", "left"):
        assert stats.kstest(found[name], stats.uniform.cdf).pvalue > 0.01
    # Not of the area, but of the side; and not of the logarithm, but of the ratio itself.
    side = stats.uniform(0.08**0.5, 0.5**0.5 - 0.08**0.5)
    assert stats.kstest(np.sqrt(found["area"]), side.cdf).pvalue < 1e-6
    plain = stats.uniform(3 / 4, 4 / 3 - 3 / 4)
    assert stats.kstest(np.exp(found["log ratio"]), plain.cdf).pvalue < 1e-6


def test_uniform_height():
    drawn = boxes(uniform_height, (1000, 1000), area=(0.08, 0.5), ratio=(0.75, 1.33))
    found = described(drawn, (1000, 1000))
    ratio = np.exp(found["log ratio"])
    assert stats.kstest(ratio, stats.uniform(0.75, 0.58).cdf).pvalue > 0.01
    # Given the ratio, the height is uniform between those of the areas.
    low, high = (np.sqrt(share / ratio) for share in (0.08, 0.5))
    position = (found["height"] - low) / (high - low)
    assert stats.kstest(position, stats.uniform.cdf).pvalue > 0.01
    for name in ("top", "left"):
        assert stats.kstest(found[name], stats.uniform.cdf).pvalue > 0.01
    assert stats.kstest(found["area"], stats.uniform(0.08, 0.42).cdf).pvalue < 1e-6
    low, high = np.log([0.75, 1.33])
    assert stats.kstest(found["log ratio"], stats.uniform(low, high - low).cdf).pvalue < 1e-3


def test_the_last_offset_is_drawn_by_the_one_law_alone():
    """Heights are 2 of 4 here, so that there are three offsets."""
    fixed = dict(area=(0.25, 0.25), ratio=(1.0, 1.0))
    for law, offsets in ((uniform_area, 3), (uniform_height, 2)):
        top, left, height, _ = boxes(law, (4, 4), **fixed)
        assert set(height) == {2.0}
        counts = np.zeros((offsets, offsets))
        np.add.at(counts, (top.astype(int), left.astype(int)), 1)
        assert stats.chisquare(counts.ravel()).pvalue > 0.01


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("size", [(8, 8), (50, 300), (300, 50), (1, 1), (1, 500), (3, 2), (64, 65)])
def test_boxes_lie_inside(dialect, size):
    top, left, height, width = of_dialect(dialect, size, draws=500)
    assert min(top.min(), left.min()) >= 0 and min(height.min(), width.min()) >= 1
    assert (top + height).max() <= size[0] and (left + width).max() <= size[1]
    if min(size) >= 50:
        ratio = width / height
        assert ratio.min() > 0.7 and ratio.max() < 1.4
        # Each side may have been rounded down, by up to half a pixel.
        share = ((height + 0.5) * (width + 0.5)).min() / (size[0] * size[1])
        assert share >= DIALECTS[dialect].crop_area[0]


def test_fallbacks():
    # Nine tenths of so long an image never have an allowed ratio.
    for size, middle in (((300, 3000), (0, 1300, 300, 400)), ((3000, 300), (1300, 0, 400, 300))):
        assert tuple(boxes(uniform_area, size, area=(0.9, 1.0), draws=1)[:, 0]) == middle
        assert tuple(boxes(uniform_height, size, area=(0.9, 1.0), draws=1)[:, 0]) == (0, 0, *size)


# the libraries


def assert_same_law(found, expected, size, other):
    """Two samples of one law; and `other`, of a wrong one, is told from them."""
    found, expected, other = (described(np.array(one), size) for one in (found, expected, other))
    for name, values in found.items():
        assert stats.ks_2samp(values, expected[name]).pvalue > 0.01, name
    assert min(stats.ks_2samp(other[name], expected[name]).pvalue for name in found) < 1e-4


# The second is so long that about a seventh of the first tries is rejected, some ten times.
LIBRARY_SIZES = [(400, 500), (150, 600)]


@pytest.mark.reference
@pytest.mark.parametrize("size", LIBRARY_SIZES)
def test_torchvision_draws_alike(size):
    load_torchvision()
    import torch
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image, own = torch.empty(3, *size), DIALECTS["torchvision"]
    expected = [
        RandomResizedCrop.get_params(image, list(own.crop_area), list(own.crop_ratio))
        for _ in range(DRAWS)
    ]
    other = of_dialect("big_vision", size)
    assert_same_law(of_dialect("torchvision", size), np.array(expected).T, size, other)


@pytest.mark.reference
@pytest.mark.parametrize("size", LIBRARY_SIZES)
def test_timm_draws_alike(size):
    load_timm()
    import random

    from timm.data.transforms import RandomResizedCropAndInterpolation

    random.seed(0)
    crop, image = RandomResizedCropAndInterpolation(8), Image.new("RGB", size[::-1])
    expected = [crop.get_params(image, crop.scale, crop.ratio) for _ in range(DRAWS)]
    other = of_dialect("big_vision", size)
    assert_same_law(of_dialect("timm", size), np.array(expected).T, size, other)


@pytest.mark.reference
@pytest.mark.parametrize("size", [*LIBRARY_SIZES, (7, 9)])
def test_tensorflow_draws_alike(size):
    tensorflow = load_tensorflow()
    none = tensorflow.zeros([0, 0, 4])

    @tensorflow.function
    def draw(k):
        begin, sides, _ = tensorflow.image.stateless_sample_distorted_bounding_box(
            (*size, 3),
            none,
            seed=(k, 0),
            area_range=(0.05, 1.0),
            min_object_covered=0.0,
            use_image_if_no_bounding_boxes=True,
        )
        return tensorflow.concat([begin[:2], sides[:2]], 0)

    expected = np.array([draw(tensorflow.constant(k)).numpy() for k in range(DRAWS)])
    other = of_dialect("torchvision", size)
    assert_same_law(of_dialect("big_vision", size), expected.T, size, other)


@pytest.mark.reference
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_a_drawn_box_becomes_the_image_of_torchvision(interpolation):
    load_torchvision()
    from torchvision.transforms import InterpolationMode, functional

    crop, image = inception(resamples=(Resample(interpolation),)), noise(90, 120, 3)
    for seed in range(20):
        box = uniform_area(
            (90, 120), np.random.default_rng(seed), area=crop.area, ratio=crop.ratio, attempts=10
        )
        expected = functional.resized_crop(
            Image.fromarray(image), *box, [17, 23], InterpolationMode(interpolation)
        )
        found = crop({"image": image}, np.random.default_rng(seed))["image"]
        assert np.array_equal(found, np.asarray(expected))


@pytest.mark.reference
@pytest.mark.parametrize("side", [24, 33])
def test_simple_is_that_of_deit(side):
    """Resize(side, bicubic) and RandomCrop(side, padding=4, padding_mode='reflect')."""
    load_torchvision()
    from torchvision.transforms import InterpolationMode, functional

    crop = window(
        size=(side, side),
        channels=3,
        resamples=(Resample("bicubic"),),
        short_side=side,
        padding=4,
        padding_mode="reflect",
    )
    for seed, size in enumerate([(50, 77), (91, 40), (30, 30)]):
        image, rng = noise(*size, 3), np.random.default_rng(seed)
        resized = functional.resize(Image.fromarray(image), side, InterpolationMode.BICUBIC)
        padded = functional.pad(resized, 4, padding_mode="reflect")
        top, left = (int(rng.integers(n - side + 1)) for n in (padded.height, padded.width))
        expected = functional.crop(padded, top, left, side, side)
        found = crop({"image": image}, np.random.default_rng(seed))["image"]
        assert np.array_equal(found, np.asarray(expected))


@pytest.mark.reference
def test_drawn_boxes_and_windows_become_the_images_of_big_vision():
    """`inception_crop(17)` and `resize_small(24)|random_crop(17)`, spelt out in TensorFlow."""
    tensorflow = load_tensorflow()
    own, image = DIALECTS["big_vision"], noise(60, 90, 3)
    law = dict(area=own.crop_area, ratio=own.crop_ratio, attempts=own.crop_attempts)
    inception_crop = inception(
        size=(17, 17), resamples=(Resample("bilinear", False),), law=own.crop_law, **law
    )
    small_crop = window(
        size=(17, 17),
        channels=3,
        resamples=(Resample("area", False),),
        short_side=24,
        dialect="big_vision",
    )
    small = tensorflow.image.resize(image, (24, 36), method="area").numpy()
    for seed in range(20):
        box = uniform_height((60, 90), np.random.default_rng(seed), **law)
        cut = image[box.top : box.top + box.height, box.left : box.left + box.width]
        rng = np.random.default_rng(seed)
        top, left = int(rng.integers(24 - 17 + 1)), int(rng.integers(36 - 17 + 1))
        for crop, expected in (
            (inception_crop, tensorflow.image.resize(cut, (17, 17)).numpy()),
            (small_crop, small[top : top + 17, left : left + 17]),
        ):
            found = crop({"image": image}, np.random.default_rng(seed))["image"].astype(float)
            # Cut off to whole levels; 0.02 is what float32 in another order was seen to make.
            assert np.all((found <= expected + 0.02) & (expected - 0.02 < found + 1))


# from box to image


def inception(**changed):
    settings = dict(
        size=(17, 23),
        channels=3,
        resamples=(Resample(),),
        law="uniform_area",
        area=(0.08, 1.0),
        ratio=(3 / 4, 4 / 3),
        attempts=10,
    )
    return InceptionCrop(**{**settings, **changed})


@pytest.mark.parametrize("c", [1, 3, 5])
def test_inception_crop_shapes(c):
    rng = np.random.default_rng(0)
    result = inception(channels=c)({"image": noise(20, 30, c)}, rng)["image"]
    assert result.shape == (17, 23, c) and result.dtype == np.uint8


def test_random_interpolation_is_a_fair_coin():
    both = tuple(map(Resample, RANDOM))
    image, crops = noise(40, 40, 3), [inception(resamples=(one,)) for one in both]
    coin, counts = inception(resamples=both), [0, 0]
    for seed in range(400):
        found = coin({"image": image}, np.random.default_rng(seed))["image"]
        each = [crop({"image": image}, np.random.default_rng(seed))["image"] for crop in crops]
        counts[[np.array_equal(found, one) for one in each].index(True)] += 1
    assert sum(counts) == 400 and stats.binomtest(counts[0], 400).pvalue > 0.01


def window(**changed):
    settings = dict(
        size=(4, 5),
        channels=1,
        resamples=(Resample(),),
        short_side=6,
        padding=0,
        padding_mode="constant",
        dialect=None,
    )
    return ResizedWindow(**{**settings, **changed})


@pytest.mark.parametrize("padding, mode", [(0, "constant"), (2, "constant"), (2, "reflect")])
def test_windows_are_uniform_cuts_of_the_padded_image(padding, mode):
    image = noise(6, 8, 1)  # its short side is the one asked for: nothing is resized
    padded = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)), mode=mode)
    down, right = padded.shape[0] - 4 + 1, padded.shape[1] - 5 + 1
    cuts = {
        padded[y : y + 4, x : x + 5].tobytes(): (y, x) for y in range(down) for x in range(right)
    }
    crop, rng, counts = window(padding=padding, padding_mode=mode), np.random.default_rng(0), {}
    for _ in range(DRAWS):
        place = cuts[crop({"image": image}, rng)["image"].tobytes()]
        counts[place] = counts.get(place, 0) + 1
    assert len(counts) == down * right and stats.chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_shifting_is_padding_and_cropping(mode):
    image, padding = noise(5, 6, 2), 3
    padded = np.pad(image, ((padding,) * 2, (padding,) * 2, (0, 0)), mode=mode)
    for down in range(-padding, padding + 1):
        for right in range(-padding, padding + 1):
            top, left = padding - down, padding - right
            expected = padded[top : top + 5, left : left + 6]
            assert np.array_equal(shift_image(image, down, right, mode=mode), expected)
