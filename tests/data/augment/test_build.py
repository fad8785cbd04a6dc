"""Augmentation from its settings: in order, reproducible, and nothing configured is ignored."""

import io
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.augment import build_crop
from vit_jax.data.augment.build import Flip, build_augment
from vit_jax.data.dialects import DIALECTS
from vit_jax.data.images.decode import Encoded
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.images.resampling import Resample
from vit_jax.errors import InputError

DRAWS = 4000


def noise(h, w, c, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), np.uint8)


def test_flip_frequency():
    rng, image = np.random.default_rng(0), np.arange(6, dtype=np.uint8).reshape(1, 3, 2)
    for probability in (0.0, 0.3, 1.0):
        flip = Flip(probability=probability)
        drawn = [flip({"image": image}, rng)["image"] for _ in range(DRAWS)]
        flips = sum(not np.array_equal(one, image) for one in drawn)
        spread = math.sqrt(DRAWS * probability * (1 - probability))
        assert abs(flips - DRAWS * probability) <= 4 * spread
    assert np.array_equal(drawn[0], image[:, ::-1])


EVERYTHING = {
    "crop": "inception",
    "flip_probability": 0.5,
    "policy": {"name": "randaugment"},
    "color_jitter": {"brightness": 0.4, "contrast": 0.4, "saturation": 0.2, "hue": 0.1},
    "grayscale": {},
    "gaussian_blur": {},
    "solarize": {},
    "erasing": {"probability": 0.5, "mode": "pixel"},
    "cutout": {"side": 3, "probability": 0.5},
}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"flip_probability": 0.5},
        {"crop": "inception", "min_area": 0.25, "max_area": 0.9, "flip_probability": 0.5},
        {"crop": "shift", "padding": 4},
        {"crop": "shift", "padding": 5, "padding_mode": "reflect"},
        {"crop": "centre", "flip_probability": 0.5},
        {"crop": "resize_small"},
        {"crop": "resize_small", "short_side": 20, "interpolation": "random"},
        {"crop": "simple", "padding_mode": "constant", "min_visible": 0.1},
        {"crop": "inception", "aspect_ratios": (0.5, 2), "interpolation": "bicubic"},
        {"dialect": "timm", "crop": "inception"},
        {"dialect": "big_vision", "crop": "inception"},
        {
            "dialect": "big_vision",
            "crop": "resize_small",
            "antialias": True,
            "interpolation": "bicubic",
        },
    ],
)
@pytest.mark.parametrize("c, channels", [(1, 3), (3, 1), (3, 3), (5, 5)])
def test_augmentation_is_a_function_of_the_generator(config, c, channels):
    preprocessing = Preprocessing(image_size=(6, 9), channels=channels)
    transform, image = build_augment(preprocessing=preprocessing, **config), noise(12, 10, c)
    assert_reproducible(transform, image, preprocessing, is_random=bool(config))
    if not config:
        found = transform({"image": image}, np.random.default_rng(0))["image"]
        assert np.array_equal(found, preprocessing(image))


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("c, channels", [(1, 3), (3, 1), (3, 3)])
def test_all_together_are_a_function_of_the_generator(dialect, c, channels):
    preprocessing = Preprocessing(image_size=(16, 24), channels=channels)
    transform = build_augment(preprocessing=preprocessing, dialect=dialect, **EVERYTHING)
    assert_reproducible(transform, noise(40, 30, c), preprocessing)


def assert_reproducible(transform, image, preprocessing, is_random=True):
    transform, before = pickle.loads(pickle.dumps(transform)), image.copy()

    def draw(seed):
        example = transform({"image": image, "label": 2}, np.random.default_rng(seed))
        assert example.keys() == {"image", "label"} and example["label"] == 2
        return example["image"]

    results = [draw(seed) for seed in range(20)]
    assert all(r.shape == preprocessing.image_shape and r.dtype == np.uint8 for r in results)
    assert np.array_equal(draw(3), results[3]) and np.array_equal(image, before)
    assert (len({r.tobytes() for r in results}) > 1) == is_random


