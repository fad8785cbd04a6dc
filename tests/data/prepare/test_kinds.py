"""Every kind of input: what is in it, byte for byte, and what is damaged, by name."""

import io
import json
import struct

import numpy as np
import pytest
from PIL import Image
from prepare_inputs import (
    CLASSES,
    framed,
    image_bytes,
    pictures,
    read_records,
    tar_bytes,
    tf_example,
    write_folder,
    write_tar,
    write_tfds,
)
from references import load_tensorflow

from vit_jax.data.prepare.run import prepare
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

TRAIN, VAL = pictures(9), pictures(5, first=100)
DAMAGED = {  # what a download or a disk leaves behind
    "empty.jpg": b"",
    "page.png": b"<html>not found</html>",
    "cut.jpeg": image_bytes(7, "JPEG", (64, 64))[:-300],
}


def convert(spec, tmp_path, **options):
    """Manifest and the records of each split, written by this process."""
    out = tmp_path / "out"
    manifest = prepare(spec, str(out), workers=0, **options).manifest
    return manifest, {split: read_records(out, split) for split in manifest["splits"]}


def expect(records, files, *, captions=None):
    """The records hold exactly these files, in this order, with their labels."""
    assert [image for _, image in records] == [data for data, _ in files.values()]
    assert [fields["label"] for fields, _ in records] == [label for _, label in files.values()]
    if captions is not None:
        assert [fields["caption"] for fields, _ in records] == captions


def wnid_tar(files):
    """As ILSVRC2012_img_train.tar: class.tar with the files of the class."""
    return {
        f"{name}.tar": tar_bytes(
            {k.split("/")[1]: data for k, (data, _) in files.items() if k.startswith(name)}
        )
        for name in CLASSES
    }


# folder


def test_folder(tmp_path):
    root = write_folder(tmp_path / "in", train=TRAIN, val=VAL)
    (root / "train" / "cat" / ".hidden.png").write_bytes(b"junk")
    (root / "train" / "cat" / "notes.txt").write_bytes(b"junk")
    manifest, records = convert(f"folder:{root}", tmp_path, shards=2)
    expect(records["train"], TRAIN)
    expect(records["val"], VAL)
    names = [fields["name"] for fields, _ in records["train"]]
    assert names == [f"train/{name}" for name in TRAIN]
    assert manifest["class_names"] == list(CLASSES) and manifest["fields"] == ["image", "label"]


