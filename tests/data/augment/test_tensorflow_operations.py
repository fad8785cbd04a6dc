"""The operations of the dialect big_vision equal TensorFlow's to the bit.

The reference is written here with TensorFlow's operators, as big_vision/pp/autoaugment.py has it;
its geometry goes through the operator that TensorFlow Addons' `transform` calls.
"""

import math

import numpy as np
import pytest
import references
from pictures import images

from vit_jax.data.augment import operations, tensorflow_colour
from vit_jax.data.augment.levels import RULES, Use

LEVELS = (0, 2, 5, 10, 15, 20)


def blend(tf, start, end, factor):
    if factor in (0.0, 1.0):
        return end if factor else start
    start, end = tf.cast(start, tf.float32), tf.cast(end, tf.float32)
    return tf.cast(tf.clip_by_value(start + factor * (end - start), 0.0, 255.0), tf.uint8)


def color(tf, image, factor):
    grey = tf.image.grayscale_to_rgb(tf.image.rgb_to_grayscale(image))
    return blend(tf, grey, image, factor)


def contrast(tf, image, factor):
    counts = tf.histogram_fixed_width(
        tf.cast(tf.image.rgb_to_grayscale(image), tf.int32), [0, 255], nbins=256
    )
    mean = tf.clip_by_value(tf.reduce_sum(tf.cast(counts, tf.float32)) / 256.0, 0.0, 255.0)
    return blend(tf, tf.fill(image.shape, tf.cast(mean, tf.uint8)), image, factor)


def brightness(tf, image, factor):
    return blend(tf, tf.zeros_like(image), image, factor)


def sharpness(tf, image, factor):
    kernel = tf.constant([1, 1, 1, 1, 5, 1, 1, 1, 1], tf.float32, shape=[3, 3, 1, 1]) / 13.0
    smooth = tf.nn.depthwise_conv2d(
        tf.cast(image, tf.float32)[None],
        tf.tile(kernel, [1, 1, 3, 1]),
        [1, 1, 1, 1],
        padding="VALID",
        dilations=[1, 1],
    )
    inner = tf.cast(tf.clip_by_value(smooth, 0.0, 255.0), tf.uint8)[0]
    edges = [[1, 1], [1, 1], [0, 0]]
    inside = tf.pad(tf.ones_like(inner, dtype=tf.bool), edges)
    return blend(tf, tf.where(inside, tf.pad(inner, edges), image), image, factor)


def solarize(tf, image, threshold):
    return tf.where(image < threshold, image, 255 - image)


def solarize_add(tf, image, addition):
    added = tf.clip_by_value(tf.cast(image, tf.int64) + addition, 0, 255)
    return tf.where(image < 128, tf.cast(added, tf.uint8), image)


def posterize(tf, image, bits):
    shift = 8 - bits
    return tf.bitwise.left_shift(tf.bitwise.right_shift(image, shift), shift)


def autocontrast(tf, image):
    def stretched(plane):
        low, high = (tf.cast(f(plane), tf.float32) for f in (tf.reduce_min, tf.reduce_max))
        if high <= low:
            return plane
        scale = 255.0 / (high - low)
        values = tf.cast(plane, tf.float32) * scale + -low * scale
        return tf.cast(tf.clip_by_value(values, 0.0, 255.0), tf.uint8)

    return tf.stack([stretched(image[..., k]) for k in range(3)], -1)


