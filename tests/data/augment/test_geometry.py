"""Boxes, masks, segmentations and keypoints move as the pixels do that they describe."""

import numpy as np
import pytest
from references import load_tensorflow

from vit_jax.data.augment import geometry
from vit_jax.data.augment.geometry import affine, crop_and_resize, flip, pad
from vit_jax.data.images.decode import Box
from vit_jax.data.images.resampling import Resample
from vit_jax.errors import InputError

H, W = 60, 80
NEAREST = Resample("nearest")
GROUND, OUTSIDE = 10, 0  # colours; object k is painted 100 + 50 * k


def random_boxes(rng, n=3):
    """Whole-pixel boxes at least 12 pixels wide and high, f32[n,4]."""
    left, top = rng.integers(0, W - 30, n), rng.integers(0, H - 25, n)
    return np.stack(
        [left, top, left + rng.integers(12, 30, n), top + rng.integers(12, 25, n)], axis=1
    ).astype(np.float32)


def planted(seed=0, n=3):
    """An example whose objects are rectangles, each alone in a channel of the image."""
    rng = np.random.default_rng(seed)
    boxes = random_boxes(rng, n)
    image = np.full((H, W, n), GROUND, np.uint8)
    masks = np.zeros((n, H, W), bool)
    for k, (left, top, right, bottom) in enumerate(boxes.astype(int)):
        image[top:bottom, left:right, k] = 100 + 50 * k
        masks[k, top:bottom, left:right] = True
    corners = np.stack([boxes[:, :2], boxes[:, 2:]], axis=1)
    centres = corners.mean(axis=1, keepdims=True)
    keypoints = np.concatenate([corners * 0.2 + centres * 0.8, centres], axis=1)
    return {
        "image": image,
        "label": 3,
        "caption": "three rectangles",
        "boxes": boxes,
        "box_label": np.arange(n, dtype=np.int32),
        "segmentation": np.where(masks.any(0), masks.argmax(0), n).astype(np.int32),
        "masks": masks,
        "keypoints": np.concatenate([keypoints, np.ones((n, 3, 1))], -1).astype(np.float32),
    }


def rotation(degrees, law, shift=(0, 0)):
    """About the image's centre, from places of the result to places of the input."""
    angle, centre = np.deg2rad(degrees), np.array([W / 2, H / 2])
    centre = centre - (0.5 if law == "tensorflow" else 0)
    linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, centre - linear @ centre + shift])


def sheared(law):
    return np.array([[1, 0.3, -4], [0.1, 1, 2.5]])


MOVEMENTS = {
    "crop": lambda e: crop_and_resize(e, Box(10, 12, 40, 50), (33, 91), NEAREST),
    "crop small": lambda e: crop_and_resize(e, Box(5, 9, 47, 61), (47, 61), NEAREST),
    "enlarge": lambda e: crop_and_resize(e, Box(0, 0, H, W), (120, 90), NEAREST),
    "shrink": lambda e: crop_and_resize(e, Box(0, 0, H, W), (41, 39), NEAREST),
    "flip": flip,
    "pad": lambda e: pad(e, left=3, top=5, right=7, bottom=2, fill=OUTSIDE),
    **{
        f"rotate {degrees} {law}": lambda e, d=degrees, law=law: affine(
            e, rotation(d, law, (3, -2)), law=law, resample="nearest", fill=OUTSIDE
        )
        for degrees in (0, 17, 90, -45, 180)
        for law in ("pillow", "tensorflow")
    },
    **{
        f"shear {law}": lambda e, law=law: affine(
            e, sheared(law), law=law, resample="nearest", fill=OUTSIDE
        )
        for law in ("pillow", "tensorflow")
    },
}


