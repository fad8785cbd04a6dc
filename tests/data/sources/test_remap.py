"""Other labels for the same examples: ImageNet's subsets and ReaL, in small."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.examples import Source
from vit_jax.data.sources import open_source
from vit_jax.data.sources.mixture import Mixture
from vit_jax.data.sources.remap import remap
from vit_jax.errors import InputError

MODEL = tuple(f"n{i:02}" for i in range(12))


class Labelled(Source):
    """Examples with all fields that hold classes; no images."""

    name, fields = "labelled", ("label", "labels", "box_label", "caption")

    def __init__(self, class_names):
        self.class_names = class_names

    def __len__(self):
        return len(self.class_names)

    def read(self, i):
        every = range(len(self))
        return {
            "label": i,
            "labels": tuple(every)[i:],
            "box_label": np.array(every, np.int32),
            "caption": "c",
        }


def assert_named(source, names):
    """Label i is that of the model's class names[i], in every field."""
    position = [MODEL.index(name) for name in names]
    assert source.class_names == MODEL and source.present == tuple(sorted(set(position)))
    for i, example in enumerate(pickle.loads(pickle.dumps(source))):
        assert example["label"] == position[i] and type(example["label"]) is int
        assert example["labels"] == tuple(position[i:])
        assert example["box_label"].dtype == np.int32
        assert example["box_label"].tolist() == position
        assert example["caption"] == "c"


def test_classes_in_the_models_order_may_have_any_names():
    names = tuple("abcdefghijkl")
    assert_named(remap(Labelled(names), {"name": "order"}, class_names=MODEL), MODEL)
    with pytest.raises(InputError, match="has 3 classes, but the model 12; allowed"):
        remap(Labelled("abc"), {"name": "order"}, class_names=MODEL)


def test_classes_of_a_subset_are_found_by_name(tmp_path):
    names = ("n07", "n03", "n11")
    assert_named(remap(Labelled(names), {"name": "classes", "class_names": MODEL}), names)
    assert_named(remap(Labelled(names), {"name": "classes"}, class_names=MODEL), names)
    for name, text in (("names.json", json.dumps(MODEL)), ("names.txt", "\n".join(MODEL) + "\n")):
        (tmp_path / name).write_text(text)
        labels = {"name": "classes", "class_names": str(tmp_path / name)}
        assert_named(remap(Labelled(names), labels), names)


def test_a_table_leads_from_names_to_names_or_numbers(tmp_path):
    (tmp_path / "table.json").write_text(
        json.dumps({"hen": "n08", "cock": 7, "pan": "n08", "x": 1})
    )
    labels = {"name": "classes", "table": str(tmp_path / "table.json")}
    source = remap(Labelled(("cock", "hen", "pan")), labels, class_names=MODEL)
    assert_named(source, ("n07", "n08", "n08"))


def test_names_that_are_numbers_are_indices_though_sorted_as_text():
    names = tuple(sorted(map(str, range(12))))
    assert names[:4] == ("0", "1", "10", "11")
    source = remap(Labelled(names), {"name": "numbers"}, class_names=MODEL)
    assert_named(source, [f"n{int(name):02}" for name in names])


def write_validation(root, numbers, folder="val"):
    (root / folder).mkdir(parents=True, exist_ok=True)
    for number in numbers:
        file = root / folder / f"ILSVRC2012_val_{number:08}.png"
        Image.new("L", (2, 2)).save(file)


REAL = [[3], [], [1, 11], [0]]


@pytest.mark.parametrize("in_classes", [True, False])
def test_real_labels_follow_the_number_in_the_files_name(tmp_path, in_classes):
    if in_classes:
        write_validation(tmp_path, (2, 4), "val/n00")
        write_validation(tmp_path, (1, 3), "val/n01")
    else:
        write_validation(tmp_path, (1, 2, 3, 4))
    (tmp_path / "real.json").write_text(json.dumps(REAL))
    labels = {"name": "real", "table": str(tmp_path / "real.json"), "class_names": MODEL}
    source = remap(open_source(f"folder:{tmp_path}", "val[1:]"), labels)
    order = (4, 1, 3) if in_classes else (2, 3, 4)
    assert source.fields == ("image", "labels") and source.class_names == MODEL
    assert source.present == (0, 1, 3, 11)
    for i, (example, number) in enumerate(zip(source, order, strict=True)):
        assert example.keys() == {"image", "labels"}
        assert example["labels"] == tuple(REAL[number - 1])
        assert f"{number:08}" in source.describe(i) and f"{number:08}" in source.file_name(i)


@pytest.mark.parametrize(
    "table, message",
    [
        ([], "must hold a list with a list of labels"),
        ([1, 2], "must hold a list with a list of labels"),
        ({}, "must hold a list with a list of labels"),
        ([[0], [12], [-1]], "3 labels, 2 of them outside the 12 classes"),
        ([[0]], "2 examples, .* labels 1"),
        ([[0], [0]], "'ILSVRC2012_val_00000003.png', which tells none of the 2"),
    ],
    ids=str,
)
def test_real_labels_that_do_not_fit_are_refused(tmp_path, table, message):
    write_validation(tmp_path, (3, 4))
    (tmp_path / "real.json").write_text(json.dumps(table))
    labels = {"name": "real", "table": str(tmp_path / "real.json")}
    with pytest.raises(InputError, match=message):
        remap(open_source(f"folder:{tmp_path}", "val"), labels, class_names=MODEL)


@pytest.mark.parametrize(
    "labels, names, message",
    [
        ({}, MODEL, "data.labels.name is None; allowed: classes, numbers, order, real"),
        ({"name": "clases"}, MODEL, "did you mean 'classes'"),
        ({"name": "classes", "tabel": "x"}, MODEL, "did you mean 'table'"),
        ({"name": "numbers", "table": "x"}, MODEL, "unknown key 'table'"),
        ({"name": "real"}, MODEL, "lacks table"),
        ({"name": "classes"}, None, "lacks class_names"),
        ({"name": "classes", "class_names": 5}, None, "lacks class_names"),
        ({"name": "classes", "class_names": {"n01": 0}}, None, "lacks class_names"),
        ({"name": "classes"}, ("a", "a"), "1 repetitions"),
        ({"name": "classes", "class_names": "nowhere.json"}, None, "Cannot read nowhere.json"),
        ({"name": "classes", "table": "nowhere.json"}, MODEL, "Cannot read nowhere.json"),
        ({"name": "classes"}, MODEL[:2], "3 classes, 2 of them without a place among the 2"),
        ({"name": "numbers"}, MODEL, "3 classes, 3 of them no number from 0 to 11: n01, n02, n03"),
    ],
    ids=str,
)
def test_mistakes_are_explained(labels, names, message):
    with pytest.raises(InputError, match=message):
        remap(Labelled(("n01", "n02", "n03")), labels, class_names=names)


def test_a_source_without_labels_has_none_to_map():
    for name in ("classes", "numbers"):
        with pytest.raises(InputError, match="has no labels"):
            remap(Labelled(()), {"name": name}, class_names=MODEL)


def test_subsets_of_one_model_can_be_mixed():
    parts = [
        remap(Labelled(names), {"name": "classes"}, class_names=MODEL)
        for names in (("n07",), ("n03", "n01"))
    ]
    mixture = Mixture(parts, (1, 1))
    assert [e["label"] for e in mixture] == [7, 3, 1] and mixture.present == (1, 3, 7)
    assert Mixture([*parts, Labelled(MODEL)], (1, 1, 1)).present is None
