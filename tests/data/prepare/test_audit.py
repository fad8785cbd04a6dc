"""An audit finds what was planted, and nothing else."""

import json

import numpy as np
import pytest
from prepare_inputs import CLASSES, image_bytes, pictures, write_folder

from vit_jax.data.prepare.audit import audit
from vit_jax.data.prepare.duplicates import find_duplicates
from vit_jax.data.prepare.run import prepare
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

TRAIN, TEST = pictures(9), pictures(6, first=100)


@pytest.fixture
def clean(tmp_path):
    return write_folder(tmp_path / "in", train=TRAIN, test=TEST)


def look(spec, **options):
    return audit(str(spec), **{"workers": 0, **options})


@pytest.mark.parametrize("workers", [0, 2])
def test_clean_data_has_no_problems(clean, workers):
    report = look(f"folder:{clean}", workers=workers)
    assert report["problems"] == [] and report["duplicates"]["groups"] == []
    assert report["class_names"] == list(CLASSES)
    assert list(report["splits"]) == ["test", "train"]
    train = report["splits"]["train"]
    assert (train["examples"], train["readable"]) == (9, 9) and train["per_class"] == [3, 3, 3]
    assert train["sizes"]["width"] == {"min": 6, "median": 6, "max": 7}
    assert train["sizes"]["channels"] == {"1": 3, "3": 6}
    assert json.loads(json.dumps(report)) == report


def test_planted_duplicates_are_found(clean):
    first = TRAIN["cat/000.png"][0]
    for path in ("test/cat/copy.png", "test/cat/again.png", "test/owl/other.png"):
        (clean / path).write_bytes(first)
    second = TRAIN["dog/001.jpeg"][0]
    (clean / "train/dog/twice.jpeg").write_bytes(second)
    found = look(f"folder:{clean}")["duplicates"]
    assert found["within"] == {"train": 1, "test": 1}
    assert found["across"] == {"test & train": 1}
    assert found["conflicting"] == 1  # the owl is a cat
    names = [{one["name"].removeprefix(f"{clean}/") for one in g} for g in found["groups"]]
    assert sorted(names, key=len) == [
        {"train/dog/001.jpeg", "train/dog/twice.jpeg"},
        {"test/cat/copy.png", "test/cat/again.png", "test/owl/other.png", "train/cat/000.png"},
    ]


def test_damaged_images_are_named(clean):
    damaged = clean / "train/cat/damaged.jpg"
    for data in (b"", b"text", image_bytes(3, "JPEG", (64, 64))[:-200]):
        damaged.write_bytes(data)
        report = look(f"folder:{clean}")
        (bad,) = report["splits"]["train"]["unreadable"]
        assert bad["name"] == str(damaged) and bad["reason"]
        assert report["splits"]["train"]["readable"] == 9
        assert report["problems"] == ["train: 1 images cannot be read"]


def test_classes_without_examples_are_told(clean):
    (clean / "train/zebra").mkdir()
    (clean / "train/zebra/a.png").write_bytes(image_bytes(77))
    report = look(f"folder:{clean}")
    assert report["splits"]["test"]["classes_without_examples"] == ["zebra"]
    assert report["splits"]["test"]["per_class"] == [2, 2, 2, 0]
    assert report["problems"] == ["test: 1 of 4 classes are without examples"]


def test_labels_outside_the_classes_are_told(clean, tmp_path):
    prepare(f"folder:{clean}", str(tmp_path / "out"), workers=0)
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    manifest["class_names"] = ["cat", "dog"]
    (tmp_path / "out/manifest.json").write_text(json.dumps(manifest))
    report = look(f"array_record:{tmp_path}/out", splits=["train"])
    assert len(report["splits"]["train"]["wrong"]) == 3
    assert report["problems"] == ["train: 3 examples have impossible labels"]


