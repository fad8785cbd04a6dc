"""From files to tables: order, unreadable files, and what can be read back."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.evaluation.prediction import (
    Prediction,
    find_images,
    read_all,
    top_classes,
    write_csv,
    write_json,
)


def write_image(path, value=100, size=(6, 4)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def test_files_come_as_named_and_folders_sorted(tmp_path):
    names = ["b/2.png", "b/1.JPG", "a/z.webp", "a/deep/x.jpeg", "c.bmp"]
    paths = {name: write_image(tmp_path / "in" / name) for name in names}
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "folder.png").mkdir()
    lone = write_image(tmp_path / "lone.png")
    found = find_images([str(lone), tmp_path / "in", lone])
    inside = [paths[n] for n in ("a/deep/x.jpeg", "a/z.webp", "b/1.JPG", "b/2.png", "c.bmp")]
    assert found == [lone, *inside, lone]


def test_named_file_is_taken_whatever_its_ending(tmp_path):
    path = tmp_path / "picture.data"
    path.write_bytes(b"")
    assert find_images([path]) == [path]


def test_missing_path_is_told(tmp_path):
    with pytest.raises(InputError, match=f"no file or folder {tmp_path}/none"):
        find_images([write_image(tmp_path / "a.png"), tmp_path / "none"])


def test_folder_without_images_is_told_with_the_endings(tmp_path):
    with pytest.raises(InputError, match=f"no image in {tmp_path}.*allowed: .*.jpg, .jpeg, .png"):
        find_images([tmp_path])


def test_no_path_is_not_the_current_folder():
    with pytest.raises(InputError, match="a path of images is empty; allowed"):
        find_images([""])


def test_unreadable_files_are_told_and_left_out(tmp_path):
    good = [write_image(tmp_path / name, value) for name, value in (("a.png", 10), ("c.png", 30))]
    bad = tmp_path / "b.png"
    bad.write_bytes(good[0].read_bytes()[:40])
    told = []
    preprocessing = Preprocessing(image_size=(8, 8), channels=3)
    found = list(read_all([good[0], bad, good[1]], preprocessing, on_bad=told.append))
    assert [path for path, _ in found] == good
    for (_, image), value in zip(found, (10, 30), strict=True):
        np.testing.assert_array_equal(image, np.full((8, 8, 3), value, np.uint8))
    assert len(told) == 1 and str(bad) in told[0]


NAMES = ("ant", "bee", "cat", 'd"o,g')


def predictions(tmp_path):
    first = top_classes(tmp_path / "a, b.png", np.float32([0.1, 0.6, 0.1, 0.2]), NAMES, 3)
    second = top_classes(tmp_path / "c.png", np.float32([0, 0, 0, 1]), NAMES, 3)
    return [first, second]


def test_top_classes_are_sorted_and_equal_ones_keep_their_order(tmp_path):
    first, second = predictions(tmp_path)
    assert first.classes == ["bee", 'd"o,g', "ant"]
    assert first.probabilities == pytest.approx([0.6, 0.2, 0.1])
    assert second.classes == ['d"o,g', "ant", "bee"]
    everything = top_classes(tmp_path, np.float32([0.1, 0.6, 0.1, 0.2]), NAMES, 99)
    assert len(everything.classes) == 4


def test_csv_can_be_read_back(tmp_path):
    write_csv(predictions(tmp_path), tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:3] == ["path", "class_1", "probability_1"]
    for row, expected in zip(rows, predictions(tmp_path), strict=True):
        found = Prediction(
            row["path"],
            [row[f"class_{i}"] for i in (1, 2, 3)],
            [float(row[f"probability_{i}"]) for i in (1, 2, 3)],
        )
        assert found == expected


def test_json_can_be_read_back(tmp_path):
    write_json(predictions(tmp_path), tmp_path / "out.json")
    found = json.loads((tmp_path / "out.json").read_text())
    assert [Prediction(**row) for row in found] == predictions(tmp_path)