@pytest.mark.parametrize("name", [name for name in EVERYTHING if name != "crop"])
def test_every_section_changes_images(name):
    preprocessing, image = Preprocessing(image_size=(24, 24), channels=3), noise(24, 24, 3)
    dialect = {"dialect": "timm"} if name in ("policy", "erasing") else {}
    given = {**dialect, name: EVERYTHING[name]}
    transform = build_augment(preprocessing=preprocessing, **given)
    drawn = [transform({"image": image}, np.random.default_rng(k))["image"] for k in range(20)]
    assert any(not np.array_equal(one, image) for one in drawn)


def test_steps_stand_in_the_order_of_the_libraries():
    preprocessing = Preprocessing(image_size=(24, 24), channels=3)
    chain = build_augment(preprocessing=preprocessing, dialect="timm", **EVERYTHING)
    names = [type(step).__name__ for step in chain.steps]
    assert names == [
        *("InceptionCrop", "Flip", "RandAugment", "ColorJitter", "Grayscale"),
        *("GaussianBlur", "Solarize", "RandomErasing", "Cutout"),
    ]


def test_the_dialect_of_evaluation_is_that_of_training():
    settings = dict(image_size=(24, 24), channels=3)
    for name, own in DIALECTS.items():
        following = build_augment(
            preprocessing=Preprocessing(**settings, dialect=name), crop="inception"
        )
        assert following == build_augment(
            preprocessing=Preprocessing(**settings), dialect=name, crop="inception"
        )
        crop = following.steps[-1] if own.fast_dct else following
        assert (crop.area, crop.ratio) == (own.crop_area, own.crop_ratio)
    other = build_augment(
        preprocessing=Preprocessing(**settings, dialect="big_vision"),
        dialect="timm",
        crop="inception",
    )
    assert other.area == DIALECTS["timm"].crop_area


def test_without_a_dialect_crops_resample_as_evaluation_does():
    preprocessing = Preprocessing(image_size=(24, 24), channels=3, interpolation="bicubic")
    for crop in ("inception", "resize_small", "simple"):
        built = build_augment(preprocessing=preprocessing, crop=crop)
        assert built.resamples == (Resample("bicubic"),)


@pytest.mark.parametrize("crop", build_crop.CROPS)
def test_boxes_follow_every_crop(crop):
    """A rectangle of its own colour, kept or dropped by `min_visible`."""
    preprocessing = Preprocessing(image_size=(48, 64), channels=1, interpolation="nearest")
    padded = crop in ("shift", "simple")
    padding = {"padding": 6, "padding_mode": "constant"} if padded else {}
    transform = build_augment(
        preprocessing=preprocessing, crop=crop, flip_probability=0.5, **padding
    )
    image = np.full((90, 100, 1), 50, np.uint8)
    image[30:60, 20:70] = 200
    example = {
        "image": image,
        "boxes": np.float32([[20, 30, 70, 60]]),
        "box_label": np.int32([4]),
        "segmentation": image[..., 0].astype(np.int32),
    }
    for seed in range(30):
        found = transform(example, np.random.default_rng(seed))
        seen = found["image"][..., 0] == 200
        assert np.array_equal(found["segmentation"] == 200, seen)
        if seen.any():
            rows, columns = np.nonzero(seen)
            hull = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert np.abs(found["boxes"][0] - hull).max() <= 1.5
            assert found["box_label"].tolist() == [4]


