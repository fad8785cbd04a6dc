"""Sources: the files a user may bring, whole and broken, read the same way."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from vit_jax.data.images.decode import pixels
from vit_jax.data.sources import arrays, open_source
from vit_jax.errors import InputError

FASHION = Path("/usr/share/datasets/fashion-mnist")


def stacked(source):
    examples = list(source)
    return np.stack([pixels(e["image"]) for e in examples]), [e["label"] for e in examples]


# digits


def test_digits_splits_are_disjoint_and_complete():
    train, test = open_source("digits", "train"), open_source("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.class_names == test.class_names == tuple("0123456789")
    images, labels = stacked(open_source("digits", "train+test"))
    assert images.shape == (1797, 8, 8, 1) and images.dtype == np.uint8
    assert (images.min(), images.max()) == (0, 255)
    from sklearn.datasets import load_digits

    digits = load_digits()
    seen = sorted(zip([image.tobytes() for image in images], labels, strict=True))
    whole = np.round(digits.images * 255 / 16).astype(np.uint8)
    expected = zip([image.tobytes() for image in whole], digits.target.tolist(), strict=True)
    assert seen == sorted(expected)


def test_digits_order_is_fixed():
    labels = [e["label"] for e in open_source("digits", "test[:10]")]
    assert labels == [7, 9, 4, 7, 0, 2, 6, 1, 3, 1]


# idx


def write_idx(file, array):
    header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    data = header + array.tobytes()
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)


def write_mnist(folder, dash="-", suffix=""):
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    written = {}
    for split, prefix, n in (("train", "train", 7), ("test", "t10k", 5)):
        images = rng.integers(0, 256, (n, 4, 3), np.uint8)
        labels = np.arange(n, dtype=np.uint8) % 6
        write_idx(folder / f"{prefix}-images{dash}idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels{dash}idx1-ubyte{suffix}", labels)
        written[split] = images, labels
    return written


@pytest.mark.parametrize("dash, suffix", [("-", ""), ("-", ".gz"), (".", ""), (".", ".gz")])
def test_idx_round_trip(tmp_path, dash, suffix):
    written = write_mnist(tmp_path / "numbers", dash, suffix)
    for split, (images, labels) in written.items():
        source = open_source(f"idx:{tmp_path}/numbers", split)
        read, read_labels = stacked(source)
        assert np.array_equal(read[..., 0], images) and read_labels == labels.tolist()
        # The union over both splits: label 5 occurs in train alone.
        assert source.class_names == tuple("012345")


def test_idx_names_fashion_classes(tmp_path):
    for folder, last in (
        ("my-fashion-mnist", "Ankle boot"),
        ("FashionMNIST/raw", "Ankle boot"),
        ("digits/raw", "5"),
        ("FashionMNIST/mnist", "5"),
    ):
        (tmp_path / folder).mkdir(parents=True)
        write_mnist(tmp_path / folder)
        assert open_source(f"idx:{tmp_path}/{folder}", "test").class_names[-1] == last


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_truncated_file_is_named(tmp_path, suffix):
    write_mnist(tmp_path, suffix=suffix)
    file = tmp_path / f"train-images-idx3-ubyte{suffix}"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(InputError, match="train-images-idx3-ubyte"):
        open_source(f"idx:{tmp_path}", "train")
    assert len(open_source(f"idx:{tmp_path}", "test")) == 5


def test_idx_wrong_content_is_refused(tmp_path):
    write_mnist(tmp_path)
    images = tmp_path / "train-images-idx3-ubyte"
    for content, message in [
        (b"", "starts with"),
        (b"<html>not found</html>", "starts with"),
        (images.read_bytes() + b"x", "not whole"),
    ]:
        images.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_source(f"idx:{tmp_path}", "train")
    write_idx(images, np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(InputError, match=r"3 images.* 7 labels"):
        open_source(f"idx:{tmp_path}", "train")
    images.unlink()
    with pytest.raises(InputError, match="no train-images file"):
        open_source(f"idx:{tmp_path}", "train")


@pytest.mark.skipif(not FASHION.is_dir(), reason=f"no {FASHION} (apt: dataset-fashion-mnist)")
def test_idx_reads_the_real_fashion_mnist():
    for split, n in (("train", 60_000), ("test", 10_000)):
        source = open_source(f"idx:{FASHION}", split)
        assert len(source) == n and source[n - 1]["image"].shape == (28, 28, 1)
        assert source.class_names == arrays.FASHION_MNIST_CLASSES
        counts = np.bincount([source[i]["label"] for i in range(n)])
        assert counts.tolist() == [n // 10] * 10
    assert source.class_names[source[0]["label"]] == "Ankle boot"


# all


def test_unknown_kind_and_unused_options():
    with pytest.raises(InputError, match="did you mean 'digits'"):
        open_source("digit", "train")
    with pytest.raises(InputError, match="concerns tfds:NAME alone"):
        open_source("digits", "train", data_dir="/data")
    with pytest.raises(InputError, match="takes no path"):
        open_source("digits:8", "train")
