"""TFDS without TensorFlow: a data set written here as `tfds build` would, and read back."""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import Encoded, pixels
from vit_jax.data.sources import arrays, open_source
from vit_jax.errors import InputError


def write_tfds(data_dir, name="tiny_shapes", n=9, fmt="array_record", splits=("train", "test")):
    """A TFDS data set as `tfds build` leaves it, without TensorFlow: images 5x4, label i % 3.

    "tags" are the labels below the label, and "file_name" is 'i.png'.
    """
    from array_record.python.array_record_module import ArrayRecordWriter
    from tensorflow_datasets.proto import tf_example_pb2

    folder = data_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    for split in splits:
        writer = ArrayRecordWriter(
            str(folder / f"{name}-{split}.array_record-00000-of-00001"), "group_size:1"
        )
        for i in range(n):
            png = io.BytesIO()
            Image.fromarray(np.full((5, 4), 10 * i, np.uint8)).save(png, "PNG")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(png.getvalue())
            example.features.feature["kind"].int64_list.value.append(i % 3)
            example.features.feature["tags"].int64_list.value.extend(range(i % 3))
            example.features.feature["file_name"].bytes_list.value.append(f"{i}.png".encode())
            writer.write(example.SerializeToString())
        writer.close()
    features = "tensorflow_datasets.core.features"
    image = {"dtype": "uint8", "shape": {"dimensions": ["5", "4", "1"]}}
    described = {
        "image": {"image": image, "pythonClassName": f"{features}.image_feature.Image"},
        "kind": {
            "classLabel": {"numClasses": "3"},
            "pythonClassName": f"{features}.class_label_feature.ClassLabel",
        },
    }
    tags = {"feature": described["kind"], "length": "-1"}
    described |= {
        "tags": {"sequence": tags, "pythonClassName": f"{features}.sequence_feature.Sequence"},
        "file_name": {"text": {}, "pythonClassName": f"{features}.text_feature.Text"},
    }
    whole = {
        "featuresDict": {"features": described},
        "pythonClassName": f"{features}.features_dict.FeaturesDict",
    }
    info = {
        "fileFormat": fmt,
        "name": name,
        "version": "1.0.0",
        "splits": [
            {
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
                "name": split,
                "numBytes": "1",
                "shardLengths": [str(n)],
            }
            for split in splits
        ],
    }
    (folder / "features.json").write_text(json.dumps(whole))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "kind.labels.txt").write_text("round\nsquare\nodd\n")


def test_tfds_reads_a_prepared_data_set(tmp_path):
    write_tfds(tmp_path)
    options = {"data_dir": str(tmp_path), "label_key": "kind"}
    for spec in ("tfds:tiny_shapes", "tfds:tiny_shapes:1.0.0"):
        source = open_source(spec, "train[2:]", **options)
        labels = [e["label"] for e in source]
        images = np.stack([pixels(e["image"]) for e in source])
        assert isinstance(source[0]["image"], Encoded)
        assert images.shape == (7, 5, 4, 1) and images.dtype == np.uint8
        assert images[:, 0, 0, 0].tolist() == [20, 30, 40, 50, 60, 70, 80]
        assert labels == [2, 0, 1, 2, 0, 1, 2]
        assert source.class_names == ("round", "square", "odd")
    assert "tiny_shapes" in source.describe(0) and source.describe(0).endswith("#2")


def test_tfds_images_equal_those_that_tfds_decodes(tmp_path):
    write_tfds(tmp_path)
    from tensorflow_datasets.core import read_only_builder

    builder = read_only_builder.builder_from_files("tiny_shapes", data_dir=str(tmp_path))
    decoded = builder.as_data_source(split="train", file_format="array_record")
    source = open_source("tfds:tiny_shapes", "train", data_dir=str(tmp_path), label_key="kind")
    source = pickle.loads(pickle.dumps(source))
    for i in range(len(source)):
        assert np.array_equal(pixels(source[i]["image"]), decoded[i]["image"])
        assert source[i]["label"] == decoded[i]["kind"]


