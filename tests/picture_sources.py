"""The same six pictures written as every kind of source, and how each is opened."""

import io
import json

import numpy as np
from PIL import Image

from vit_jax.data import records
from vit_jax.data.sources import open_source

CLASSES = ("ant", "bee", "cow")
LABELS = {"train": (0, 0, 1, 2), "test": (1, 2)}


def images(split):
    """uint8[n,5,4,3], sorted by class."""
    rng = np.random.default_rng(len(split))
    return rng.integers(0, 256, (len(LABELS[split]), 5, 4, 3), np.uint8)


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def each():
    """(split, i, name, label, bytes of the image's file) of every example."""
    for split, labels in LABELS.items():
        for i, (image, label) in enumerate(zip(images(split), labels, strict=True)):
            yield split, i, f"picture_{i}.png", label, png(image)


def write_folder(root):
    for split, _, name, label, data in each():
        file = root / split / CLASSES[label] / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return {"spec": f"folder:{root}"}


def write_manifest(root):
    write_folder(root)
    rows = [
        {"path": f"{split}/{CLASSES[label]}/{name}", "split": split, "label": CLASSES[label]}
        for split, _, name, label, _ in each()
    ]
    (root / "all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"spec": f"manifest:{root}/all.jsonl"}


def write_csv(root):
    write_folder(root)
    rows = [
        f"{split},{root}/{split}/{CLASSES[label]}/{name},{CLASSES[label]}\n"
        for split, _, name, label, _ in each()
    ]
    (root / "all.csv").write_text("split,path,label\n" + "".join(rows))
    return {"spec": f"manifest:{root}/all.csv"}


def write_npz(root):
    root.mkdir()
    arrays = {f"{split}_images": images(split) for split in LABELS}
    arrays |= {f"{split}_labels": np.array(labels) for split, labels in LABELS.items()}
    np.savez(root / "all.npz", class_names=np.array(CLASSES), **arrays)
    return {"spec": f"npz:{root}/all.npz"}


def write_npy(root):
    root.mkdir()
    for split, labels in LABELS.items():
        np.save(root / f"{split}_images.npy", images(split))
        np.save(root / f"{split}_labels.npy", np.array(labels))
    np.save(root / "class_names.npy", np.array(CLASSES))
    return {"spec": f"npz:{root}"}


def write_records(folder, split, packed, num_shards=2):
    """Shards of ArrayRecord; returns what a manifest says of the split."""
    from array_record.python.array_record_module import ArrayRecordWriter

    folder.mkdir(exist_ok=True)
    shards = []
    for k in range(num_shards):
        own = packed[len(packed) * k // num_shards : len(packed) * (k + 1) // num_shards]
        name = f"{split}-{k:05}-of-{num_shards:05}.array_record"
        writer = ArrayRecordWriter(str(folder / name), "group_size:1")
        for record in own:
            writer.write(record)
        writer.close()
        shards.append({"file": name, "examples": len(own)})
    return {"examples": len(packed), "shards": shards}


def write_array_record(root, **more):
    splits = {}
    for split in LABELS:
        packed = [
            records.pack({"label": label, "name": name}, data)
            for s, _, name, label, data in each()
            if s == split
        ]
        splits[split] = write_records(root, split, packed)
    manifest = {"format": "vit_jax array_record 1", "class_names": CLASSES, "splits": splits}
    (root / "manifest.json").write_text(json.dumps(manifest | more))
    return {"spec": f"array_record:{root}"}


def write_hugging_face(root):
    import datasets

    datasets.disable_progress_bars()
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(CLASSES))
    )
    columns = {split: {"image": [], "label": []} for split in LABELS}
    for split, _, name, label, data in each():
        columns[split]["image"].append({"bytes": data, "path": name})
        columns[split]["label"].append(label)
    splits = {s: datasets.Dataset.from_dict(c, features=features) for s, c in columns.items()}
    datasets.DatasetDict(splits).save_to_disk(str(root))
    return {"spec": f"hf:{root}"}


WRITERS = {
    "folder": write_folder,
    "manifest": write_manifest,
    "csv": write_csv,
    "npz": write_npz,
    "npy": write_npy,
    "array_record": write_array_record,
    "hf": write_hugging_face,
}


def open_kind(kind, root, split):
    """Writes the pictures below `root` unless that was done, and opens a split."""
    marker = root / f"{kind}.json"
    if not marker.exists():
        marker.write_text(json.dumps(WRITERS[kind](root / kind)))
    return open_source(split=split, **json.loads(marker.read_text()))
