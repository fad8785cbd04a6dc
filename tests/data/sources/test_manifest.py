"""Manifests: every column in both formats, and each mistake with its file and line."""

import json
import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import pixels
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

BOXES = [[[0, 1, 2.5, 3], [0, 0, 6, 4]], [], [[1, 1, 1, 1]]]
COLUMNS = {
    "label": ["cow", "ant", "bee"],
    "labels": [["cow", "bee"], [], ["ant"]],
    "caption": ['a "cow", and a bee;\non a ü', "", "ant"],
    "boxes": BOXES,
    "box_label": [["ant", "cow"], [], ["bee"]],
}


def write_csv(file, rows):
    import csv

    def text(key, value):
        if key in ("labels", "box_label"):
            return "; ".join(map(str, value))
        return json.dumps(value) if key == "boxes" else value

    with open(file, "w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows({k: text(k, v) for k, v in row.items()} for row in rows)


def write_jsonl(file, rows):
    file.write_text("\n\n".join(json.dumps(row) for row in rows))


FORMATS = {".csv": write_csv, ".jsonl": write_jsonl}


@pytest.fixture(params=FORMATS)
def opened(request, tmp_path):
    """rows -> the source of a split that they say; they need no path."""

    def write_and_open(rows, split="train"):
        (tmp_path / "images").mkdir(exist_ok=True)
        for i in range(len(rows)):
            Image.new("RGB", (6, 4), (i, 0, 0)).save(tmp_path / "images" / f"{i}.png")
        rows = [{"path": f"images/{i}.png", **row} for i, row in enumerate(rows)]
        file = tmp_path / f"all{request.param}"
        FORMATS[request.param](file, rows)
        return open_source(f"manifest:{file}", split)

    return write_and_open


def as_rows(columns):
    return [
        dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)
    ]


@pytest.mark.parametrize(
    "keys",
    [["label"], ["labels"], ["caption"], ["boxes"], ["boxes", "box_label"], list(COLUMNS)],
    ids="+".join,
)
def test_every_column_becomes_its_field(opened, keys):
    source = opened(as_rows({key: COLUMNS[key] for key in keys}))
    assert source.fields == ("image", *keys)
    has_classes = {"label", "labels", "box_label"} & set(keys)
    assert source.class_names == (("ant", "bee", "cow") if has_classes else ())
    position = {name: i for i, name in enumerate(source.class_names)}
    for i, example in enumerate(source):
        assert example.keys() == set(source.fields)
        assert pixels(example["image"])[0, 0, 0] == i
        if "label" in keys:
            assert type(example["label"]) is int
            assert example["label"] == position[COLUMNS["label"][i]]
        if "labels" in keys:
            assert example["labels"] == tuple(position[k] for k in COLUMNS["labels"][i])
        if "caption" in keys:
            assert example["caption"] == COLUMNS["caption"][i]
        if "boxes" in keys:
            expected = np.array(BOXES[i], np.float32).reshape(-1, 4)
            assert example["boxes"].dtype == np.float32
            assert np.array_equal(example["boxes"], expected)
        if "box_label" in keys:
            assert example["box_label"].dtype == np.int32
            names = [source.class_names[k] for k in example["box_label"]]
            assert names == COLUMNS["box_label"][i]


def test_numbers_are_classes_up_to_the_largest_of_all_splits(opened):
    rows = [
        {"split": "val", "label": 1, "labels": [3]},
        {"split": "train", "label": 0, "labels": []},
        {"split": "val", "label": 2, "labels": [0, 1]},
    ]
    val, train = opened(rows, "val"), opened(rows, "train")
    assert val.class_names == train.class_names == ("0", "1", "2", "3")
    assert [(e["label"], e["labels"]) for e in val] == [(1, (3,)), (2, (0, 1))]
    assert [val.file_name(i) for i in range(2)] == ["0.png", "2.png"]
    assert train[0]["labels"] == ()


def test_names_that_look_like_numbers_stay_names(tmp_path):
    (tmp_path / "all.csv").write_text("path,label\na.png,010\nb.png,2\n")
    assert open_source(f"manifest:{tmp_path}/all.csv", "train").class_names == ("010", "2")
    (tmp_path / "all.jsonl").write_text('{"path": "a.png", "label": "2"}')
    assert open_source(f"manifest:{tmp_path}/all.jsonl", "train").class_names == ("2",)


