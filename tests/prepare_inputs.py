"""Tiny inputs of every kind, made of the same images."""

import io
import json
import struct
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from vit_jax.data.prepare.crc32c import crc32c
from vit_jax.data.prepare.tfrecord import masked

CLASSES = ("cat", "dog", "owl")


def image_bytes(seed: int, kind: str = "PNG", size: tuple[int, int] = (6, 5)) -> bytes:
    """An image of noise, (width, height) = size; some are grey."""
    width, height = size
    shape = (height, width) if seed % 3 == 0 and kind == "PNG" else (height, width, 3)
    noise = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, kind)
    return file.getvalue()


def pictures(n: int = 9, first: int = 0) -> dict[str, tuple[bytes, int]]:
    """'cat/000.png' -> its bytes and label; sorted as sources sort."""
    found = {}
    for i in range(n):
        kind = ("PNG", "JPEG", "WEBP")[i % 3]
        name = f"{CLASSES[i % 3]}/{i:03}.{kind.lower()}"
        found[name] = image_bytes(first + i, kind, (6 + i % 2, 5)), i % 3
    return dict(sorted(found.items()))


def write_folder(root: Path, **splits: dict[str, tuple[bytes, int]]) -> Path:
    for split, files in splits.items():
        for name, (data, _) in files.items():
            path = root / split / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return root


def tar_bytes(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(members))
    return path


def framed(data: bytes) -> bytes:
    """A TFRecord."""
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked(crc32c(part))) for part in (length, data))
    return length + next(checksums) + data + next(checksums)


def write_tfds(folder: Path, **splits: list[list[bytes]]) -> Path:
    """A TFDS folder with TFRecords: split -> shards -> framed records."""
    folder.mkdir(parents=True)
    for split, shards in splits.items():
        for k, records in enumerate(shards):
            name = f"tiny-{split}.tfrecord-{k:05}-of-{len(shards):05}"
            (folder / name).write_bytes(b"".join(records))
    features = {"image": {"image": {}}, "kind": {"classLabel": {"numClasses": "3"}}}
    described = {"featuresDict": {"features": features}}
    info = {
        "name": "tiny",
        "splits": [
            {"name": split, "shardLengths": [str(len(records)) for records in shards]}
            for split, shards in splits.items()
        ],
    }
    (folder / "features.json").write_text(json.dumps(described))
    (folder / "dataset_info.json").write_text(json.dumps(info))
    (folder / "kind.labels.txt").write_text("\n".join(CLASSES) + "\n")
    return folder


def tf_example(image: bytes, label: int) -> bytes:
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    example.features.feature["image"].bytes_list.value.append(image)
    example.features.feature["kind"].int64_list.value.append(label)
    return example.SerializeToString(deterministic=True)


def read_records(folder: Path, split: str) -> list[tuple[dict, bytes]]:
    """(fields, image) of every record of a split, in order; as the manifest names the shards."""
    from array_record.python.array_record_module import ArrayRecordReader

    from vit_jax.data.records import unpack

    manifest = json.loads((folder / "manifest.json").read_text())
    found = []
    for shard in manifest["splits"][split]["shards"]:
        reader = ArrayRecordReader(str(folder / shard["file"]))
        records = reader.read_all() if shard["examples"] else []
        assert len(records) == shard["examples"] == reader.num_records()
        reader.close()
        found += map(unpack, records)
    return found