def test_prepared_data_is_compared_with_its_manifest(clean, tmp_path):
    out = tmp_path / "out"
    prepare(f"folder:{clean}", str(out), workers=0, shards=3)
    report = look(f"array_record:{out}")
    assert report["problems"] == [] and report["shards"] == []
    shard = out / "train-00001-of-00003.array_record"
    data = bytearray(shard.read_bytes())
    image = list(TRAIN.values())[3][0]
    data[data.index(image) + len(image) // 2] ^= 1
    shard.write_bytes(data)
    report = look(f"array_record:{out}", splits=["train"])
    assert [one["file"] for one in report["shards"]] == [shard.name]
    assert "1 shards are not what the manifest says" in report["problems"]


def test_prepared_data_equals_its_source(clean, tmp_path):
    """Read back through the source, example by example."""
    prepare(f"folder:{clean}", str(tmp_path / "out"), workers=0, shards=2)
    for split in ("train", "test"):
        original = open_source(f"folder:{clean}", split)
        prepared = open_source(f"array_record:{tmp_path}/out", split)
        assert len(prepared) == len(original) and prepared.class_names == original.class_names
        assert prepared.fields == original.fields
        for ours, theirs in zip(prepared, original, strict=True):
            assert ours["image"].data == theirs["image"].data
            assert ours["label"] == theirs["label"]


@pytest.mark.parametrize("splits, total", [((), 1797), (("train[:100]", "test"), 460)])
def test_sources_of_pixels(splits, total):
    report = look("digits", splits=splits)
    assert sum(split["readable"] for split in report["splits"].values()) == total
    assert sum(sum(split["per_class"]) for split in report["splits"].values()) == total
    assert not report["duplicates"]["groups"]


def test_overlapping_splits_are_found():
    report = look("digits", splits=("train[:100]", "train[90:110]"))
    assert report["duplicates"]["across"] == {"train[:100] & train[90:110]": 10}


def test_progress_ends_with_everything(clean):
    told = []
    look(f"folder:{clean}", on_progress=lambda done, total: told.append((done, total)))
    assert told[0][0].images == 0 and told[-1][0].images == told[-1][1].images == 15
    images = [data for data, _ in (*TRAIN.values(), *TEST.values())]
    assert told[-1][0].bytes == sum(map(len, images))


def test_mistakes_are_explained(clean):
    for spec, splits, message in [
        ("folders:x", (), "did you mean 'folder'"),
        (f"folder:{clean}", ("val",), "no split 'val'; available: test, train"),
        (f"folder:{clean}/none", (), "existing folder"),
    ]:
        with pytest.raises(InputError, match=message):
            look(spec, splits=splits)
    with pytest.raises(InputError, match="data_dir"):
        look(f"folder:{clean}", options={"data_dir": "x"})


def test_duplicates_equal_a_count_of_all_pairs():
    rng = np.random.default_rng(0)
    n = 60
    split, digest = rng.integers(0, 3, n), rng.integers(0, 25, n)
    label = rng.integers(0, 2, n)
    found = find_duplicates(
        split=split,
        position=np.arange(n),
        digest=np.array([f"{d:032}" for d in digest], "S32"),
        label=label,
        split_names=["a", "b", "c"],
        describe=lambda name, i: f"{i}",
    )
    groups = {frozenset(np.flatnonzero(digest == d)) for d in set(digest.tolist())}
    groups = {group for group in groups if len(group) > 1}
    assert {frozenset(int(one["name"]) for one in g) for g in found["groups"]} == groups
    splits = [[int(split[i]) for i in group] for group in groups]
    for k, name in enumerate("abc"):
        assert found["within"].get(name, 0) == sum(s.count(k) > 1 for s in splits)
    for a, b in ((0, 1), (0, 2), (1, 2)):
        pair = f"{'abc'[a]} & {'abc'[b]}"
        assert found["across"].get(pair, 0) == sum(a in s and b in s for s in splits)
    assert found["conflicting"] == sum(len({label[i] for i in g}) > 1 for g in groups)
