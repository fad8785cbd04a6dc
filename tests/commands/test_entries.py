"""From the flags of `evaluate` to entries: each protocol on each split, learning from one split."""

import pytest

from vit_jax.commands import entries
from vit_jax.errors import InputError


def test_each_protocol_is_measured_on_each_split():
    found = entries.entries(
        ["task", "calibration"],
        ["a", "b", "a"],
        settings={"calibration": {"bins": 3}},
        common={"source": "s"},
    )
    assert [entry.name for entry in found] == ["a", "a/calibration", "b", "b/calibration"]
    expected = {"protocol": "calibration", "split": "b", "source": "s", "bins": 3}
    assert found[-1].section == expected and found[-1].where == "--calibration"


def test_settings_of_a_protocol_do_not_change_what_is_scored():
    for key in ("split", "source", "labels", "every_steps"):
        for name in ("knn", "task"):
            with pytest.raises(InputError, match=f"--{name}.{key} is given, but what is measured"):
                entries.check_names([name], {name: {key: "a"}})
    entries.check_names(["knn"], {"knn": {"train": "train", "batch_size": 8}})


def test_what_learns_learns_from_the_training_split_that_is_given():
    names, settings = ["task", "knn", "ood"], {"ood": {"train": "own", "neighbours": 3}}
    assert entries.with_training_split(names, settings, None) == settings
    expected = {"ood": {"train": "own", "neighbours": 3}, "knn": {"train": "train[:9]"}}
    assert entries.with_training_split(names, settings, "train[:9]") == expected
    with pytest.raises(InputError, match="but task learns from no training examples; allowed"):
        entries.with_training_split(["task"], {}, "train")
