"""NumPy files: names of arrays, shapes of images and labels, and what is refused."""

import pickle

import numpy as np
import pytest

from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 5, 4), np.uint8)


def save(tmp_path, **arrays):
    np.savez(tmp_path / "a.npz", **arrays)
    return f"npz:{tmp_path}/a.npz"


@pytest.mark.parametrize(
    "images, labels, split",
    [
        ("images", "labels", "train"),
        ("x_train", "y_train", "train"),
        ("x_test", "y_test", "test"),
        ("val_images", "val_labels", "val"),
    ],
)
@pytest.mark.parametrize("channels", [(), (1,), (3,)], ids=str)
@pytest.mark.parametrize("column", [(), (1,)], ids=str)
def test_every_name_and_shape(tmp_path, images, labels, split, channels, column):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4, *channels), np.uint8)
    targets = np.array([2, 0, 1], np.uint8).reshape(3, *column)
    source = open_source(save(tmp_path, **{images: pixels, labels: targets}), split)
    assert source.class_names == ("0", "1", "2") and [e["label"] for e in source] == [2, 0, 1]
    for i in range(3):
        assert np.array_equal(source[i]["image"], pixels[i].reshape(5, 4, -1))


def test_classes_are_counted_over_all_splits(tmp_path):
    spec = save(tmp_path, x_train=IMAGES, y_train=[0, 1, 0], x_test=IMAGES, y_test=[4, 0, 0])
    assert [len(open_source(spec, s).class_names) for s in ("train", "test")] == [5, 5]


def test_several_labels_a_time(tmp_path):
    hot = np.array([[0, 1, 1], [0, 0, 0], [1, 0, 0]])
    source = open_source(save(tmp_path, train_images=IMAGES, train_labels=hot), "train")
    assert source.fields == ("image", "labels") and source.class_names == ("0", "1", "2")
    assert [e["labels"] for e in source] == [(1, 2), (), (0,)]


def test_images_alone_have_no_classes(tmp_path):
    source = open_source(save(tmp_path, images=IMAGES), "train")
    assert (source.fields, source.class_names) == (("image",), ())
    assert source[1].keys() == {"image"}


def test_mapped_files_stay_on_disk(tmp_path):
    np.save(tmp_path / "train_images.npy", np.zeros((1000, 32, 32, 3), np.uint8))
    np.save(tmp_path / "train_labels.npy", np.arange(1000) % 7)
    source = open_source(f"npz:{tmp_path}", "train")
    source[3]
    assert len(pickle.dumps(source)) < 10_000
    image = source[3]["image"]
    assert type(image) is np.ndarray and image.base is None


@pytest.mark.parametrize(
    "arrays, message",
    [
        (dict(pictures=IMAGES), "holds pictures; expected: arrays images"),
        (dict(images=IMAGES, labels=[0, 1]), "3 images and 2 labels"),
        (dict(images=IMAGES / 255, labels=[0, 1, 2]), r"images .* is float64\[3, 5, 4\]"),
        (dict(images=IMAGES[0], labels=[0, 1, 2]), r"images .* is uint8\[5, 4\]"),
        (dict(images=IMAGES, labels=[0.0, 1, 2]), r"labels .* is float64"),
        (dict(images=IMAGES, labels=[0, -1, 2]), r"labels .* is int64\[3\]"),
        (dict(images=IMAGES, labels=[0, 1, 2**40]), "labels in .* has a label 1099511627776"),
        (dict(images=IMAGES, labels=np.array([0, 1, 2**63 + 5], np.uint64)), "a label 92233720"),
        (dict(images=IMAGES, labels=[[0, 2], [1, 1], [0, 0]]), r"labels .* is int64\[3, 2\]"),
        (dict(images=IMAGES, labels=[0, 1, 2], class_names=["a", "b"]), "2 class_names"),
        (dict(images=IMAGES, x_train=IMAGES), "both the split 'train'"),
        (dict(images=np.array([None])), "Cannot read .*a.npz"),
    ],
)
def test_mistakes_are_explained(tmp_path, arrays, message):
    with pytest.raises(InputError, match=message):
        open_source(save(tmp_path, **arrays), "train")


def test_damaged_files_are_named(tmp_path):
    spec = save(tmp_path, images=IMAGES, labels=[0, 1, 2])
    whole = (tmp_path / "a.npz").read_bytes()
    for content in (b"", b"junk", whole[: len(whole) // 2]):
        (tmp_path / "a.npz").write_bytes(content)
        with pytest.raises(InputError, match="Cannot read .*a.npz"):
            open_source(spec, "train")
    np.save(tmp_path / "train_images.npy", IMAGES)
    whole = (tmp_path / "train_images.npy").read_bytes()
    (tmp_path / "train_images.npy").write_bytes(whole[:-1])
    with pytest.raises(InputError, match="Cannot read .*train_images.npy"):
        open_source(f"npz:{tmp_path}", "train")
