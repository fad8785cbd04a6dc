"""Evaluation images by dialect: the reference libraries' own, bit for bit where they use Pillow."""

import numpy as np
import pytest
from PIL import Image
from references import load_tensorflow, load_timm, load_torchvision

from vit_jax.data.dialects import DIALECTS
from vit_jax.data.images.centre import plan_of, short_side_size
from vit_jax.data.images.preprocessing import Preprocessing

# Some of them so that a size or an offset falls on a half, or just beside a whole number.
SIZES = [(500, 375), (375, 500), (301, 299), (256, 256), (120, 333), (333, 120), (64, 97)]
FRACTIONS = [0.875, 1.0, 0.9, 0.92]


def photograph(h, w, c=3, seed=0):
    """Noise over blobs: something at each scale."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, c), np.uint8)).resize((w, h))
    return (np.asarray(coarse) // 2 + rng.integers(0, 128, (h, w, c))).astype(np.uint8)


def preprocessed(image, dialect, **settings):
    settings = {"image_size": (64, 64), "resize": "crop", **settings}
    return Preprocessing(channels=3, dialect=dialect, **settings)(image)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("crop_fraction", FRACTIONS)
def test_the_crop_lies_inside_and_in_the_middle(dialect, crop_fraction):
    rng = np.random.default_rng(0)
    for h, w, side in rng.integers(1, 700, (400, 3)).tolist():
        plan = plan_of((h, w), (side, side), crop_fraction=crop_fraction, dialect=dialect)
        assert min(plan) >= 0
        for found, offset in ((plan.height, plan.top), (plan.width, plan.left)):
            assert offset + side <= found and abs(2 * offset + side - found) <= 1
        assert min(plan.height, plan.width) * crop_fraction <= side + 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_short_side_is_met_and_the_ratio_kept(dialect):
    rng = np.random.default_rng(0)
    for h, w, side in rng.integers(1, 700, (400, 3)).tolist():
        found = short_side_size((h, w), side, dialect=dialect)
        assert min(found) == side
        assert abs(max(found) - side * max(h, w) / min(h, w)) <= 1


def test_dialects_differ():
    """Else a test of one would be a test of all."""
    image = photograph(333, 475)
    found = [preprocessed(image, name, crop_fraction=0.92) for name in [None, *DIALECTS]]
    assert len({image.tobytes() for image in found}) == len(found)


@pytest.mark.reference
@pytest.mark.parametrize("crop_fraction", FRACTIONS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_torchvision(crop_fraction, interpolation):
    load_torchvision()
    from torchvision import transforms

    resize = transforms.Resize(
        round(64 / crop_fraction), transforms.InterpolationMode(interpolation)
    )
    reference = transforms.Compose([resize, transforms.CenterCrop(64)])
    for size in SIZES:
        image = photograph(*size)
        found = preprocessed(
            image, "torchvision", crop_fraction=crop_fraction, interpolation=interpolation
        )
        assert np.array_equal(found, np.asarray(reference(Image.fromarray(image)))), size


@pytest.mark.reference
@pytest.mark.parametrize("crop_fraction", FRACTIONS)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("image_size", [(64, 64), (48, 96), (96, 48), (63, 65)])
def test_timm(crop_fraction, interpolation, image_size):
    load_timm()
    from timm.data import create_transform

    reference = create_transform(
        input_size=(3, *image_size),
        crop_pct=crop_fraction,
        interpolation=interpolation,
        normalize=False,
    )
    for size in SIZES:
        image = photograph(*size)
        found = preprocessed(
            image,
            "timm",
            crop_fraction=crop_fraction,
            interpolation=interpolation,
            image_size=image_size,
        )
        expected = reference(Image.fromarray(image)).numpy().transpose(1, 2, 0)
        assert np.array_equal(found, expected), size


@pytest.mark.reference
@pytest.mark.parametrize("crop_fraction", FRACTIONS)
@pytest.mark.parametrize(
    "method, antialias",
    [("area", False), ("bilinear", False), ("bilinear", True), ("bicubic", True)],
)
def test_big_vision(crop_fraction, method, antialias):
    """`resize_small(s, method=...)|central_crop(64)` of big_vision, spelt out in its operations."""
    tensorflow = load_tensorflow()
    for size in SIZES:
        image = photograph(*size)
        factor = np.float32(round(64 / crop_fraction)) / np.float32(min(size))
        middle = [int(tensorflow.round(np.float32(side) * factor)) for side in size]
        small = tensorflow.image.resize(image, middle, method=method, antialias=antialias)
        top, left = ((side - 64) // 2 for side in middle)
        expected = tensorflow.image.crop_to_bounding_box(small, top, left, 64, 64).numpy()
        found = preprocessed(
            image,
            "big_vision",
            crop_fraction=crop_fraction,
            interpolation=method,
            antialias=antialias or None,
        )
        difference = found - np.floor(np.clip(expected, 0, 255))
        # One level where float32 falls to the other side of a whole number, and where Pillow
        # rounds instead of cutting off. Pillow does so after each axis; a bicubic kernel, whose
        # weights sum to more than one in size, makes two of that in one value of 4096.
        assert np.abs(difference).max() <= (2 if method == "bicubic" else 1), size
        assert np.mean(np.abs(difference) > 1) < 1e-3
        assert antialias or np.mean(difference != 0) < 0.05
