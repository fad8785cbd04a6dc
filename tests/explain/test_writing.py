"""The page of every kind of model: which sections it has, and why it lacks the others."""

import html
import json
import re

import numpy as np
import pytest
from subjects import is_picture, restored, subject

from vit_jax.analysis.faithfulness import Measured
from vit_jax.errors import InputError
from vit_jax.explain import contents, page, writing

# The same for every model; a class-token ViT has them all in tests/commands/test_explain.py.
ONCE = ("tsne", "umap", "comparison")
ATTENTION = {"attention", "rollout", "distance", "positions", "relevance", "norms"}
LEFT_OUT = {
    "pooled, with registers": {},
    "hybrid": {"filters": "stem's feature map", "positions": "'rope', which adds nothing"},
    "Mixer": dict.fromkeys(ATTENTION, "A Mixer has no attention between tokens"),
    "ResNet": dict.fromkeys(ATTENTION, "A ResNet has no attention between tokens")
    | {"filters": "A ResNet has no patch embedding."},
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_each_model_has_the_sections_that_make_sense_for_it(name, tmp_path):
    # Slowest of all, and no other for these.
    slow = () if "relevance" in LEFT_OUT[name] else ("relevance", "distance", "predictions")
    names = contents.choose((), ONCE + slow)
    results = writing.write(subject(name), tmp_path, names, command="explain")
    assert [result.name for result in results] == names
    reasons = {r.name: r.left_out for r in results if r.left_out}
    assert reasons.keys() == LEFT_OUT[name].keys()
    for section, text in LEFT_OUT[name].items():
        assert text in reasons[section]
    page = (tmp_path / "index.html").read_text()
    for result in results:
        assert html.escape(result.section.title) in page
        for picture in result.found.pictures if result.found else ():
            assert is_picture(tmp_path / picture.file), picture.file
            assert f"({picture.file})" in page
    drawn = [p.file for r in results if r.found for p in r.found.pictures]
    assert len(drawn) == len(set(drawn)) == page.count("<img ")
    assert sorted(p.name for p in tmp_path.glob("*.png")) == sorted(drawn)
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert numbers.keys() == {r.name for r in results if r.found and r.found.table}


def test_a_page_asks_nothing_of_any_other_place(tmp_path):
    names = ["positions"]
    writing.write(subject("class token"), tmp_path, names, command="explain --images='<b>'")
    page = (tmp_path / "index.html").read_text()
    assert "<script" not in page and "http" not in page and "&lt;b&gt;" in page
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"')>]{5})""", page)
    assert sources and {s for s in sources if not s.startswith("#")} == {"data:"}


def test_what_was_asked_for_by_name_may_not_be_left_out(tmp_path):
    with pytest.raises(InputError, match="section 'attention' cannot be made: A Mixer has no"):
        writing.write(
            subject("Mixer"), tmp_path, ["attention"], command="", must_have=["attention"]
        )


def test_too_few_images_make_no_map(tmp_path):
    few = subject("class token", many=6)
    assert "There are 6 images" in writing.make(few, "tsne", tmp_path).left_out
    assert writing.make(few, "similarity", tmp_path).found
    none = subject("class token", many=6)
    object.__setattr__(none, "many", None)
    assert "There are too few images" in writing.make(none, "similarity", tmp_path).left_out


def test_two_models_are_compared_of_the_same_images(tmp_path):
    own = subject("class token", other=restored("class token"), other_name="itself")
    found = writing.make(own, "comparison", tmp_path).found
    assert [(row[0], row[1]) for row in found.table.rows] == [("0", "0"), ("1", "1")]
    assert [row[2] for row in found.table.rows] == pytest.approx([1, 1])
    other = subject("class token", other=restored("ResNet"), other_name="other", minibatch=6)
    found = writing.make(other, "comparison", tmp_path).found
    assert {row[1] for row in found.table.rows} <= {"stage1", "stage2"}
    assert is_picture(tmp_path / "comparison.png")


def test_layers_and_the_class_are_as_asked(tmp_path):
    of_class = subject("class token", layers=(-1,), target=7)
    assert of_class.layer_titles == ["1"] and of_class.targets.tolist() == [7, 7, 7]
    assert all(caption.endswith("\n7") for caption in of_class.captions)
    own = subject("class token")
    assert own.targets.tolist() == own.probabilities.argmax(-1).tolist()
    with pytest.raises(InputError, match="layers has 2; allowed: -2 to 1"):
        _ = subject("class token", layers=(2,)).chosen_layers


def test_chunks_do_not_change_what_is_found():
    from vit_jax.explain import attending

    one, all_at_once = (subject("class token", shown=3, batch_size=b) for b in (2, 3))
    found = [s.over_images(attending._distances_of_each).mean(axis=0) for s in (one, all_at_once)]
    assert abs(found[0] - found[1]).max() < 1e-4  # pixels


def test_sections_are_chosen_by_name():
    assert contents.choose(["norms", "rollout"], []) == ["rollout", "norms"]
    assert "norms" not in contents.choose([], ["norms"])
    with pytest.raises(InputError, match="--only is 'rolout' .did you mean 'rollout'"):
        contents.choose(["rolout"], [])
    with pytest.raises(InputError, match="no section is left"):
        contents.choose(["norms"], ["norms"])


def test_numbers_stay_numbers_and_are_rounded_for_readers_alone():
    cells = [0.123456, Measured(0.5, 0.25), Measured(0.5, np.nan), {"a": 0.5}, "text", None]
    told = [page.formatted(cell, ".2f") for cell in cells]
    assert told == ["0.12", "0.50 ± 0.25", "0.50", "a 0.50", "text", "–"]
    kept = [writing.plain(cell) for cell in (*cells, np.float32(np.nan), np.int64(3))]
    measured = [{"mean": 0.5, "error": 0.25}, {"mean": 0.5, "error": None}]
    assert kept == [0.123456, *measured, {"a": 0.5}, "text", None, None, 3]


def test_each_image_keeps_its_own_argument_in_chunks():
    own = subject("class token", shown=3, batch_size=2)
    seen = []

    def look(model, variables, images, *, classes, nothing, given):
        seen.append((len(images), list(classes), nothing, given))
        return np.asarray(classes)

    each = {"classes": np.array([5, 6, 7]), "nothing": None}
    assert own.over_images(look, each=each, given="x").tolist() == [5, 6, 7]
    assert seen == [(2, [5, 6], None, "x"), (1, [7], None, "x")]