def test_an_image_that_is_missing_is_unreadable(opened, tmp_path):
    source = opened([{"label": "a"}, {"label": "b"}])
    (tmp_path / "images" / "1.png").unlink()
    source[0]
    with pytest.raises(UnreadableExample, match="images/1.png: No such file"):
        source[1]


BOX = "[[0, 0, 1, 1]]"


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.csv", "path,label\n", "no rows"),
        ("a.csv", "", "no rows"),
        ("a.csv", "file,label\nx,y\n", "line 2 has column file; allowed columns: path, split"),
        ("a.csv", "label\ny\n", "line 2 lacks path"),
        ("a.csv", "path,lable\nx,y\n", "line 2 has column lable"),
        ("a.csv", "path,label\nx,y\nx\n", "line 3 has label None"),
        ("a.csv", "path,label\nx,y\nx,y,z\n", "line 3 has path, label, a column without a name"),
        ("a.csv", "path,label\nx,y\nx,\n", "line 3 has label ''; allowed: a class name"),
        ("a.csv", "path,label\nx,1\nx,-1\n", "line 3 has label '-1'"),
        ("a.csv", "path,label,label\nx,y,z\n", "line 1 names a column twice"),
        ("a.csv", "path,label\nx,1000000\n", "a label 1000000, which would make as many"),
        ("a.csv", "path,labels\nx,a;;b\n", "line 2 has labels"),
        ("a.csv", 'path,caption\n"a\nb",c\n,d\n', "line 4 has path ''"),
        ("a.csv", 'path,boxes\nx,"[1, 2]"\n', "line 2 has boxes"),
        ("a.csv", "path,boxes\nx,1 2 3 4\n", "line 2 has boxes"),
        ("a.csv", 'path,boxes,box_label\nx,"[[0, 0, 1, 1]]",a;b\n', "1 boxes and 2 values"),
        ("a.csv", "path,box_label\nx,a\n", "box_label without boxes"),
        ("a.jsonl", '{"path": "x"}\n{"path"\n', "line 2 is no JSON"),
        ("a.jsonl", '{"path": "x\\u0000y"}\n', "line 1 has path"),
        ("a.jsonl", '{"path": "x"}\n\n[1]\n', "line 3 is .*allowed: a JSON object"),
        ("a.jsonl", '{"path": "x", "label": 1}\n{"path": "x"}\n', "line 2 has path; the first"),
        ("a.jsonl", '{"path": 3, "label": 1}\n', "line 1 has path 3"),
        ("a.jsonl", '{"path": "x", "label": true}\n', "line 1 has label True"),
        ("a.jsonl", '{"path": "x", "label": 1.0}\n', "line 1 has label 1.0"),
        ("a.jsonl", '{"path": "x", "label": -1}\n', "line 1 has label -1"),
        ("a.jsonl", '{"path": "x", "labels": 1}\n', "line 1 has labels 1"),
        ("a.jsonl", '{"path": "x", "boxes": [[0, 0, 1]]}\n', "line 1 has boxes"),
        ("a.jsonl", '{"path": "x", "boxes": [[2, 0, 1, 1]]}\n', "left <= right"),
        ("a.jsonl", '{"path": "x", "boxes": [[0, 0, NaN, 1]]}\n', "line 1 has boxes"),
        (
            "a.jsonl",
            '{"path": "x", "label": 1}\n{"path": "x", "label": "b"}\n',
            "a class number on line 1 and a class name on line 2",
        ),
        ("a.txt", "path,label\nx,y\n", "ends in .csv or .jsonl"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        open_source(f"manifest:{tmp_path}/{name}", "train")
    assert name in str(caught.value)


def test_text_that_is_no_utf8_is_told(tmp_path):
    for name in ("a.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(b'path,label\n{"path": "\xff"}')
        with pytest.raises(InputError, match=f"{name} line [12]"):
            open_source(f"manifest:{tmp_path}/{name}", "train")


def test_a_hundred_thousand_rows_are_a_few_arrays(tmp_path):
    rows = (f"n{i % 1000:08}/{i}.JPEG,{i % 1000},{i % 7};{i % 5}\n" for i in range(100_000))
    (tmp_path / "all.csv").write_text("path,label,labels\n" + "".join(rows))
    source = open_source(f"manifest:{tmp_path}/all.csv", "train[1:]")
    buffers = []
    state = pickle.dumps(source, protocol=5, buffer_callback=buffers.append)
    assert len(state) < 100_000 and len(buffers) == 5
    again = pickle.loads(state, buffers=buffers)
    assert again.describe(77_776) == str(tmp_path / "n00000777" / "77777.JPEG")
