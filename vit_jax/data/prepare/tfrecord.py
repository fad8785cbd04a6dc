"""tfrecord:PATH as an input: a TFDS data set prepared as TFRecord, read without TensorFlow.

PATH is the folder with `features.json`, or one above that holds a single such folder. A record is

    uint64 length | uint32 masked CRC-32C of these 8 bytes | data | uint32 masked CRC-32C of data

little endian (tensorflow/core/lib/io/record_writer.h); data is a tf.train.Example. The image comes
from an Image feature, the label from a ClassLabel, -1 being none, and the caption from a Text
feature "caption".
"""

import json
import re
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.prepare.crc32c import crc32c
from vit_jax.data.prepare.index import NONE, Builder, Files, Index, Input, Lost, Raw
from vit_jax.errors import InputError

CAPTION_KEY = "caption"
_HEAD, _FOOT = struct.Struct("<QI"), struct.Struct("<I")
_MASK = 0xA282EAD8  # so that the checksum of data with checksums in it is no trivial one


def index_tfrecord(path: str, *, image_key: str = "image", label_key: str = "label") -> Input:
    """The records of a TFDS folder.

    Args:
      image_key, label_key: which features are the image and the label.

    Raises:
      InputError: for a folder that is no TFDS data set, is not prepared as TFRecord, lacks files,
        or has no such label.
    """
    folder = _folder(path)
    features = _features(folder)
    labelled = "classLabel" in features.get(label_key, {})
    if "image" not in features.get(image_key, {}) or not labelled:
        raise InputError(
            f"{folder} needs an Image {image_key!r} and a ClassLabel {label_key!r} "
            f"(--image_key, --label_key); its features: {', '.join(features) or '(none)'}."
        )
    wanted = {"image": image_key, "label": label_key}
    if "text" in features.get(CAPTION_KEY, {}):
        wanted["caption"] = CAPTION_KEY
    info = json.loads((folder / "dataset_info.json").read_text())
    splits, lost = {}, {}
    for split in info["splits"]:
        name, lengths = split["name"], [int(length) for length in split["shardLengths"]]
        splits[name], lost[name] = _index(folder, name, lengths)
    class_names = _class_names(folder, label_key, features)
    return Input(class_names, splits, lost, partial(read_tfrecord, wanted=wanted))


def read_tfrecord(index: Index, i: int, files: Files, *, wanted: Mapping[str, str]) -> Raw:
    """One record, its checksum verified; `wanted` are our names of its features and theirs."""
    from google.protobuf.message import DecodeError
    from tensorflow_datasets.proto import tf_example_pb2

    name, size = index.shown(i), int(index.columns["size"][i])
    record = files.read(index.path(i), int(index.columns["offset"][i]), size + _FOOT.size, name)
    data = record[:size]
    if masked(crc32c(data)) != _FOOT.unpack(record[size:])[0]:
        raise UnreadableExample(name, "its checksum is wrong")
    try:
        features = tf_example_pb2.Example.FromString(data).features.feature
    except DecodeError as error:
        raise UnreadableExample(name, f"it is no tf.train.Example ({error})") from error
    image = features[wanted["image"]].bytes_list.value
    if not image:
        raise UnreadableExample(name, f"it has no feature {wanted['image']!r}")
    fields: dict[str, Any] = {}
    if (label := features[wanted["label"]].int64_list.value) and label[0] != NONE:
        fields["label"] = label[0]
    if "caption" in wanted and (text := features[wanted["caption"]].bytes_list.value):
        fields["caption"] = _text(text[0], name)
    return Raw(image[0], fields)


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise UnreadableExample(name, "its caption is no UTF-8") from error


def masked(crc: int) -> int:
    """The checksum as TFRecord stores it: rotated by 15 bits, and a constant added."""
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


def _folder(path: str) -> Path:
    root = Path(path).expanduser()
    found = sorted(file.parent for file in root.rglob("features.json")) if path else []
    if root in found:
        return root
    if len(found) != 1:
        listed = ", ".join(map(str, found)) or "none"
        raise InputError(
            f"tfrecord:{path} needs the folder of one prepared TFDS data set, where features.json "
            f"is; found: {listed}."
        )
    return found[0]


def _features(folder: Path) -> dict[str, Any]:
    described = json.loads((folder / "features.json").read_text())
    return described.get("featuresDict", {}).get("features", {})


def _class_names(folder: Path, label_key: str, features: Mapping) -> tuple[str, ...]:
    file = folder / f"{label_key}.labels.txt"
    count = int(features[label_key]["classLabel"].get("numClasses", 0))
    names = tuple(file.read_text().splitlines()) if file.is_file() else ()
    return names or tuple(map(str, range(count)))


def _index(folder: Path, split: str, lengths: list[int]) -> tuple[Index, list[Lost]]:
    files = sorted(folder.glob(f"*-{split}.tfrecord-?????-of-?????"))
    promised = {int(re.fullmatch(r".*-of-(\d+)", file.name)[1]) for file in files}
    if promised != {len(files)} or len(files) != len(lengths):
        raise InputError(
            f"Split {split!r} in {folder} has {len(files)} tfrecord files; {len(lengths)} are "
            f"promised by dataset_info.json."
        )
    builder, lost = Builder("offset"), []
    for k, (file, length) in enumerate(zip(files, lengths, strict=True)):
        found = _index_file(file, k, builder, lost)
        if found != length:
            reason = f"it has {found} records, {length} are promised by dataset_info.json"
            lost.append(Lost(file.name, reason))
    return builder.build(str(folder), [file.name for file in files]), lost


def _index_file(path: Path, file: int, builder: Builder, lost: list[Lost]) -> int:
    """Adds the records of one file; returns how many there are."""
    size, offset, found = path.stat().st_size, 0, 0
    with path.open("rb") as stream:
        while offset < size:
            stream.seek(offset)
            head = stream.read(_HEAD.size)
            name = f"{path.name}#{found}"
            if len(head) < _HEAD.size:
                lost.append(Lost(name, "the file ends within it"))
                break
            length, checksum = _HEAD.unpack(head)
            if masked(crc32c(head[:8])) != checksum:
                lost.append(Lost(name, "the checksum of its length is wrong; the rest is lost"))
                break
            if offset + _HEAD.size + length + _FOOT.size > size:
                lost.append(Lost(name, "the file ends within it"))
                break
            builder.add(name, file=file, offset=offset + _HEAD.size, size=length)
            offset, found = offset + _HEAD.size + length + _FOOT.size, found + 1
    return found
