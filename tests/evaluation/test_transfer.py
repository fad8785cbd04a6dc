"""The transfer suite: VTAB's definitions, tasks that are missing, means that are called by name."""

import re

import numpy as np
import pytest
from evaluation_checks import clusters, settings, split

from vit_jax.data.splits import parse
from vit_jax.errors import InputError
from vit_jax.evaluation import few_shot, logistic_regression, vtab
from vit_jax.evaluation.classification import top_k_hits
from vit_jax.evaluation.transfer import Transfer, with_means

K = 3
DIGITS = dict(name="digits", group="natural", source="digits", train="train[:100]", test="test")
OTHER = dict(DIGITS, name="other", group="structured", validation="train[100:150]")
ABSENT = dict(DIGITS, name="absent", source="folder:nowhere")


def outputs_of(**examples):
    return {role: split(found, K, name=role) for role, found in examples.items()}


# VTAB's table


def test_nineteen_tasks_in_three_groups_of_which_each_is_read_or_told_why_not():
    """Seven natural, four specialized and eight structured ones: arXiv:1910.04867, section 2.2."""
    assert len(set(vtab.NAMES)) == 19
    counts = [sum(task.group == group for task in vtab.TASKS) for group in vtab.GROUPS]
    assert counts[:2] == [7, 4] and counts[2] + len(vtab.UNREADABLE) == 8


@pytest.mark.parametrize("task", vtab.TASKS, ids=lambda task: task.name)
def test_a_task_learns_from_800_images_and_200_others_none_of_which_is_scored(task):
    [train], [validation], [test] = map(parse, (task.train, task.validation, task.test))
    assert (train.name, train.start, train.stop) == ("train", "", "800")
    start, stop = int(validation.start or 0), int(validation.stop)
    assert stop - start == 200
    if validation.name == train.name:
        assert start >= 800
    if test.name == validation.name:  # begins behind, where it is a count; smallNORB has 24,300
        assert int(test.start) >= stop if test.start.isdigit() else test.start == "50%"
    assert test.name != "train" or int(test.start) >= max(800, stop)


# which tasks there are


def test_missing_data_sets_are_all_named_at_once(tmp_path):
    with pytest.raises(InputError) as told:
        Transfer().requests(settings(data_dir=str(tmp_path)), None)
    message = str(told.value)
    assert message.startswith("14 of 14 tasks have no data that can be opened: caltech101, ")
    assert all(name in message for name in vtab.READABLE)
    assert "tfds build caltech101 --file_format=array_record" in message
    assert "skip_missing=True" in message and "\n" not in message


def test_missing_data_sets_are_left_out_where_that_is_asked_for():
    given = dict(tasks=(), entries=[DIGITS, ABSENT])
    with pytest.raises(InputError, match="1 of 2 tasks have no data that can be opened: absent"):
        Transfer(**given).requests(settings(), None)
    protocol = Transfer(**given, skip_missing=True)
    assert list(protocol.requests(settings(), None)) == ["train digits", "test digits"]
    assert protocol.metric_names() == ["mean_of_tasks_top1", "mean_of_groups_top1"]
    with pytest.raises(InputError, match="1 of 1 tasks"):
        Transfer(tasks=(), entries=[ABSENT], skip_missing=True).requests(settings(), None)


def test_requests_are_the_splits_of_the_tasks_in_their_own_classes():
    protocol = Transfer(tasks=(), entries=[DIGITS, OTHER])
    requests = protocol.requests(settings(batch_size=7, data_dir="of TFDS alone"), "train")
    assert {role: request.settings.split for role, request in requests.items()} == {
        "train digits": "train[:100]",
        "test digits": "test",
        "train other": "train[:100]",
        "validation other": "train[100:150]",
        "test other": "test",
    }
    for request in requests.values():
        assert request.own_classes and not request.is_kept
        assert request.settings.batch_size == 7 and request.settings.data_dir is None


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(tasks=("dtd", "imagenet")), "tasks is 'imagenet'; allowed: caltech101"),
        (dict(tasks=("clevr_count_all",)), "clevr_count_all cannot be read: the label is how many"),
        (dict(tasks=()), "a transfer has no task"),
        (dict(solver="adam"), "transfer.solver is 'adam'; allowed: lbfgs, ridge"),
        (dict(num_examples=0), "num_examples is 0"),
        (dict(held_out=0.0), "transfer.held_out is 0.0"),
        (dict(entries=[dict(DIGITS, labels=3)]), r"entries\[0\] has unknown key 'labels'"),
        (dict(entries=[dict(name="digits")]), r"entries\[0\] lacks group, source, train, test"),
        (dict(entries=[DIGITS, DIGITS]), "an entry of the transfer has the name 'digits'"),
        (dict(entries=[dict(DIGITS, name="vtab")]), "an entry of the transfer has the name 'vtab'"),
        (dict(entries=[dict(DIGITS, name="natural")]), "has the name 'natural'"),
    ],
)
def test_suites_that_cannot_be_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        Transfer(**given)