def test_tfds_several_labels_and_names_of_files(tmp_path):
    write_tfds(tmp_path)
    source = open_source("tfds:tiny_shapes", "train", data_dir=str(tmp_path), label_key="tags")
    assert source.fields == ("image", "labels") and len(source.class_names) == 3
    for i, example in enumerate(source):
        assert example["labels"] == tuple(range(i % 3))
        assert source.file_name(i) == f"{i}.png"
    with pytest.raises(InputError, match="needs a feature 'picture'.*file_name .Text"):
        open_source("tfds:tiny_shapes", "train", data_dir=str(tmp_path), image_key="picture")


def test_tfds_records_that_are_damaged_are_named(tmp_path):
    write_tfds(tmp_path)
    settings = {"data_dir": str(tmp_path), "label_key": "kind"}
    (file,) = tmp_path.glob("*/*/*train*")
    content = file.read_bytes()
    assert b"\x89PNG" in content
    file.write_bytes(content.replace(b"\x89PNG", b"\x00PNG"))  # the checksum no longer fits
    source = open_source("tfds:tiny_shapes", "train", **settings)
    with pytest.raises(UnreadableExample, match="tiny_shapes train #0: \\w"):
        pixels(source[0]["image"])


def test_tfds_mistakes_are_explained(tmp_path):
    write_tfds(tmp_path)
    write_tfds(tmp_path, name="tiny_old", fmt="tfrecord")
    for spec, split, label_key, message in [
        ("tfds:tiny_shapes", "train", "label", r"kind \(ClassLabel\)"),
        ("tfds:tiny_shapes", "train", "image", r"kind \(ClassLabel\)"),
        ("tfds:tiny_shapes", "val", "kind", "available: train, test"),
        ("tfds:tiny_old", "train", "kind", "as tfrecord .*--file_format=array_record"),
        ("tfds:mnist", "train", "label", f"tfds build mnist .*--data_dir={tmp_path}"),
        ("tfds:cifar11", "train", "label", "no TFDS data set.*did you mean"),
        ("tfds:", "train", "label", "Cannot open"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(spec, split, data_dir=str(tmp_path), label_key=label_key)


@pytest.mark.skipif("VIT_JAX_TFDS_DIR" not in os.environ, reason="VIT_JAX_TFDS_DIR is not set")
def test_tfds_fashion_mnist_is_the_idx_one():
    source = open_source("tfds:fashion_mnist", "test", data_dir=os.environ["VIT_JAX_TFDS_DIR"])
    assert len(source) == 10_000 and source.class_names == arrays.FASHION_MNIST_CLASSES
    assert pixels(source[0]["image"]).shape == (28, 28, 1)


READ_EVERYTHING = """
import sys
from vit_jax.data.batching import batches
from vit_jax.data import pipeline, sources
heavy = {"cv2", "sklearn", "tensorflow_datasets", "jax", "flax", "tensorflow"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
root = sys.argv[1]
for options in (
    {"source": "digits"},
    {"source": f"folder:{root}/folder"},
    {"source": "tfds:tiny_shapes", "data_dir": f"{root}/tfds", "label_key": "kind"},
):
    data = pipeline.build(**options, batch_size=4, image_size=8, seed=0)
    next(data.train.iterate())
    next(iter(data.evaluation(pipeline.EvalSettings(split="train"))))
assert not {"jax", "tensorflow"} & set(sys.modules)
"""


def test_nothing_imports_tensorflow_and_modules_import_cheaply(tmp_path):
    picture = tmp_path / "folder" / "train" / "cat" / "a.png"
    picture.parent.mkdir(parents=True)
    Image.new("RGB", (6, 4)).save(picture)
    write_tfds(tmp_path / "tfds")
    command = [sys.executable, "-c", READ_EVERYTHING, str(tmp_path)]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
