"""Preprocessing and reading: shapes, channels, aspect ratio, and what Pillow would lose."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images import preprocessing as image_lib
from vit_jax.data.images.decode import read_image
from vit_jax.data.images.preprocessing import Preprocessing, to_channels
from vit_jax.errors import InputError


def noise(h, w, c, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box"])
@pytest.mark.parametrize("c, channels", [(1, 1), (3, 3), (1, 3), (3, 1), (4, 3), (4, 1), (5, 5)])
@pytest.mark.parametrize("size", [(8, 8), (6, 11), (40, 7)])
def test_any_image_becomes_the_shape_asked_for(resize, interpolation, c, channels, size):
    preprocessing = Preprocessing(
        image_size=size, channels=channels, resize=resize, interpolation=interpolation
    )
    for h, w in ((8, 8), (31, 17), (5, 90), (1, 1)):
        result = preprocessing(noise(h, w, c))
        assert result.shape == preprocessing.image_shape == (*size, channels)
        assert result.dtype == np.uint8
        assert np.array_equal(result, preprocessing(noise(h, w, c)))


@pytest.mark.parametrize("c", [1, 2, 3, 4, 5])
def test_channels_do_not_mix_and_constants_stay(c):
    preprocessing = Preprocessing(image_size=(9, 7), channels=c)
    image = noise(20, 23, c)
    alone = Preprocessing(image_size=(9, 7), channels=1)
    planes = [alone(image[..., k : k + 1]) for k in range(c)]
    assert np.array_equal(preprocessing(image), np.concatenate(planes, axis=-1))
    assert np.all(preprocessing(np.full((20, 23, c), 77, np.uint8)) == 77)


def test_the_right_size_is_returned_untouched():
    image = noise(8, 6, 3)
    assert Preprocessing(image_size=(8, 6), channels=3)(image) is image
    whole = Preprocessing(image_size=(8, 6), channels=3, resize="crop", crop_fraction=1)
    assert whole(image) is image


def test_shrinking_averages():
    checkerboard = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    small = Preprocessing(image_size=(8, 8), channels=1)(checkerboard)
    assert np.all(np.abs(small.astype(int) - 128) <= 2)


def test_crop_keeps_the_aspect_ratio_and_the_centre():
    # A disc of radius 10 in a wide image stays a disc, in the middle.
    rows, columns = np.indices((60, 120))
    disc = ((rows - 29.5) ** 2 + (columns - 59.5) ** 2 < 100).astype(np.uint8)[..., None] * 255
    preprocessing = Preprocessing(image_size=(56, 56), channels=1, resize="crop")
    found = preprocessing(disc)[..., 0] > 127
    height, width = found.any(1).sum(), found.any(0).sum()
    expected = 20 * (56 / 0.875) / 60
    assert abs(height - expected) <= 1.5 and height == width
    assert np.array_equal(found, found[::-1, ::-1])


@pytest.mark.parametrize("target", [(224, 224), (168, 224), (224, 56)])
def test_crop_is_resize_then_centre_crop(target):
    # Sizes chosen so that the intermediate size is whole and both ways must agree.
    h, w = (512, 768)
    image = np.asarray(Image.fromarray(noise(16, 24, 3)).resize((w, h), Image.BICUBIC))
    scale = max(target[0] / h, target[1] / w) / 0.875
    middle = (round(h * scale), round(w * scale))
    resized = np.asarray(Image.fromarray(image).resize(middle[::-1], Image.BILINEAR))
    top, left = (middle[0] - target[0]) // 2, (middle[1] - target[1]) // 2
    expected = resized[top : top + target[0], left : left + target[1]]
    preprocessing = Preprocessing(image_size=target, channels=3, resize="crop")
    error = np.abs(preprocessing(image).astype(int) - expected)
    assert error.max() <= 1


@pytest.mark.parametrize("size", [(224, 224), (7, 300), (97, 89)])
def test_centre_box_lies_in_any_image(size):
    rng = np.random.default_rng(0)
    for h, w in rng.integers(1, 2000, (300, 2)):
        for crop_fraction in (0.875, 1.0):
            box = image_lib.centre_box((h, w), size, crop_fraction)
            left, top, right, bottom = box
            assert 0 <= left < right <= w and 0 <= top < bottom <= h
        image_lib.resize(np.zeros((h, w, 1), np.uint8), (2, 2), "nearest", box=box)


def test_to_channels():
    grey, colour, alpha = noise(4, 5, 1), noise(4, 5, 3), noise(4, 5, 4)
    assert np.array_equal(to_channels(grey, 3), np.concatenate([grey] * 3, axis=-1))
    assert np.array_equal(to_channels(alpha, 3), alpha[..., :3])
    assert np.array_equal(to_channels(alpha, 1), to_channels(alpha[..., :3], 1))
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(to_channels(colour, 1)[..., 0] - luma).max() <= 1
    assert to_channels(colour, 3) is colour
    for c, channels in ((2, 3), (3, 2), (5, 1), (1, 4)):
        with pytest.raises(InputError, match=f"{c} channels into {channels}"):
            to_channels(noise(2, 2, c), channels)


def test_preprocessing_json_round_trip():
    preprocessing = Preprocessing(
        image_size=[32, 48], channels=3, resize="crop", crop_fraction=0.9, mean=[0.1, 0.2, 0.3]
    )
    assert preprocessing.image_size == (32, 48) and preprocessing.mean == (0.1, 0.2, 0.3)
    written = json.loads(json.dumps(preprocessing.to_dict()))
    assert Preprocessing.from_dict(written) == preprocessing
    assert hash(Preprocessing.from_dict(written)) == hash(preprocessing)
    with pytest.raises(InputError, match="unknown key 'sizes'"):
        Preprocessing.from_dict({**written, "sizes": 3})
    del written["channels"]
    with pytest.raises(InputError, match="lacks channels"):
        Preprocessing.from_dict(written)


def test_dicts_that_were_stored_before_there_were_dialects():
    stored = {
        "image_size": [32, 48],
        "channels": 3,
        "resize": "crop",
        "crop_fraction": 0.9,
        "interpolation": "bicubic",
        "mean": [0.5],
        "std": [0.5],
    }
    loaded = Preprocessing.from_dict(stored)
    assert (loaded.dialect, loaded.antialias) == (None, True)
    assert {**loaded.to_dict(), **stored} == loaded.to_dict()


@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("dialect", [None, "big_vision", "torchvision", "timm"])
def test_a_dialect_fills_in_its_resampling_and_is_stored(resize, dialect):
    preprocessing = Preprocessing(image_size=(8, 8), channels=3, resize=resize, dialect=dialect)
    assert preprocessing.antialias == (dialect != "big_vision")
    is_area = (resize, dialect) == ("crop", "big_vision")
    assert preprocessing.interpolation == ("area" if is_area else "bilinear")
    assert Preprocessing.from_dict(preprocessing.to_dict()) == preprocessing


@pytest.mark.parametrize(
    "changed",
    [
        {"image_size": 32},
        {"image_size": (32,)},
        {"image_size": (32, 0)},
        {"image_size": (32, 8.0)},
        {"channels": 0},
        {"channels": True},
        {"resize": "pad"},
        {"interpolation": "spline"},
        {"interpolation": "area"},
        {"dialect": "pillow"},
        {"antialias": False},
        {"dialect": "timm", "antialias": False},
        {"dialect": "big_vision", "interpolation": "bicubic"},
        {"dialect": "big_vision", "antialias": True, "interpolation": "area"},
        {"resize": "crop", "dialect": "torchvision", "image_size": (8, 9)},
        {"crop_fraction": 0.9},
        {"resize": "crop", "crop_fraction": 0},
        {"resize": "crop", "crop_fraction": 1.1},
        {"mean": 0.5},
        {"mean": ()},
        {"mean": (0.5, 0.5)},
        {"mean": (127.5,)},
        {"std": ()},
        {"std": (0.0,)},
        {"std": (float("nan"),)},
        {"std": "0.5"},
    ],
)
def test_preprocessing_refuses(changed):
    with pytest.raises(InputError, match=next(reversed(changed))):
        Preprocessing(**{"image_size": (8, 8), "channels": 3, **changed})


@pytest.mark.parametrize("wrong", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_preprocessing_refuses_other_arrays(wrong):
    with pytest.raises(InputError, match="uint8"):
        Preprocessing(image_size=(8, 8), channels=3)(wrong)


@pytest.mark.parametrize(
    "mode, c", [("1", 1), ("L", 1), ("LA", 1), ("P", 3), ("RGB", 3), ("RGBA", 3)]
)
def test_read_image_modes(tmp_path, mode, c):
    Image.new(mode, (5, 3), 1).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png").shape == (3, 5, c)


def test_read_image_scales_sixteen_bits(tmp_path):
    ramp = np.array([[0, 256, 32768, 65535]], np.uint16)
    Image.fromarray(ramp).save(tmp_path / "x.png")
    assert read_image(tmp_path / "x.png")[..., 0].tolist() == [[0, 1, 128, 255]]


def test_read_image_cmyk_and_orientation(tmp_path):
    Image.new("CMYK", (5, 3)).save(tmp_path / "cmyk.jpg")
    assert read_image(tmp_path / "cmyk.jpg").shape == (3, 5, 3)
    left_white = Image.new("L", (8, 4))
    left_white.paste(255, (0, 0, 4, 4))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to display
    left_white.save(tmp_path / "turned.png", exif=exif)
    turned = read_image(tmp_path / "turned.png")
    assert turned.shape == (8, 4, 1) and turned[0].min() == 255 and turned[-1].max() == 0


def test_unreadable_files_are_named(tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    for path in (tmp_path / "text.jpg", tmp_path / "missing.jpg", tmp_path):
        with pytest.raises(UnreadableExample, match=path.name) as caught:
            read_image(path)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert str(copy) == str(caught.value) and copy.reason
