"""Prepared files: all fields, damage of every sort, and manifests that do not fit."""

import json
import os

import numpy as np
import pytest
from picture_sources import png, write_array_record, write_records

from vit_jax.data import records
from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import pixels
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

FIELDS = {
    "label": 1,
    "labels": (0, 1),
    "caption": "a bee",
    "boxes": np.float32([[0, 0, 1 / 3, 1]]),
    "box_label": np.int32([1]),
}


def write(folder, packed, num_shards=1, **more):
    split = write_records(folder, "train", packed, num_shards)
    manifest = {
        "format": "vit_jax array_record 1",
        "class_names": ["ant", "bee"],
        "splits": {"train": split},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest | more))
    return f"array_record:{folder}"


@pytest.mark.parametrize("keys", [list(FIELDS), *([key] for key in FIELDS), []], ids="+".join)
@pytest.mark.parametrize("is_stated", [True, False])
def test_every_field_comes_back(tmp_path, keys, is_stated):
    image = np.full((2, 3, 3), 7, np.uint8)
    example = {key: FIELDS[key] for key in keys}
    stated = {"fields": ["image", *keys]} if is_stated else {}
    source = open_source(write(tmp_path, [records.pack(example, png(image))], **stated), "train")
    found = source[0]
    assert source.fields == tuple(found) == ("image", *keys)
    assert np.array_equal(pixels(found.pop("image")), image)
    for key in keys:
        assert type(found[key]) is type(FIELDS[key])
        assert np.array_equal(found[key], FIELDS[key])
        assert getattr(found[key], "dtype", None) == getattr(FIELDS[key], "dtype", None)


@pytest.mark.parametrize("num_shards", [1, 3, 7])
def test_the_order_is_that_of_the_shards(tmp_path, num_shards):
    packed = [records.pack({"label": i % 2, "caption": str(i)}, b"") for i in range(5)]
    source = open_source(write(tmp_path, packed, num_shards), "train")
    assert [e["caption"] for e in source] == list("01234")
    assert [source[i]["caption"] for i in (4, 0, 3)] == ["4", "0", "3"]


def test_a_fork_opens_files_of_its_own(tmp_path, monkeypatch):
    source = open_source(write(tmp_path, [records.pack({"label": 1}, b"")]), "train")
    source[0]
    (reader,) = source._readers
    source[0]
    assert source._readers == [reader]
    another = os.getpid() + 1
    monkeypatch.setattr("os.getpid", lambda: another)
    assert source[0]["label"] == 1 and source._readers != [reader]


def test_damaged_records_are_unreadable_and_others_are_not(tmp_path):
    """One that was cut when it was packed, and one that the disk lost bits of."""
    noise = np.random.default_rng(0)
    packed = [records.pack({"label": 1}, noise.bytes(99_000)) for _ in range(3)]
    spec = write(tmp_path, [packed[0], packed[1][:-1], packed[2]], num_shards=1)
    (file,) = tmp_path.glob("*.array_record")
    content = bytearray(file.read_bytes())
    content[-50_000 - 64 * 1024] ^= 255  # in the last record: the file ends with its index
    file.write_bytes(content)
    source = open_source(spec, "train")
    assert source[0]["label"] == 1
    with pytest.raises(UnreadableExample, match=f"{file.name} #1: .*promises 99000 bytes"):
        source[1]
    with pytest.raises(UnreadableExample, match=f"{file.name} #2: Corrupted"):
        source[2]
    file.unlink()
    assert source[0]["label"] == 1  # it is open; a new process finds nothing
    with pytest.raises(InputError, match="does not exist"):
        open_source(spec, "train")


def test_shards_that_are_missing_or_of_other_length_are_told(tmp_path):
    packed = [records.pack({"label": 1}, b"")] * 4
    spec = write(tmp_path, packed, 2, fields=["image", "label"])
    source = open_source(spec, "train")
    second = tmp_path / "train-00001-of-00002.array_record"
    second.rename(tmp_path / "away")
    assert source[1]["label"] == 1
    with pytest.raises(UnreadableExample, match="00001-of-00002.*#0: .*No such file"):
        source[2]
    write(tmp_path, packed[:3], 2)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["splits"]["train"]["shards"][0]["examples"] = 3
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UnreadableExample, match="has 1 records, the manifest promises 3"):
        open_source(spec, "train")


def test_what_does_not_fit_the_manifest_is_told(tmp_path):
    spec = write(tmp_path, [records.pack({"label": 2}, b""), records.pack({}, b"")])
    source = open_source(spec, "train")
    with pytest.raises(InputError, match="#0 has label 2, outside the 2 classes"):
        source[0]
    with pytest.raises(InputError, match="#1 lacks label"):
        source[1]


def test_manifests_are_checked(tmp_path):
    spec = write_array_record(tmp_path / "a", format="another")["spec"]
    with pytest.raises(InputError, match="format 'another'; 'vit_jax array_record 1' can be read"):
        open_source(spec, "train")
    for content in ("", "[]", "{}", '{"format": "vit_jax array_record 1", "splits": []}'):
        (tmp_path / "a" / "manifest.json").write_text(content)
        with pytest.raises(InputError, match="manifest.json cannot be read"):
            open_source(spec, "train")
    with pytest.raises(InputError, match="needs a folder that holds manifest.json"):
        open_source(f"array_record:{tmp_path}", "train")