@pytest.mark.parametrize("name", MOVEMENTS)
def test_boxes_are_the_hull_of_their_pixels(name):
    turned = "rotate" in name or "shear" in name
    compared = 0
    for before in map(planted, range(8)):
        after = MOVEMENTS[name](before)
        for box, k in zip(after["boxes"], after["box_label"], strict=True):
            rows, columns = np.nonzero(after["image"][..., k] == 100 + 50 * k)
            hull = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            assert np.all((box - hull)[:2] <= 1) and np.all((hull - box)[2:] <= 1)
            # What a border cuts off a turned rectangle may have been its outermost corner.
            if not turned or not touches_border(box, after["image"].shape):
                # The tip of a turned corner may hold no centre of a pixel.
                assert np.abs(box - hull).max() <= (1.5 if turned else 1.0)
                compared += 1
    assert compared >= 8


def touches_border(box, shape):
    return min(box[:2]) <= 0 or box[2] >= shape[1] or box[3] >= shape[0]


@pytest.mark.parametrize("name", MOVEMENTS)
@pytest.mark.parametrize("seed", range(3))
def test_masks_and_segmentation_move_like_the_image(name, seed):
    before = planted(seed)
    after = MOVEMENTS[name](before)
    image, kept = after["image"], after["box_label"]
    for mask, k in zip(after["masks"], kept, strict=True):
        assert np.array_equal(mask, image[..., k] == 100 + 50 * k)
    seen = image == 100 + 50 * np.arange(3)
    expected = np.where(seen.any(-1), seen.argmax(-1), 3)
    expected[image[..., 0] == OUTSIDE] = geometry.IGNORED
    assert np.array_equal(after["segmentation"], expected)
    assert after["segmentation"].dtype == np.int32 and after["masks"].dtype == bool


@pytest.mark.parametrize("name", MOVEMENTS)
@pytest.mark.parametrize("seed", range(3))
def test_keypoints_stay_on_what_they_mark(name, seed):
    """All lie well inside of their rectangle, so the pixel they are in must be its colour."""
    after = MOVEMENTS[name](planted(seed))
    height, width = after["image"].shape[:2]
    assert np.any(after["keypoints"][..., 2] == 1)
    for points, k in zip(after["keypoints"], after["box_label"], strict=True):
        for x, y, visible in points:
            inside = 0 <= x < width and 0 <= y < height
            assert visible == inside
            assert not inside or after["image"][int(y), int(x), k] == 100 + 50 * k


@pytest.mark.parametrize("name", MOVEMENTS)
def test_nothing_else_changes_and_the_given_stays(name):
    before, copy = planted(), planted()
    after = MOVEMENTS[name](before)
    assert after.keys() == before.keys()
    assert (after["label"], after["caption"]) == (3, "three rectangles")
    for field, value in copy.items():
        assert np.array_equal(before[field], value)
    for field in ("boxes", "keypoints"):
        assert after[field].dtype == np.float32
    frames = MOVEMENTS[name]({"video": np.stack([before["image"]] * 2), "label": 1})
    assert np.array_equal(frames["video"], np.stack([after["image"]] * 2))


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if name in ("boxes", "keypoints"):
            np.testing.assert_allclose(value, second[name], atol=1e-4)
        else:
            assert np.array_equal(value, second[name]), name


def test_identities():
    example = planted()
    assert_equal(flip(flip(example)), example)
    assert_equal(crop_and_resize(example, Box(0, 0, H, W), (H, W)), example)
    padded = pad(example, left=3, top=5, right=7, bottom=2)
    assert_equal(crop_and_resize(padded, Box(5, 3, H, W), (H, W)), example)
    for law in ("pillow", "tensorflow"):
        same = np.eye(2, 3)
        assert_equal(affine(example, same, law=law, resample="bilinear", fill=0), example)
        mirror = np.array([[-1, 0, W - (1 if law == "tensorflow" else 0)], [0, 1, 0]])
        assert_equal(affine(example, mirror, law=law, resample="nearest", fill=0), flip(example))