def test_folder_mistakes_are_explained(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in ("", tmp_path / "none", tmp_path / "empty"):
        with pytest.raises(InputError, match="existing folder|no images"):
            convert(f"folder:{path}", tmp_path)


def test_folder_of_any_depth_and_a_split_without_labels(tmp_path):
    train = {f"animals/{name}": value for name, value in TRAIN.items()}
    test = {name.replace("/", "_"): value for name, value in VAL.items()}
    root = write_folder(tmp_path / "in", train=train, test=test)
    (root / "train" / "animals" / "cat" / "broken.png").symlink_to("nowhere")
    manifest, records = convert(f"folder:{root}", tmp_path)
    expect(records["train"], train)
    assert manifest["class_names"] == [f"animals/{name}" for name in CLASSES]
    assert [image for _, image in records["test"]] == [test[name][0] for name in sorted(test)]
    assert not any("label" in fields for fields, _ in records["test"])
    assert manifest["fields"] == ["image"]
    assert manifest["splits"]["train"]["fields"] == ["image", "label"]
    (broken,) = manifest["splits"]["train"]["unreadable"]
    assert broken["name"] == "train/animals/cat/broken.png" and "No such file" in broken["reason"]
    # Each split is read back with the fields that it has.
    for split, has_label in (("train", True), ("test", False)):
        prepared = open_source(f"array_record:{tmp_path}/out", split)
        original = open_source(f"folder:{root}", split)
        for i, example in enumerate(prepared):
            assert ("label" in example) == has_label
            whole = original[i + (split == "train" and i >= 3)]  # after the broken one
            assert example["image"].data == whole["image"].data
            assert example.get("label") == whole.get("label")


# tar


@pytest.mark.parametrize("prefix", ["", "./", "archive/train/"])
def test_tar_with_class_folders(tmp_path, prefix):
    members = {prefix + name: data for name, (data, _) in reversed(TRAIN.items())}
    tar = write_tar(tmp_path / "my_train.tar", members)
    manifest, records = convert(f"tar:{tar}", tmp_path)
    expect(records["train"], TRAIN)
    assert manifest["class_names"] == list(CLASSES)


def test_imagenet_tars(tmp_path):
    """The training tar of class tars, the flat validation tar and its labels."""
    write_tar(tmp_path / "in" / "ILSVRC2012_img_train.tar", wnid_tar(TRAIN))
    flat = {f"val_{i:03}.JPEG": data for i, (data, _) in enumerate(VAL.values())}
    write_tar(tmp_path / "in" / "ILSVRC2012_img_val.tar", flat)
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{CLASSES[label]}\n" for _, label in VAL.values()))
    manifest, records = convert(f"tar:{tmp_path}/in", tmp_path, labels=str(labels))
    expect(records["train"], TRAIN)
    expect(records["val"], VAL)
    assert [fields["name"] for fields, _ in records["train"]] == list(TRAIN)
    assert manifest["class_names"] == list(CLASSES)
    # ImageNet's own numbers are in another order than its sorted folders: never mix them up.
    labels.write_text("1\n" * len(VAL))
    with pytest.raises(InputError, match="'1', which is no class folder of train"):
        prepare(f"tar:{tmp_path}/in", str(tmp_path / "other"), labels=str(labels), workers=0)


def test_inner_tar_without_an_end(tmp_path):
    """Some writers leave out the two closing blocks."""
    inner = {name: data[:-1024].rstrip(b"\0") for name, data in wnid_tar(TRAIN).items()}
    inner = {name: data + bytes(-len(data) % 512) for name, data in inner.items()}
    tar = write_tar(tmp_path / "train.tar", inner)
    manifest, records = convert(f"tar:{tar}", tmp_path)
    expect(records["train"], TRAIN)
    assert not manifest["splits"]["train"]["unreadable"]


def test_long_names_in_a_tar(tmp_path):
    """They have extra headers (GNU and pax)."""
    members = {f"cat/{'x' * 150}{i}ü.png": image_bytes(i) for i in range(3)}
    tar = write_tar(tmp_path / "train.tar", members)
    _, records = convert(f"tar:{tar}", tmp_path)
    assert {fields["name"]: image for fields, image in records["train"]} == members


@pytest.mark.parametrize("cut, is_lost", [(0.5, True), (1.0, False)])
def test_truncated_tar_is_reported(tmp_path, cut, is_lost):
    members = {name: data for name, (data, _) in TRAIN.items()}
    data = tar_bytes(members).rstrip(b"\0")
    tar = tmp_path / "train.tar"
    tar.write_bytes(data[: int(len(data) * cut)] + bytes(0 if is_lost else 1024))
    manifest, records = convert(f"tar:{tar}", tmp_path)
    split = manifest["splits"]["train"]
    assert bool(split["unreadable"]) == is_lost
    assert (len(records["train"]) < len(TRAIN)) == is_lost


def test_damaged_header_in_a_tar_is_reported(tmp_path):
    members = {name: data for name, (data, _) in TRAIN.items()}
    data = bytearray(tar_bytes(members))
    middle = data.index(list(members)[4].encode())
    data[middle : middle + 100] = b"\xaa" * 100
    tar = tmp_path / "train.tar"
    tar.write_bytes(data)
    manifest, records = convert(f"tar:{tar}", tmp_path)
    assert len(records["train"]) == 4
    (lost,) = manifest["splits"]["train"]["unreadable"]
    assert f"byte {middle}" in lost["reason"] and "lost" in lost["reason"]


def test_tar_mistakes_are_explained(tmp_path):
    flat = write_tar(tmp_path / "flat.tar", {"a.png": image_bytes(0), "b.png": image_bytes(1)})
    mixed = write_tar(tmp_path / "mixed.tar", {"a.png": b"", "cat/b.png": b""})
    twice = write_tar(tmp_path / "twice.tar", {"a/images/1.png": b"", "b/images/2.png": b""})
    empty = write_tar(tmp_path / "empty.tar", {"readme.md": b""})
    packed = tmp_path / "packed.tar"
    packed.write_bytes(b"\x1f\x8b\x08" + bytes(20))
    (tmp_path / "page.tar").write_bytes(b"<html>" * 200)
    (tmp_path / "folder").mkdir()
    three = tmp_path / "labels.txt"
    three.write_text("cat\ndog\nowl\n")
    for path, options, message in [
        (flat, {}, "in no folder.*--labels=FILE"),
        (mixed, {}, "in no folder"),
        (flat, {"labels": str(three)}, "3 lines, but flat.tar holds 2"),
        (flat, {"labels": str(tmp_path / "none")}, "Cannot read --labels"),
        (mixed, {"labels": str(three)}, "without class folders|in no folder"),
        (twice, {}, "a/images and b/images"),
        (empty, {}, "holds no images"),
        (tmp_path / "page.tar", {}, "holds no images"),
        (packed, {}, "compressed; decompress it first, e.g. gunzip packed.tar"),
        (tmp_path / "none.tar", {}, "there is no file"),
        (tmp_path / "folder", {}, "holds no .*tar"),
        (flat, {"label_key": "kind"}, "no such setting"),
    ]:
        with pytest.raises(InputError, match=message):
            convert(f"tar:{path}", tmp_path, **options)


# webdataset


def samples(files, annotate):
    """key.jpg and its annotations, as neighbours in a tar."""
    members = {}
    for i, (name, (data, label)) in enumerate(files.items()):
        members[f"{i:04}.{name.rpartition('.')[2]}"] = data
        members |= {f"{i:04}.{end}": text for end, text in annotate(i, label).items()}
    return members


@pytest.mark.parametrize(
    "annotate",
    [
        lambda i, label: {"cls": f"{label}\n".encode(), "txt": f"ein Bild ü {i}".encode()},
        lambda i, label: {"json": json.dumps({"label": label, "caption": f"ein Bild ü {i}"})},
        lambda i, label: {"txt": f"ein Bild ü {i}", "json": json.dumps({"label": label, "x": 0})},
    ],
    ids=["cls txt", "json", "txt json"],
)
def test_webdataset(tmp_path, annotate):
    def as_bytes(i, label):
        pairs = annotate(i, label).items()
        return {end: text if isinstance(text, bytes) else text.encode() for end, text in pairs}

    parts = [dict(list(TRAIN.items())[a:b]) for a, b in ((0, 4), (4, 9))]
    for k, part in enumerate(parts):
        write_tar(tmp_path / "in" / f"train-{k:06}.tar", samples(part, as_bytes))
    write_tar(tmp_path / "in" / "val-000000.tar", samples(VAL, as_bytes))
    captions = [f"ein Bild ü {i}" for part in parts for i in range(len(part))]
    for k, pattern in enumerate(["train-{000000..000001}.tar", "train-*.tar", "{train,val}-*.tar"]):
        out = tmp_path / f"{k}"
        out.mkdir()
        manifest, records = convert(f"webdataset:{tmp_path}/in/{pattern}", out)
        expect(records["train"], TRAIN, captions=captions)
        assert manifest["class_names"] == ["0", "1", "2"]
        assert manifest["fields"] == ["image", "label", "caption"]
    expect(records["val"], VAL)


def test_webdataset_class_names_and_labels_by_name(tmp_path):
    (tmp_path / "names.txt").write_text("cat\ndog\nowl\n")
    annotated = samples(TRAIN, lambda i, label: {"json": b'{"label": "%s"}' % b"dog"})
    tar = write_tar(tmp_path / "a.tar", annotated)
    manifest, records = convert(f"webdataset:{tar}", tmp_path, labels=f"{tmp_path}/names.txt")
    assert {fields["label"] for fields, _ in records["a"]} == {1}
    assert manifest["class_names"] == list(CLASSES)


def test_webdataset_with_several_labels(tmp_path):
    of_each = ([2, 0, 2], [], [2])
    members = {}
    for i, labels in enumerate(of_each):
        members |= {
            f"{i}.png": image_bytes(i),
            f"{i}.json": b'{"labels": %s}' % str(labels).encode(),
        }
    members |= {"bad.png": image_bytes(4), "bad.json": b'{"labels": 1}'}
    tar = write_tar(tmp_path / "train.tar", members)
    manifest, records = convert(f"webdataset:{tar}", tmp_path)
    assert [fields["labels"] for fields, _ in records["train"]] == list(of_each)
    assert manifest["splits"]["train"]["per_class"] == [1, 0, 2]  # examples, each once
    assert manifest["fields"] == ["image", "labels"]
    assert "no list" in manifest["splits"]["train"]["unreadable"][0]["reason"]
    source = open_source(f"array_record:{tmp_path}/out", "train")
    assert [example["labels"] for example in source] == list(map(tuple, of_each))


def test_webdataset_damaged_samples_are_listed(tmp_path):
    good = {"ok.png": image_bytes(0), "ok.cls": b"1"}
    members = {
        **good,
        "number.png": image_bytes(1),
        "number.cls": b"one",
        "json.png": image_bytes(1),
        "json.json": b"{",
        "alone.cls": b"1",
        "negative.png": image_bytes(1),
        "negative.cls": b"-1",
        "huge.png": image_bytes(1),
        "huge.cls": b"1" + bytes(b"0" * 30),
        "text.png": image_bytes(1),
        "text.txt": b"\xff\xfe",
        "named.png": image_bytes(1),
        "named.json": b'{"label": "cat"}',
        "half.png": image_bytes(1),
        "half.json": b'{"label": 1, "caption": "\\ud800"}',
        "._ok.png": b"junk",
    }
    tar = write_tar(tmp_path / "x.tar", members)
    manifest, records = convert(f"webdataset:{tar}", tmp_path, split="train")
    assert [image for _, image in records["train"]] == [good["ok.png"]]
    found = {bad["name"]: bad["reason"] for bad in manifest["splits"]["train"]["unreadable"]}
    keys = ("number", "json", "alone", "negative", "huge", "text", "named", "half")
    assert found.keys() == {f"x.tar/{key}" for key in keys}
    assert "no image" in found["x.tar/alone"] and "--labels" in found["x.tar/named"]


def test_webdataset_fields_of_only_some_are_no_fields_of_all(tmp_path):
    members = {"a.png": image_bytes(0), "a.txt": b"one", "b.png": image_bytes(1)}
    tar = write_tar(tmp_path / "x.tar", members)
    manifest, _ = convert(f"webdataset:{tar}", tmp_path)
    assert manifest["fields"] == ["image"] and manifest["class_names"] == []
    assert manifest["splits"]["x"]["with_field"] == {"caption": 1, "image": 2}


def test_webdataset_mistakes_are_explained(tmp_path):
    write_tar(tmp_path / "train-0.tar", {"a.cls": b"1"})
    for pattern, message in [
        ("train-{0..1}.tar", "no file .*train-1.tar"),
        ("val-*.tar", "no file fits"),
        ("train-0.tar", "hold no images"),
    ]:
        with pytest.raises(InputError, match=message):
            convert(f"webdataset:{tmp_path}/{pattern}", tmp_path)


# tfrecord


def framed_examples(files):
    return [framed(tf_example(data, label)) for data, label in files.values()]


def test_tfrecord(tmp_path):
    train = framed_examples(TRAIN)
    folder = write_tfds(
        tmp_path / "tiny" / "1.0.0", train=[train[:4], train[4:]], test=[framed_examples(VAL)]
    )
    for k, path in enumerate((folder, tmp_path / "tiny")):
        (tmp_path / str(k)).mkdir()
        manifest, records = convert(f"tfrecord:{path}", tmp_path / str(k), label_key="kind")
        expect(records["train"], TRAIN)
        expect(records["test"], VAL)
        assert manifest["class_names"] == list(CLASSES)
        assert not manifest["splits"]["train"]["unreadable"]


def test_tfrecord_wrong_checksums_are_listed(tmp_path):
    records = framed_examples(TRAIN)
    data = bytearray(records[2])
    data[100] ^= 1  # one bit of the image
    length = struct.pack("<Q", 5) + records[7][8:]
    shards = [[*records[:2], bytes(data), *records[3:5]], [*records[5:7], length, records[8]]]
    folder = write_tfds(tmp_path / "tiny", train=shards)
    manifest, found = convert(f"tfrecord:{folder}", tmp_path, label_key="kind")
    whole = [data for i, (data, _) in enumerate(TRAIN.values()) if i not in (2, 7, 8)]
    assert [image for _, image in found["train"]] == whole
    bad = {one["name"]: one["reason"] for one in manifest["splits"]["train"]["unreadable"]}
    assert "checksum is wrong" in bad["tiny-train.tfrecord-00000-of-00002#2"]
    assert "the rest is lost" in bad["tiny-train.tfrecord-00001-of-00002#2"]
    assert "2 records, 4 are promised" in bad["tiny-train.tfrecord-00001-of-00002"]


@pytest.mark.parametrize("kept", [3, 11, 200])
def test_tfrecord_truncated_file_is_reported(tmp_path, kept):
    records = framed_examples(TRAIN)
    folder = write_tfds(tmp_path / "tiny", train=[[*records[:3], records[3][:kept]]])
    manifest, found = convert(f"tfrecord:{folder}", tmp_path, label_key="kind")
    assert len(found["train"]) == 3
    reasons = [one["reason"] for one in manifest["splits"]["train"]["unreadable"]]
    assert "the file ends within it" in reasons and len(reasons) == 2


def test_tfrecord_records_without_what_is_needed_are_listed(tmp_path):
    from tensorflow_datasets.proto import tf_example_pb2

    bare = tf_example_pb2.Example().SerializeToString()
    records = [
        framed(data)
        for data in (b"junk", bare, tf_example(image_bytes(0), 3), tf_example(image_bytes(1), -2))
    ]
    folder = write_tfds(tmp_path / "tiny", test=[[*records, *framed_examples(VAL)]])
    manifest, found = convert(f"tfrecord:{folder}", tmp_path, label_key="kind")
    expect(found["test"], VAL)
    assert len(manifest["splits"]["test"]["unreadable"]) == 4


@pytest.mark.reference
def test_tfrecord_written_by_tensorflow(tmp_path):
    tf = load_tensorflow()
    folder = write_tfds(tmp_path / "tiny", train=[[b""] * len(TRAIN)])
    with tf.io.TFRecordWriter(str(folder / "tiny-train.tfrecord-00000-of-00001")) as writer:
        for data, label in TRAIN.values():
            image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
            kind = tf.train.Feature(int64_list=tf.train.Int64List(value=[label]))
            features = tf.train.Features(feature={"image": image, "kind": kind})
            writer.write(tf.train.Example(features=features).SerializeToString())
    manifest, records = convert(f"tfrecord:{folder}", tmp_path, label_key="kind")
    expect(records["train"], TRAIN)
    assert not manifest["splits"]["train"]["unreadable"]


def test_tfrecord_label_minus_one_is_none(tmp_path):
    """As TFDS has it for test splits whose labels are secret."""
    test = [framed(tf_example(data, -1)) for data, _ in VAL.values()]
    folder = write_tfds(tmp_path / "tiny", train=[framed_examples(TRAIN)], test=[test])
    manifest, records = convert(f"tfrecord:{folder}", tmp_path, label_key="kind")
    assert [image for _, image in records["test"]] == [data for data, _ in VAL.values()]
    assert manifest["splits"]["test"]["fields"] == ["image"]
    assert manifest["splits"]["train"]["fields"] == ["image", "label"]


def test_tfrecord_mistakes_are_explained(tmp_path):
    folder = write_tfds(tmp_path / "a" / "1.0.0", train=[framed_examples(TRAIN)])
    write_tfds(tmp_path / "b" / "1.0.0", train=[framed_examples(TRAIN)])
    for path, key, message in [
        (folder, "label", "ClassLabel 'label'.*its features: image, kind"),
        (tmp_path, "kind", "of one prepared TFDS data set"),
        (tmp_path / "none", "kind", "found: none"),
        ("", "kind", "found: none"),
    ]:
        with pytest.raises(InputError, match=message):
            convert(f"tfrecord:{path}", tmp_path, label_key=key)
    (folder / "tiny-train.tfrecord-00000-of-00001").unlink()
    with pytest.raises(InputError, match="has 0 tfrecord files; 1 are promised"):
        convert(f"tfrecord:{folder}", tmp_path, label_key="kind")


# all


def test_unreadable_images_are_left_out_and_listed(tmp_path):
    files = dict(TRAIN)
    files |= {f"dog/{name}": (data, 1) for name, data in DAMAGED.items()}
    root = write_folder(tmp_path / "in", train=dict(sorted(files.items())))
    manifest, records = convert(f"folder:{root}", tmp_path)
    expect(records["train"], TRAIN)
    split = manifest["splits"]["train"]
    assert {one["name"] for one in split["unreadable"]} == {f"train/dog/{n}" for n in DAMAGED}
    assert all(one["reason"] for one in split["unreadable"])
    assert split["per_class"] == [3, 3, 3] and split["examples"] == 9
    with pytest.raises(InputError, match="Cannot read image train/dog/"):
        prepare(f"folder:{root}", str(tmp_path / "strict"), workers=0, strict=True)


def test_manifest_counts(tmp_path):
    root = write_folder(tmp_path / "in", train=TRAIN)
    manifest, _ = convert(f"folder:{root}", tmp_path, shards=4)
    split = manifest["splits"]["train"]
    assert split["bytes"] == sum(len(data) for data, _ in TRAIN.values())
    assert split["sizes"]["height"] == {"min": 5, "median": 5, "max": 5}
    assert split["sizes"]["width"] == {"min": 6, "median": 6, "max": 7}
    assert split["sizes"]["channels"] == {"1": 3, "3": 6}
    assert [shard["examples"] for shard in split["shards"]] == [2, 2, 2, 3]
    assert [shard["file"] for shard in split["shards"]] == [
        f"train-{k:05}-of-00004.array_record" for k in range(4)
    ]


def test_resize_small_makes_large_images_smaller(tmp_path):
    files = {
        "cat/grey.png": (image_bytes(0, "PNG", (60, 40)), 0),  # (width, height)
        "cat/same.png": (image_bytes(1, "PNG", (33, 20)), 0),
        "cat/smaller.jpg": (image_bytes(1, "JPEG", (90, 10)), 0),
        "cat/tall.jpg": (image_bytes(1, "JPEG", (41, 123)), 0),
    }
    root = write_folder(tmp_path / "in", train=files)
    manifest, records = convert(f"folder:{root}", tmp_path, resize_small=20, quality=80)
    found = {fields["name"]: Image.open(io.BytesIO(data)) for fields, data in records["train"]}
    sizes = {name.removeprefix("train/cat/"): image.size for name, image in found.items()}
    wanted = {"grey": (30, 20), "same": (33, 20), "smaller": (90, 10), "tall": (20, 60)}
    assert {name.partition(".")[0]: size for name, size in sizes.items()} == wanted
    assert found["train/cat/grey.png"].mode == "L"
    kept = [files[name][0] for name in ("cat/same.png", "cat/smaller.jpg")]
    assert [data for _, data in records["train"][1:3]] == kept
    assert manifest["splits"]["train"]["sizes"]["height"] == {"min": 10, "median": 20, "max": 60}
    assert manifest["settings"]["resize_small"] == 20


def test_resized_colours_stay_where_they_are(tmp_path):
    """Left red, right blue; at the default quality a flat colour is off by few grey levels."""
    image = np.zeros((64, 128, 3), np.uint8)
    image[:, :64, 0], image[:, 64:, 2] = 200, 200
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    root = write_folder(tmp_path / "in", train={"cat/a.png": (file.getvalue(), 0)})
    _, records = convert(f"folder:{root}", tmp_path, resize_small=16)
    small = np.asarray(Image.open(io.BytesIO(records["train"][0][1]))).astype(int)
    assert small.shape == (16, 32, 3)
    assert abs(small[:, :12] - (200, 0, 0)).max() < 6 and abs(small[:, 20:] - (0, 0, 200)).max() < 6


def test_unknown_kind():
    with pytest.raises(InputError, match="--from is 'tars'.*allowed: folder, tar, webdataset"):
        prepare("tars:x", "/nowhere/at/all", workers=0)
