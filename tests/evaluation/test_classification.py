"""Accuracy and what is taken for what: scikit-learn's numbers, ReaL's law in plain loops."""

import json

import numpy as np
import pytest
import sklearn.metrics
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.evaluation import classification
from vit_jax.evaluation.classification import Classification, Pairs
from vit_jax.evaluation.protocol import SplitOutputs
from vit_jax.evaluators import plain

N, K = 200, 7
NAMES = tuple("abcdefg")


def outputs(seed=0, **changed):
    """The last class never occurs; labels lean towards the prediction."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(N, K)).astype(np.float32)
    label = np.where(rng.random(N) < 0.5, logits[:, :-1].argmax(1), rng.integers(0, K - 1, N))
    given = dict(label=label, logits=logits, index=np.arange(N), num_examples=N, name="toy")
    return SplitOutputs(**(given | dict(class_names=NAMES) | changed))


def several(seed=0):
    """Of no to all labels an example."""
    rng = np.random.default_rng(seed)
    labels = rng.random((N, K)) < rng.random((N, 1)) ** 2
    labels[:3] = False
    return outputs(seed, label=None, labels=labels)


def measured(test, **settings):
    return Classification(**settings).measure({"test": test})


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_that_of_scikit_learn(k):
    test = outputs()
    found = classification.top_k_hits(test.logits, test.label, k=k).mean()
    expected = sklearn.metrics.top_k_accuracy_score(
        test.label, test.logits, k=k, labels=np.arange(K)
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_of_equal_logits_the_first_is_predicted_and_nan_never():
    logits = np.float32([[1, 1, 0], [1, 1, 0], [np.nan, 2, 1], [0, np.nan, 1], [0, np.inf, 1]])
    label = np.array([0, 1, 1, 1, 1])
    hits = classification.top_k_hits(logits, label, k=1)
    assert hits.tolist() == [True, False, False, False, True]
    assert classification.ranked_first(logits).tolist() == [0, 0, 0, 1, 1]
    broken = np.full((4, 3), np.nan, np.float32)
    assert not classification.top_k_hits(broken, np.zeros(4, int), k=5).any()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_report_has_scikit_learns_numbers_overall_and_by_class():
    test = outputs()
    report = measured(test)
    predicted = test.logits.argmax(1)
    assert report.metrics["top1"] == pytest.approx((predicted == test.label).mean())
    assert report.metrics["mean_class_accuracy"] == pytest.approx(
        sklearn.metrics.balanced_accuracy_score(test.label, predicted), abs=1e-12
    )
    matrix = sklearn.metrics.confusion_matrix(test.label, predicted, labels=np.arange(K))
    np.testing.assert_array_equal(report.tables["confusion_matrix"], matrix)
    columns = sklearn.metrics.precision_recall_fscore_support(
        test.label, predicted, labels=np.arange(K), zero_division=0
    )
    for row, name, *expected in zip(report.tables["per_class"], NAMES, *columns, strict=True):
        assert row["class"] == name
        found = [row[key] for key in ("precision", "recall", "f1", "support")]
        np.testing.assert_allclose(found, expected, atol=1e-12)
    first = report.tables["most_confused"][0]
    wrong = matrix * ~np.eye(K, dtype=bool)
    assert first["examples"] == wrong.max()
    assert wrong[NAMES.index(first["class"]), NAMES.index(first["taken_for"])] == wrong.max()
    assert report.metrics.keys() == set(Classification().metric_names())
    json.dumps(plain(report.tables))


def test_intervals_hold_their_metric():
    report = measured(outputs())
    assert report.intervals.keys() == report.metrics.keys()
    for name, interval in report.intervals.items():
        assert interval.low <= report.metrics[name] <= interval.high
        assert interval.low < interval.high


def test_any_of_several_labels_is_right_and_examples_without_do_not_count():
    test = several()
    right, of_class, total = {1: [], 5: []}, np.zeros(K), np.zeros(K)
    for logits, labels in zip(test.logits, test.labels, strict=True):
        own = set(np.flatnonzero(labels))
        if not own:
            continue
        order = list(np.argsort(-logits))
        for k in right:
            right[k].append(bool(own & set(order[:k])))
        for label in own:
            total[label] += 1
            of_class[label] += order[0] in own
    report = measured(test)
    assert report.metrics["top1"] == pytest.approx(np.mean(right[1]))
    assert report.metrics["top5"] == pytest.approx(np.mean(right[5]))
    assert report.metrics["mean_class_accuracy"] == pytest.approx(np.mean(of_class / total))
    assert report.scored == len(right[1]) < N
    assert "confusion_matrix" not in report.tables and not report.pictures


def test_rows_that_are_copied_together_make_no_difference(monkeypatch):
    test = several()
    whole = measured(test)
    monkeypatch.setattr(classification, "AT_ONCE", 7)
    assert measured(test) == whole


def test_examples_may_count_several_times():
    test = outputs()
    is_right = test.logits.argmax(1) == test.label
    drawn = np.random.default_rng(0).integers(N, size=N)
    weight = np.bincount(drawn, minlength=N)
    found = classification.mean_class_accuracy(is_right, Pairs(np.arange(N), test.label), weight)
    expected = classification.mean_class_accuracy(
        is_right[drawn], Pairs(np.arange(N), test.label[drawn])
    )
    assert found == pytest.approx(expected, abs=1e-12)


def test_of_a_subset_of_classes_the_present_ones_are_chosen_from():
    label = outputs().label % (K - 2)
    test = outputs(present=tuple(range(K - 2)), label=label)
    among_all, present = measured(test, among="all"), measured(test)
    assert present.metrics == measured(test, among="present").metrics
    assert among_all.metrics["top1"] == pytest.approx((test.logits.argmax(1) == label).mean())
    assert present.metrics["top1"] == pytest.approx(
        (test.logits[:, : K - 2].argmax(1) == label).mean()
    )
    assert present.metrics["top1"] > among_all.metrics["top1"]
    assert (present.tables["chosen_among"], among_all.tables["chosen_among"]) == (K - 2, K)


def test_real_labels_are_scored_among_all_classes():
    """As published, though their table may leave some class out."""
    test = several()
    with_present = outputs(label=None, labels=test.labels, present=(0, 1))
    assert measured(with_present).metrics == measured(test).metrics


def test_nothing_to_be_right_about_is_told():
    test = outputs(label=None, labels=np.zeros((N, K), bool))
    with pytest.raises(InputError, match="no example of toy has a label; allowed: at least one"):
        measured(test)
    with pytest.raises(InputError, match="examples have image, mask; allowed: with label or lab"):
        Classification().check("test", ["image", "mask"])
    with pytest.raises(InputError, match="among is 'some'; allowed: present, all"):
        Classification(among="some")


def test_picture_shows_the_classes_that_occur(tmp_path):
    measured(outputs()).pictures["confusion.png"](tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).std() > 10