# what is measured


def suite(*names, **given):
    entries = [dict(DIGITS, name=name, group="all") for name in names]
    return Transfer(tasks=(), entries=entries, **given)


def test_ridge_learns_from_train_and_validation_together():
    train, held_out, test = (clusters(n, 5, k=K, seed=n, spread=2.0) for n in (60, 30, 90))
    report = suite("a", solver="ridge").measure(
        outputs_of(**{"train a": train, "validation a": held_out, "test a": test})
    )
    whole = [np.concatenate(parts) for parts in zip(train, held_out, strict=True)]
    found = few_shot.fit(*whole, num_classes=K, l2=2.0**10)
    expected = top_k_hits(found(test[0]), test[1], k=1).mean()
    assert report.metrics["a_top1"] == expected and 1 / K < expected < 1


def test_more_training_images_than_asked_for_are_thinned_out_by_the_seed():
    train, test = clusters(200, 5, k=K), clusters(60, 5, k=K, seed=1)
    chosen = np.random.default_rng(3).permutation(200)[:40]
    spoilt = np.full_like(train[0], 1e3)
    spoilt[chosen] = train[0][chosen]
    found = [
        suite("a", solver="ridge", num_examples=40, seed=3)
        .measure(outputs_of(**{"train a": (features, train[1]), "test a": test}))
        .metrics["a_top1"]
        for features in (train[0], spoilt)
    ]
    assert found[0] == found[1] > 1 / K


def test_regression_chooses_its_penalty_on_the_validation_images(monkeypatch):
    asked = []
    monkeypatch.setattr(
        logistic_regression, "binary_search", lambda score: {l2: score(l2) for l2 in (1.0, 1e4)}
    )
    monkeypatch.setattr(
        logistic_regression,
        "accuracy",
        lambda c, examples: asked.append(examples) or len(asked) / 2 / 2,
    )
    train, held_out, test = (clusters(n, 5, k=K, seed=n) for n in (60, 30, 90))
    report = suite("a").measure(
        outputs_of(**{"train a": train, "validation a": held_out, "test a": test})
    )
    assert len(asked) == 2 and all(e.label is held_out[1] for e in asked)
    assert report.tables["chosen_l2"] == {"a": 1e4} and report.metrics["a_top1"] > 1 / K


def test_means_are_over_tasks_and_over_groups():
    top1 = {"a1": 0.2, "a2": 0.4, "b1": 0.9}
    found = with_means(top1, {"a1": "a", "a2": "a", "b1": "b"})
    expected = top1 | {"a": 0.3, "b": 0.9, "mean_of_tasks": 0.5, "mean_of_groups": 0.6}
    assert found == pytest.approx({f"{name}_top1": value for name, value in expected.items()})


def measured(protocol, names):
    rng = np.random.default_rng(0)
    outputs = {}
    for name in names:
        for role, n in (("train", 20), ("test", 9)):
            features = rng.normal(size=(n, 2)).astype(np.float32)
            outputs[f"{role} {name}"] = split((features, rng.permutation(np.arange(n) % K)), K)
    return protocol.measure(outputs)


def test_mean_is_vtabs_only_of_its_nineteen_tasks():
    own = [dict(DIGITS, name=name, group="structured") for name in vtab.UNREADABLE]
    protocol = Transfer(entries=own, solver="ridge")
    report = measured(protocol, vtab.NAMES)
    assert list(report.metrics) == protocol.metric_names()
    assert report.metrics["vtab"] == report.metrics["mean_of_tasks_top1"]
    top1 = [report.metrics[f"{name}_top1"] for name in vtab.NAMES]
    assert report.metrics["vtab"] == pytest.approx(np.mean(top1)) and len(set(top1)) > 1
    assert report.intervals.keys() == report.metrics.keys()
    # Of 19 · 9 images drawn task by task: a mean is surer than a task of nine.
    widths = {name: ends.high - ends.low for name, ends in report.intervals.items()}
    assert 0 < 3 * widths["vtab"] < np.mean([widths[f"{name}_top1"] for name in vtab.NAMES])
    assert report.tables["of"].startswith("VTAB-1k, frozen") and not report.tables["left_out"]
    fewer = measured(Transfer(entries=own, solver="ridge", skip_missing=True), vtab.NAMES[1:])
    assert "vtab" not in fewer.metrics and fewer.tables["left_out"] == ["caltech101"]
    assert re.search("not VTAB", fewer.tables["of"])
    assert "vtab" not in Transfer(solver="ridge").metric_names()
