"""Where examples come from, as a config says it: for the training and for each evaluation."""

import json

import numpy as np
import picture_sources
import pytest

from vit_jax.data import pipeline
from vit_jax.data.sources.origin import Origin
from vit_jax.errors import InputError


@pytest.fixture
def root(tmp_path):
    picture_sources.write_folder(tmp_path / "folder")
    table = {"ant": "cow", "bee": "bee", "cow": 0}
    (tmp_path / "table.json").write_text(json.dumps(table))
    return tmp_path


def build(root, **changed):
    settings = dict(source=f"folder:{root}/folder", batch_size=2, image_size=4, seed=0)
    return pipeline.build(**{**settings, "num_threads": 0, **changed})


def labels(data):
    return np.concatenate([batch["label"][batch["mask"]] for batch in data]).tolist()


def test_an_evaluation_is_on_the_trainings_source_unless_it_says_otherwise(root):
    data = build(root)
    assert labels(data.evaluation(pipeline.EvalSettings(split="test"))) == [1, 2]
    mapped = dict(name="classes", table=f"{root}/table.json")
    entry = pipeline.EvalSettings(split="test", labels=mapped)
    assert labels(data.evaluation(entry)) == [1, 0]
    picture_sources.write_folder(root / "other")
    entry = pipeline.EvalSettings(split="train", source=f"folder:{root}/other", batch_size=3)
    found = data.evaluation(entry)
    assert labels(found) == list(picture_sources.LABELS["train"]) and found.batch_size == 3


def test_labels_hold_for_the_training_as_well(root):
    mapped = dict(name="classes", table=f"{root}/table.json", class_names=["ant", "bee", "cow"])
    data = build(root, labels=mapped)
    assert data.class_names == picture_sources.CLASSES
    assert labels(data.evaluation(pipeline.EvalSettings(split="train"))) == [2, 2, 1, 0]


def test_nothing_of_the_trainings_source_holds_for_another():
    training = Origin(source="tfds:a", data_dir="x", label_key="y", labels={"name": "numbers"})
    assert training.changed(label_key="z") == Origin(
        source="tfds:a", data_dir="x", label_key="z", labels={"name": "numbers"}
    )
    assert training.changed(source="folder:b") == Origin(source="folder:b")
    section = dict(source="tfds:a", data_dir="x", batch_size=8, image_size=4)
    assert Origin.of(section) == Origin(source="tfds:a", data_dir="x")


def test_other_classes_are_refused(root):
    data = build(root)
    (root / "more" / "test" / "dog").mkdir(parents=True)
    (root / "more" / "test" / "dog" / "a.png").write_bytes(
        picture_sources.png(np.zeros((4, 4, 3), np.uint8))
    )
    entry = pipeline.EvalSettings(split="test", source=f"folder:{root}/more")
    with pytest.raises(InputError, match="has classes dog, but the training has ant, bee, cow"):
        data.evaluation(entry)


def test_a_mixture_is_drawn_by_weight_and_evaluated_elsewhere(root):
    parts = [
        dict(source=f"folder:{root}/folder", split=s, weight=w)
        for s, w in (("train", 1), ("test", 3))
    ]
    data = build(root, source=parts, batch_size=32)
    index = data.train(0)["index"]
    assert np.sum(index >= 4) == 24 and index.max() == 5
    assert data.train.num_examples == 6
    entry = pipeline.EvalSettings(split="test", source=f"folder:{root}/folder")
    assert labels(data.evaluation(entry)) == [1, 2]


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(merge_classes=True), "merge_classes is True, but data.source is 'folder"),
        (dict(source=[]), "empty list"),
        (
            dict(source=[dict(source="digits")], label_key="x"),
            "data.label_key is 'x', but data.source is a list",
        ),
        (dict(source=[dict(sorce="digits")]), "did you mean 'source'"),
        (dict(labels=dict(name="reel")), "did you mean 'real'"),
    ],
)
def test_mistakes_are_told(root, changed, message):
    with pytest.raises(InputError, match=message):
        build(root, **changed)