def equalize(tf, image):
    def flattened(plane):
        plane = tf.cast(plane, tf.int32)
        counts = tf.histogram_fixed_width(plane, [0, 255], nbins=256)
        filled = tf.boolean_mask(counts, counts != 0)
        step = (tf.reduce_sum(filled) - filled[-1]) // 255
        if step == 0:
            return tf.cast(plane, tf.uint8)
        table = tf.concat([[0], ((tf.cumsum(counts) + step // 2) // step)[:-1]], 0)
        return tf.cast(tf.gather(tf.clip_by_value(table, 0, 255), plane), tf.uint8)

    return tf.stack([flattened(image[..., k]) for k in range(3)], -1)


def move(tf, image, transform):
    """Moved with a channel of ones, so that what comes from outside is known and filled."""
    wrapped = tf.concat([image, tf.ones_like(image[..., :1])], -1)[None]
    moved = tf.raw_ops.ImageProjectiveTransformV3(
        images=wrapped,
        transforms=tf.cast(tf.stack([transform]), tf.float32),
        output_shape=image.shape[:2],
        fill_value=0.0,
        interpolation="NEAREST",
        fill_mode="CONSTANT",
    )[0]
    return tf.where(moved[..., 3:] == 0, tf.constant(128, tf.uint8), moved[..., :3])


def rotate(tf, image, degrees):
    height, width = (tf.cast(side - 1, tf.float32) for side in image.shape[:2])
    angle = tf.constant(degrees * math.pi / 180.0, tf.float32)
    cos, sin = tf.cos(angle), tf.sin(angle)
    x = (width - (cos * width - sin * height)) / 2.0
    y = (height - (sin * width + cos * height)) / 2.0
    return move(tf, image, [cos, -sin, x, sin, cos, y, 0.0, 0.0])


REFERENCES = {
    "AutoContrast": autocontrast,
    "Equalize": equalize,
    "Invert": lambda tf, image: 255 - image,
    "Rotate": rotate,
    "Posterize": posterize,
    "Solarize": solarize,
    "SolarizeAdd": solarize_add,
    "Color": color,
    "Contrast": contrast,
    "Brightness": brightness,
    "Sharpness": sharpness,
    "ShearX": lambda tf, image, by: move(tf, image, [1.0, by, 0, 0, 1.0, 0, 0, 0]),
    "ShearY": lambda tf, image, by: move(tf, image, [1.0, 0, 0, by, 1.0, 0, 0, 0]),
    "TranslateX": lambda tf, image, by: move(tf, image, [1.0, 0, by, 0, 1.0, 0, 0, 0]),
    "TranslateY": lambda tf, image, by: move(tf, image, [1.0, 0, 0, 0, 1.0, by, 0, 0]),
}


def test_every_operation_is_compared():
    assert REFERENCES.keys() == RULES["big_vision"].keys() - {"Cutout"}


@pytest.mark.reference
@pytest.mark.parametrize("kind", [kind for kind in images() if kind != "tiny"])
@pytest.mark.parametrize("name", REFERENCES)
def test_equals_tensorflow(name, kind):
    """At every level that AugReg has, and some; `tiny` is too small for the 3 x 3 kernel."""
    tf, rule, image = references.load_tensorflow(), RULES["big_vision"][name], images()[kind]
    rng = np.random.default_rng(0)
    for level in LEVELS:
        for sign in (1, -1) if rule.is_signed else (1,):
            use = Use(level, sign, image.shape[:2], 0, "randaugment")
            amount = rule.amount(use)
            arguments = () if amount is None else (amount,)
            expected = REFERENCES[name](tf, tf.constant(image), *arguments).numpy()
            found = operations.perform(
                {"image": image},
                rng,
                rule.operation,
                amount,
                dialect="big_vision",
                resample="nearest",
                fill=128,
            )["image"]
            np.testing.assert_array_equal(found, expected, err_msg=f"{level} {sign}")


@pytest.mark.reference
def test_luma_equals_tensorflow_for_every_colour():
    tf = references.load_tensorflow()
    low = np.stack(np.meshgrid(np.arange(256), np.arange(256), indexing="ij"), -1).astype(np.uint8)
    for red in range(256):
        image = np.concatenate([np.full((256, 256, 1), red, np.uint8), low], -1)
        expected = tf.image.rgb_to_grayscale(tf.constant(image)).numpy()
        assert np.array_equal(tensorflow_colour.luma(image), expected)
