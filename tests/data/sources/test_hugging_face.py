"""Hugging Face data sets, written here: every way to keep a label, an image and a split."""

import builtins
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from picture_sources import CLASSES, images, png, write_folder, write_hugging_face

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import Encoded, pixels
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

PICTURES = [np.full((2, 3, 3), i, np.uint8) for i in range(3)]


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    library = pytest.importorskip("datasets", reason="needs datasets, an optional package")
    library.disable_progress_bars()
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return library


def table(datasets, key="image", **columns):
    """A data set of `PICTURES`; a column is (feature, values)."""
    features = {key: datasets.Image(), **{name: kind for name, (kind, _) in columns.items()}}
    values = {key: [{"bytes": png(picture), "path": None} for picture in PICTURES]}
    values |= {name: column for name, (_, column) in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(features))


@pytest.mark.parametrize("kind", ["class", "string", "int64", "uint8"])
@pytest.mark.parametrize("is_list", [False, True])
def test_every_kind_of_label(datasets, tmp_path, kind, is_list):
    one = datasets.ClassLabel(names=["b", "a"]) if kind == "class" else datasets.Value(kind)
    feature = datasets.Sequence(one) if is_list else one
    values = [[0, 1], [], [1]] if is_list else [1, 0, 1]
    names = ("b", "a") if kind == "class" else ("0", "1")
    if kind == "string":
        values = [list(map(str, v)) if is_list else str(v) for v in values]
    table(datasets, kind=(feature, values)).save_to_disk(str(tmp_path / "a"))
    source = open_source(f"hf:{tmp_path}/a", "train", label_key="kind")
    expected = [(0, 1), (), (1,)] if is_list else [1, 0, 1]
    field = "labels" if is_list else "label"
    assert source.class_names == names and source.fields == ("image", field)
    assert [example[field] for example in source] == expected
    for example, picture in zip(source, PICTURES, strict=True):
        assert isinstance(example["image"], Encoded)
        assert np.array_equal(pixels(example["image"]), picture)


def test_captions_are_read_beside_labels_and_without(datasets, tmp_path):
    captions = (datasets.Value("string"), ["one", "two", ""])
    table(datasets, "picture", caption=captions).save_to_disk(str(tmp_path / "a"))
    source = open_source(f"hf:{tmp_path}/a", "train", image_key="picture")
    assert (source.fields, source.class_names) == (("image", "caption"), ())
    assert [example["caption"] for example in source] == captions[1]
    labels = (datasets.ClassLabel(names=["x"]), [0, 0, 0])
    table(datasets, label=labels, caption=captions).save_to_disk(str(tmp_path / "b"))
    assert open_source(f"hf:{tmp_path}/b", "train").fields == ("image", "label", "caption")


def test_folders_of_parquet_and_their_splits(datasets, tmp_path):
    whole = table(datasets, label=(datasets.Value("string"), ["u", "v", "w"]))
    for split, rows in (("train", (0, 1)), ("test", (2,))):
        whole.select(rows).to_parquet(str(tmp_path / "a" / f"{split}-00000-of-00001.parquet"))
    train, test = (open_source(f"hf:{tmp_path}/a", split) for split in ("train", "test"))
    assert train.class_names == test.class_names == ("u", "v", "w")
    assert [e["label"] for e in train] == [0, 1] and [e["label"] for e in test] == [2]
    with pytest.raises(InputError, match="available: train, test"):
        open_source(f"hf:{tmp_path}/a", "val")


def test_what_is_on_disk_is_not_pickled(datasets, tmp_path):
    rows = table(datasets, label=(datasets.Value("int64"), [0, 1, 2])).select([0, 1, 2] * 5000)
    rows.save_to_disk(str(tmp_path / "a"))
    source = open_source(f"hf:{tmp_path}/a", "train[1:]")
    source[0]
    state = pickle.dumps(source)
    assert len(state) < 100_000 < 15_000 * len(png(PICTURES[0]))
    assert pickle.loads(state)[0]["label"] == 1


def test_mistakes_are_explained(datasets, tmp_path):
    kinds = {"label": (datasets.Value("float32"), [0.5, 1, 2])}
    table(datasets, **kinds).save_to_disk(str(tmp_path / "a"))
    for spec, settings, message in [
        ("a", {}, r"a label 'label' .*its columns: image \(Image\), label \(Value\)"),
        ("a", {"image_key": "label"}, "needs an Image 'label'"),
        ("nowhere", {}, "Cannot open hf:"),
    ]:
        with pytest.raises(InputError, match=message):
            open_source(f"hf:{tmp_path}/{spec}", "train", **settings)


def test_labels_and_images_that_are_missing_are_told(datasets, tmp_path):
    labels = (datasets.ClassLabel(names=["x", "y"]), [-1, None, 1])
    rows = table(datasets, label=labels)
    rows.save_to_disk(str(tmp_path / "a"))
    source = open_source(f"hf:{tmp_path}/a", "train")
    with pytest.raises(InputError, match="train #0 has label -1, outside the 2 classes"):
        source[0]
    with pytest.raises(InputError, match="train #1 has no label"):
        source[1]
    assert source[2]["label"] == 1
    empty = datasets.Dataset.from_dict({"image": [None], "label": [0]}, features=rows.features)
    empty.save_to_disk(str(tmp_path / "b"))
    with pytest.raises(UnreadableExample, match="train #0: there is no image"):
        open_source(f"hf:{tmp_path}/b", "train")[0]


def test_images_may_be_files_of_their_own(datasets, tmp_path):
    """As `load_dataset` has them for a plain folder of images."""
    write_folder(tmp_path / "a")
    source = open_source(f"hf:{tmp_path}/a", "train")
    assert source.class_names == CLASSES and [e["label"] for e in source] == [0, 0, 1, 2]
    assert source.file_name(3) == "picture_3.png"
    assert np.array_equal(pixels(source[3]["image"]), images("train")[3])
    (tmp_path / "a" / "train" / "cow" / "picture_3.png").unlink()
    with pytest.raises(UnreadableExample, match="picture_3.png: No such file"):
        source[3]


def test_no_tensor_library_is_imported(datasets, tmp_path):
    spec = write_hugging_face(tmp_path / "a")["spec"]
    program = (
        "import sys\nfrom vit_jax.data.sources import open_source\n"
        f"assert open_source({spec!r}, 'train')[0]['label'] == 0\n"
        "print(*{'torch', 'tensorflow', 'jax'} & set(sys.modules))"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_without_the_package_it_is_named(monkeypatch):
    real = builtins.__import__

    def fail(name, *rest):
        if name == "datasets":
            raise ImportError("No module named 'datasets'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", fail)
    with pytest.raises(InputError, match="hf:some/thing needs the package datasets"):
        open_source("hf:some/thing", "train")
