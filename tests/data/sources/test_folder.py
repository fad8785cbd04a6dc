"""Folders of images: what is a class, what is a mistake, and what is no part of the data."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import pixels
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError


def save(path, colour=(10, 20, 30), size=(6, 4), mode="RGB", **options):
    """Writes an image of (width, height) = size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path, **options)


@pytest.fixture
def pictures(tmp_path):
    root = tmp_path / "pictures of mine"
    save(root / "train" / "cat" / "b.PNG")
    save(root / "train" / "cat" / "a b ü.jpeg")
    save(root / "train" / "Zebra" / "1.Jpg")
    save(root / "train" / "Zebra" / "0.webp")
    save(root / "test" / "dog's" / "x.bmp")
    (root / "train" / "cat" / "notes.txt").write_text("junk")
    save(root / "train" / "cat" / "big" / "lion" / "deep.png")
    (root / "train" / "cat" / "._b.PNG").write_text("junk")
    (root / "train" / ".cache").mkdir()
    (root / "logs" / "run1").mkdir(parents=True)
    (root / "README.md").write_text("junk")
    return root


def test_folder_is_sorted_and_shares_classes_between_splits(pictures):
    train, test = (open_source(f"folder:{pictures}", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("Zebra", "cat", "cat/big/lion", "dog's")
    named = [Path(train.describe(i)).name for i in range(len(train))]
    assert named == ["0.webp", "1.Jpg", "a b ü.jpeg", "b.PNG", "deep.png"]
    assert named == [train.file_name(i) for i in range(len(train))]
    assert [e["label"] for e in train] == [0, 0, 1, 1, 2]
    assert [e["label"] for e in test] == [3]
    images = [pixels(e["image"]) for e in train]
    assert all(image.shape == (4, 6, 3) and image.dtype == np.uint8 for image in images)
    with pytest.raises(InputError, match="available: test, train"):
        open_source(f"folder:{pictures}", "logs")


def test_folder_mistakes_are_explained(tmp_path, pictures):
    (tmp_path / "empty").mkdir()
    for path, message in [
        (tmp_path / "missing", "existing folder"),
        ("", "existing folder"),
        (tmp_path / "empty", "no images"),
        (pictures / "train" / "cat" / "big" / "lion", "no images"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(f"folder:{path}", "train")
    (pictures / "train" / "bird").mkdir()
    (pictures / "train" / "bird" / "a.tiff").write_text("junk")
    with pytest.raises(InputError, match="bird is without images"):
        open_source(f"folder:{pictures}", "train")


def test_class_folders_may_be_empty_where_another_split_has_the_class(pictures):
    (pictures / "test" / "cat" / "big" / "lion").mkdir(parents=True)
    assert len(open_source(f"folder:{pictures}", "test")) == 1
    (pictures / "test" / "cat" / "big" / "tiger").mkdir(parents=True)
    with pytest.raises(InputError, match="cat/big/tiger is without images"):
        open_source(f"folder:{pictures}", "test")


def test_a_split_without_class_folders_has_no_labels(pictures):
    for name in ("2.png", "10.png"):
        save(pictures / "unseen" / name)
    source = open_source(f"folder:{pictures}", "unseen[1:]+unseen[:1]")
    assert (source.fields, source.class_names) == (("image",), ())
    assert [source.file_name(i) for i in range(2)] == ["2.png", "10.png"]
    assert all(example.keys() == {"image"} for example in source)
    with pytest.raises(InputError, match="same fields and classes"):
        open_source(f"folder:{pictures}", "train+unseen")
    save(pictures / "train" / "stray.png")
    with pytest.raises(InputError, match="1 images directly and 5 in class folders"):
        open_source(f"folder:{pictures}", "unseen")


def test_a_link_to_nothing_is_an_unreadable_example(pictures):
    (pictures / "train" / "cat" / "gone.jpg").symlink_to(pictures / "nowhere.jpg")
    source = open_source(f"folder:{pictures}", "train")
    (i,) = (i for i in range(len(source)) if source.file_name(i) == "gone.jpg")
    with pytest.raises(UnreadableExample, match="gone.jpg: No such file"):
        source[i]


def test_folders_that_lead_to_themselves_are_told(pictures):
    (pictures / "train" / "cat" / "again").symlink_to(pictures / "train")
    with pytest.raises(InputError, match="Cannot list folder .*cat/again.*: Too many levels"):
        open_source(f"folder:{pictures}", "train")


def test_a_pickle_does_not_grow_with_the_files(tmp_path):
    """But for its arrays, which workers share."""

    def size(n):
        for i in range(n):
            (tmp_path / "train" / "a").mkdir(parents=True, exist_ok=True)
            (tmp_path / "train" / "a" / f"{i}.png").touch()
        source = open_source(f"folder:{tmp_path}", "train")
        return len(pickle.dumps(source, protocol=5, buffer_callback=lambda buffer: None))

    assert abs(size(2) - size(1000)) < 20  # numbers of more digits


def test_names_that_are_no_utf8_are_read(pictures):
    file = os.fsencode(pictures / "test" / "dog's") + b"/\xff.png"
    try:
        with open(file, "wb") as odd:
            odd.write((pictures / "train" / "cat" / "b.PNG").read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    source = pickle.loads(pickle.dumps(open_source(f"folder:{pictures}", "test")))
    assert [pixels(example["image"]).shape for example in source] == [(4, 6, 3)] * 2


@pytest.mark.parametrize("name", ["x.jpg", "x.png", "x.webp", "x.bmp"])
def test_truncated_image_is_named(tmp_path, name):
    file = tmp_path / "train" / "cat" / name
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file.parent.mkdir(parents=True)
    Image.fromarray(noise).save(file)
    source = open_source(f"folder:{tmp_path}", "train")
    pixels(source[0]["image"])
    whole = file.read_bytes()
    for kept in (len(whole) - 60, len(whole) // 2, 10, 0):
        file.write_bytes(whole[:kept])
        with pytest.raises(UnreadableExample, match=rf"{name}: \w") as caught:
            pixels(source[0]["image"])
        assert caught.value.place == str(file)