def test_objects_out_of_view_go_with_all_they_have():
    example = planted(n=2)
    example["boxes"] = np.float32([[0, 0, 20, 10], [30, 30, 50, 40]])
    cut = Box(0, 15, 60, 30)  # a quarter of the first, three quarters of the second
    for min_visible, kept in ((0, [0, 1]), (0.25, [0, 1]), (0.26, [1]), (0.76, [])):
        after = crop_and_resize(example, cut, (60, 30), min_visible=min_visible)
        assert after["box_label"].tolist() == kept
        assert len(after["boxes"]) == len(after["masks"]) == len(after["keypoints"]) == len(kept)
        assert after["masks"].shape[1:] == (60, 30) and after["boxes"].shape[1:] == (4,)
    after = crop_and_resize(example, Box(0, 60, 20, 10), (5, 5))
    assert after["boxes"].shape == (0, 4) and after["masks"].shape == (0, 5, 5)


def test_labels_take_the_pixels_that_pillow_takes_in_any_box_and_size():
    rng = np.random.default_rng(0)
    for _ in range(300):
        h, w, *size = rng.integers(1, 200, 4).tolist()
        top, left = int(rng.integers(h)), int(rng.integers(w))
        box = Box(top, left, int(rng.integers(1, h - top + 1)), int(rng.integers(1, w - left + 1)))
        image = rng.integers(0, 256, (h, w, 1), np.uint8)
        example = {"image": image, "segmentation": image[..., 0].astype(np.int32)}
        after = crop_and_resize(example, box, size, NEAREST)
        assert np.array_equal(after["image"][..., 0], after["segmentation"])


def test_an_example_without_objects_keeps_its_shapes():
    example = planted()
    empty = {
        **example,
        "boxes": np.zeros((0, 4), np.float32),
        "box_label": np.zeros(0, np.int32),
        "masks": np.zeros((0, H, W), bool),
        "keypoints": np.zeros((0, 3, 3), np.float32),
    }
    for movement in MOVEMENTS.values():
        after = movement(empty)
        size = after["image"].shape[:2]
        assert after["masks"].shape == (0, *size) and after["keypoints"].shape == (0, 3, 3)


def test_left_and_right_keypoints_change_places():
    example = planted()
    swapped = flip(example, keypoint_order=[1, 0, 2])
    assert np.array_equal(swapped["keypoints"], flip(example)["keypoints"][:, [1, 0, 2]])


def test_padding_mirrors_the_image_but_no_labels():
    example = planted()
    padded = pad(example, left=4, top=0, right=0, bottom=0, mode="reflect")
    assert np.array_equal(padded["image"][:, :4], example["image"][:, 4:0:-1])
    assert np.all(padded["segmentation"][:, :4] == -1) and not padded["masks"][..., :4].any()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"law": "torch"}, "pillow, tensorflow"),
        ({"law": "tensorflow", "resample": "bicubic"}, "nearest, bilinear"),
        ({"resample": "area"}, "nearest, bilinear, bicubic"),
        ({"matrix": np.zeros((2, 3))}, "inverse"),
        ({"fill": (1, 2)}, "fill has 2 values"),
    ],
)
def test_affine_refuses(changed, message):
    settings = {"matrix": np.eye(2, 3), "law": "pillow", "resample": "nearest", "fill": 0}
    with pytest.raises(InputError, match=message):
        affine(planted(), **{**settings, **changed})


@pytest.mark.reference
@pytest.mark.parametrize("resample", ["nearest", "bilinear"])
def test_affine_equals_tensorflow(resample):
    tensorflow = load_tensorflow()
    rng = np.random.default_rng(0)
    for trial in range(30):
        image = rng.integers(0, 256, (*rng.integers(5, 60, 2), 3), np.uint8)
        matrix = np.eye(2, 3) + rng.normal(size=(2, 3)) * (0.3, 0.3, 5)
        if trial % 3 == 0:
            matrix = np.round(matrix * 2) / 2 + 1e-9  # places that fall on halves
        expected = tensorflow.raw_ops.ImageProjectiveTransformV3(
            images=image[None],
            transforms=np.float32([[*matrix.ravel(), 0, 0]]),
            output_shape=image.shape[:2],
            interpolation=resample.upper(),
            fill_mode="CONSTANT",
            fill_value=128.0,
        )
        found = affine({"image": image}, matrix, law="tensorflow", resample=resample, fill=128)
        assert np.array_equal(found["image"], expected.numpy()[0])