@pytest.mark.parametrize("dialect", [None, *DIALECTS])
@pytest.mark.parametrize("resize", ["stretch", "crop"])
@pytest.mark.parametrize("size", [(90, 131), (131, 90), (64, 64)])
def test_boxes_follow_evaluation(dialect, resize, size):
    """Blocks whose edges stay inside of the crop; each dialect rounds it elsewhere."""
    preprocessing = Preprocessing(
        image_size=(64, 64), channels=1, resize=resize, dialect=dialect, interpolation="bilinear"
    )
    image, (h, w) = np.zeros((*size, 1), np.uint8), size
    box = (w // 2 - 17, h // 2 - 12, w // 2 + 9, h // 2 + 20)
    image[box[1] : box[3], box[0] : box[2]] = 255
    example = {"image": image, "boxes": np.float32([box])}
    found = build_augment(preprocessing=preprocessing)(example, np.random.default_rng(0))
    assert np.array_equal(found["image"], preprocessing(image))
    # An edge that lies within a pixel colours it in part: sums along an axis tell where, to 0.01
    # if antialiased, or else to what a sample at the edge can miss, 0.11 here.
    shares = found["image"][..., 0].astype(float) / 255
    height, width = shares.sum(0).max(), shares.sum(1).max()
    left, top, right, bottom = found["boxes"][0]
    assert abs(bottom - top - height) < 0.15 and abs(right - left - width) < 0.15
    rows, columns = np.indices((64, 64)) + 0.5
    centre = np.array([(columns * shares).sum(), (rows * shares).sum()]) / shares.sum()
    assert np.abs(centre - ((left + right) / 2, (top + bottom) / 2)).max() < 0.15


@pytest.mark.parametrize("dialect", DIALECTS)
def test_frames_of_a_video_are_augmented_alike(dialect):
    preprocessing, frame = Preprocessing(image_size=(16, 24), channels=3), noise(40, 30, 3)
    settings = {**EVERYTHING, "erasing": {"probability": 0.5}}
    transform = build_augment(preprocessing=preprocessing, dialect=dialect, **settings)
    for seed in range(20):
        found = transform({"video": np.stack([frame] * 3)}, np.random.default_rng(seed))["video"]
        image = transform({"image": frame}, np.random.default_rng(seed))["image"]
        assert np.array_equal(found, np.stack([image] * 3))


@pytest.mark.parametrize("crop", ["inception", "resize_small", "simple"])
def test_scaled_decoding_changes_little(crop):
    """A JPEG of 16 times the size, smooth as photographs are at that scale."""
    coarse = Image.fromarray(noise(12, 16, 3)).resize((640, 480), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    coarse.save(stream, "JPEG", quality=95)
    preprocessing = Preprocessing(image_size=(48, 48), channels=3)
    full, scaled = (
        build_augment(preprocessing=preprocessing, crop=crop, scaled_decode=setting)
        for setting in (None, True)
    )
    differences = []
    for seed in range(20):
        encoded = Encoded(stream.getvalue(), "memory")
        images = [
            transform({"image": encoded}, np.random.default_rng(seed))["image"].astype(int)
            for transform in (full, scaled)
        ]
        differences.append(np.abs(images[0] - images[1]))
    # One level was seen on average, and 11 at most: means of blocks stand for a part of the wider
    # kernel. A box whose left edge is off by one pixel of the small image makes 5 and 48.
    assert 0 < np.mean(differences) < 2 and np.max(differences) < 20


@pytest.mark.parametrize(
    "config, message",
    [
        ({"crop": "random"}, "none, centre, inception, resize_small, simple, shift"),
        ({"min_area": 0.5}, "augment.min_area has no effect with crop='none'"),
        ({"crop": "shift", "padding": 2, "max_area": 0.5}, "augment.max_area has no effect"),
        ({"crop": "inception", "padding": 2}, "set crop='shift'"),
        ({"padding_mode": "reflect"}, "augment.padding_mode has no effect"),
        ({"crop": "shift"}, "padding is None"),
        ({"crop": "simple", "padding": 0}, "padding is 0"),
        ({"crop": "simple", "short_side": 9}, "short_side has no effect.*crop='resize_small'"),
        ({"crop": "resize_small", "short_side": 7}, "8 pixels or more"),
        ({"interpolation": "bilinear"}, "interpolation has no effect with crop='none'"),
        ({"crop": "inception", "interpolation": "spline"}, "nearest, bilinear, bicubic"),
        ({"crop": "inception", "dialect": "big_vision", "interpolation": "bicubic"}, "antialias"),
        ({"crop": "inception", "aspect_ratios": (2, 0.5)}, "aspect_ratios"),
        ({"crop": "inception", "dialect": "keras"}, "big_vision, torchvision, timm"),
        ({"dialect": "keras"}, "big_vision, torchvision, timm"),
        ({"dialect": "timm", "crop": "shift", "padding": 1}, "dialect has no effect"),
        ({"scaled_decode": True}, "scaled_decode has no effect with crop='none'"),
        ({"crop": "inception", "dialect": "big_vision", "scaled_decode": True}, "antialias=True"),
        ({"min_visible": 2}, "min_visible is 2"),
        ({"keypoint_order": (1, 0)}, "keypoint_order has no effect"),
        ({"policy": {"name": "randaugment"}}, "policy lacks dialect"),
        ({"dialect": "timm", "policy": {"name": "odd"}}, "policy.name"),
        ({"grayscale": {"p": 0.1}}, "grayscale has unknown key 'p'"),
        ({"erasing": {}}, "erasing lacks probability"),
        ({"erasing": {"probability": 0.1, "dialect": "timm"}}, "unknown key 'dialect'"),
        ({"crop": "shift", "padding": 1.5}, "padding is 1.5"),
        ({"crop": "shift", "padding": 8, "padding_mode": "reflect"}, "1 to 7 pixels"),
        ({"crop": "shift", "padding": 2, "padding_mode": "wrap"}, "constant, reflect"),
        ({"crop": "shift", "padding": 2, "padding_mode": ""}, "constant, reflect"),
        ({"crop": "simple", "padding_mode": ""}, "constant, reflect"),
        ({"crop": "resize_small", "short_side": 2**31}, "less than 2147483648"),
        ({"color_jitter": {"contrast": math.inf}}, "contrast is inf; allowed: 0 or more"),
        ({"color_jitter": {"contrast": math.nan}}, "contrast is nan; allowed"),
        ({"gaussian_blur": {"max_radius": math.inf}}, "max_radius are .* inf; allowed"),
        ({"gaussian_blur": {"max_radius": 1e30}}, "max_radius are .*; allowed"),
        ({"erasing": {"probability": 0.1, "max_count": 2**31}}, "max_count is 2147483648"),
        ({"crop": "inception", "min_area": 0}, "min_area"),
        ({"crop": "inception", "min_area": 0.9, "max_area": 0.5}, "min_area"),
        ({"flip_probability": 1.5}, "allowed: 0 to 1"),
        ({"flip_probability": "yes"}, "finite number"),
    ],
)
def test_build_augment_refuses(config, message):
    preprocessing = Preprocessing(image_size=(8, 8), channels=3)
    with pytest.raises(InputError, match=message):
        build_augment(preprocessing=preprocessing, **config)


def test_a_colour_to_fill_with_has_the_images_channels():
    """Seen when the config is read, not when an operation that fills is first drawn."""
    policy = {"name": "randaugment", "dialect": "timm", "fill": (1, 2, 3)}
    build_augment(preprocessing=Preprocessing(image_size=(8, 8), channels=3), policy=policy)
    with pytest.raises(InputError, match=r"fill is \(1, 2, 3\) for images of 1 channels"):
        build_augment(preprocessing=Preprocessing(image_size=(8, 8), channels=1), policy=policy)


def test_colours_are_refused_for_other_numbers_of_channels():
    preprocessing = Preprocessing(image_size=(8, 8), channels=5)
    for config in ({"grayscale": {}}, {"dialect": "timm", "policy": {"name": "randaugment"}}):
        with pytest.raises(InputError, match="5 channels"):
            build_augment(preprocessing=preprocessing, **config)


@pytest.mark.parametrize("dialect", [None, *DIALECTS])
def test_jpegs_are_decoded_as_the_dialect_does_in_training_and_evaluation(dialect):
    file = io.BytesIO()
    Image.fromarray(noise(24, 32, 3)).save(file, "JPEG", quality=90)
    encoded = Encoded(file.getvalue(), "x")
    expected = encoded.with_fast_dct() if dialect == "big_vision" else encoded
    preprocessing = Preprocessing(image_size=(16, 16), channels=3, dialect=dialect)
    assert np.array_equal(preprocessing(encoded), preprocessing(expected.decode()))
    multi_crop = {"multi_crop": {"local_size": 8, "num_local": 2}}
    for settings in ({"crop": "none"}, {"crop": "inception"}, {"crop": "inception", **multi_crop}):
        augment = build_augment(preprocessing=preprocessing, **settings)
        found, exact = (
            augment({"image": image}, np.random.default_rng(0))
            for image in (encoded, expected.decode())
        )
        for name in exact:
            assert np.array_equal(found[name], exact[name]), name
