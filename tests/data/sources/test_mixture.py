"""Mixtures: concatenation by index, weights as shares, and classes that agree or are united."""

import pickle

import pytest
from picture_sources import CLASSES, open_kind, write_folder, write_npz
from PIL import Image

from vit_jax.data.examples import ExampleOutOfRange
from vit_jax.data.images.decode import pixels
from vit_jax.data.sources import open_source
from vit_jax.data.sources.mixture import Mixture, merge, open_mixture
from vit_jax.data.sources.origin import Origin
from vit_jax.errors import InputError


def test_a_mixture_is_the_concatenation_of_its_parts(tmp_path):
    parts = [open_kind("npz", tmp_path, "train"), open_kind("csv", tmp_path, "test")]
    mixture = pickle.loads(pickle.dumps(Mixture(parts, (3, 1))))
    assert mixture.weights == (0.75, 0.25) and mixture.lengths == (4, 2)
    assert (len(mixture), mixture.class_names, mixture.fields) == (6, CLASSES, parts[0].fields)
    whole = [(part, i) for part in parts for i in range(len(part))]
    for k, (part, i) in enumerate(whole):
        assert pixels(mixture[k]["image"]).tobytes() == pixels(part[i]["image"]).tobytes()
        assert mixture[k]["label"] == part[i]["label"]
        assert mixture.describe(k) == part.describe(i)
        assert mixture.file_name(k) == part.file_name(i)
    for i in (-1, 6):
        with pytest.raises(ExampleOutOfRange, match="holds 6"):
            mixture[i]


def test_a_config_lists_parts(tmp_path):
    folder, npz = write_folder(tmp_path / "a")["spec"], write_npz(tmp_path / "b")["spec"]
    parts = [{"source": folder, "weight": 0.5}, {"source": npz, "split": "test[:1]", "weight": 1.5}]
    mixture = open_mixture(parts, split="train[1:]")
    assert mixture.lengths == (3, 1) and mixture.weights == (0.25, 0.75)
    renamed = {"name": "classes", "class_names": ["dog", "cow", "bee", "ant"]}
    mixture = open_mixture([{"source": npz, "labels": renamed}])
    assert [e["label"] for e in mixture] == [3, 3, 2, 1] and mixture.weights == (1.0,)


def write_classes(root, names):
    for name in names:
        (root / "train" / name).mkdir(parents=True)
        Image.new("L", (2, 2)).save(root / "train" / name / "0.png")
    return f"folder:{root}"


def test_classes_are_united_by_name(tmp_path):
    named = [("cow", "ant"), ("dog", "bee", "cow"), ("ant", "bee", "cow", "dog")]
    specs = [{"source": write_classes(tmp_path / str(k), names)} for k, names in enumerate(named)]
    with pytest.raises(InputError, match=r"\(bee, cow, dog\).*2 \(ant, cow\).*merge_classes"):
        open_mixture(specs)
    mixture = open_mixture(specs, merge_classes=True)
    assert mixture.class_names == ("ant", "bee", "cow", "dog")
    found = [mixture.class_names[example["label"]] for example in mixture]
    assert found == [name for names in named for name in sorted(names)]
    whole = open_source(specs[2]["source"], "train")
    assert merge([whole])[0] is whole


def test_fields_must_agree(tmp_path):
    npz = write_npz(tmp_path / "a")["spec"]
    (tmp_path / "b.jsonl").write_text('{"path": "x.png", "caption": "c"}')
    with pytest.raises(InputError, match="fields image, caption, .* has image, label"):
        open_mixture([{"source": npz}, {"source": f"manifest:{tmp_path}/b.jsonl"}])


@pytest.mark.parametrize(
    "parts, message",
    [
        ([], "empty list"),
        (["digits"], r"data.source\[0\] is 'digits'; allowed: a mapping"),
        ([{"source": "digits"}, {"split": "train"}], r"data.source\[1\] lacks source"),
        ([{"source": "digits", "wieght": 1}], "did you mean 'weight'"),
        ([{"source": "digits", "weight": 0}], r"data.source\[0\].weight is 0; allowed: more than"),
        ([{"source": "digits", "weight": -1.0}], "allowed: more than 0"),
        ([{"source": "digits", "weight": 1e308}] * 2, "more than 0, less than 1000000000000"),
        ([{"source": "digits", "weight": "1"}], "weight is '1'"),
        ([{"source": "digits", "label_key": "x"}], "data.label_key is 'x'"),
        ([{"source": "digits", "split": "val"}], "available: train, test"),
        ([{"source": "digits", "labels": {}}], "data.labels.name is None; allowed: classes"),
        ([{"source": "digits", "default_split": "train"}], "unknown key 'default_split'"),
    ],
    ids=str,
)
def test_mistakes_are_explained(parts, message):
    with pytest.raises(InputError, match=message):
        open_mixture(parts)


def test_labels_of_a_whole_mixture_keep_its_weights(tmp_path):
    """Weights are read off the mixture that the order is made of, so it must still be one."""
    npz = write_npz(tmp_path / "a")["spec"]
    source = [{"source": npz, "weight": 3.0}, {"source": npz, "split": "test"}]
    labels = {"name": "classes", "class_names": ["dog", "cow", "bee", "ant"]}
    plain = Origin(source=source).open("train")
    renamed = Origin(source=source, labels=labels).open("train")
    assert renamed.weights == plain.weights == (0.75, 0.25)
    assert renamed.lengths == plain.lengths
    assert [e["label"] for e in renamed] == [3 - e["label"] for e in plain]
    assert renamed.present == (1, 2, 3)


def test_labels_without_a_name_are_refused_rather_than_ignored():
    with pytest.raises(InputError, match="data.labels.name is None; allowed: classes"):
        Origin(source="digits", labels={}).open("train")
