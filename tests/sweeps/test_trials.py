"""What a `sweep()` is written with: which trials there are, and what they are called."""

import itertools
import json

import numpy as np
import pytest

from vit_jax.errors import InputError
from vit_jax.sweeps import trials
from vit_jax.sweeps.trials import Choice, IntUniform, LogUniform, Trial, Uniform

AXES = {"optimizer.learning_rate": (1e-3, 3e-3), "train.seed": (0, 1, 2)}


def test_a_grid_is_every_combination_once():
    found = [tuple(one.values()) for one in trials.grid(AXES)]
    assert found == list(itertools.product(*AXES.values()))


def test_zipped_axes_go_together_and_must_be_of_one_length():
    axes = {"a.x": (1, 2), "a.y": (3, 4)}
    assert list(trials.zipped(axes)) == [{"a.x": 1, "a.y": 3}, {"a.x": 2, "a.y": 4}]
    with pytest.raises(InputError, match="lengths .*'a.x': 1, 'a.y': 2"):
        list(trials.zipped({"a.x": (1,), "a.y": (1, 2)}))


def test_crossed_lists_keep_names_and_add_what_has_none():
    parts = [trials.named("no mixup", {"task.mixing": {}}), {"name": "b", "task.mixing": {"p": 1}}]
    found = list(trials.crossed(parts, list(trials.grid({"train.seed": (0, 1)}))))
    assert [one["name"] for one in found] == [
        "no_mixup,seed=0",
        "no_mixup,seed=1",
        "b,seed=0",
        "b,seed=1",
    ]
    assert found[3] == {"name": "b,seed=1", "task.mixing": {"p": 1}, "train.seed": 1}


DRAWN = {
    "a.uniform": Uniform(-1, 2),
    "a.log": LogUniform(1e-5, 1e-1),
    "a.int": IntUniform(1, 3),
    "a.choice": Choice(("x", "y")),
}


def test_random_draws_are_a_function_of_seed_and_number():
    few, many = (list(trials.random(DRAWN, num_trials=n, seed=3)) for n in (5, 300))
    assert many[:5] == few
    assert list(trials.random(DRAWN, num_trials=5, seed=4)) != few
    assert all(-1 <= one["a.uniform"] < 2 and 1e-5 <= one["a.log"] <= 1e-1 for one in many)
    assert {one["a.int"] for one in many} == {1, 2, 3}
    assert {one["a.choice"] for one in many} == {"x", "y"}
    # Uniform in the logarithm: half of them lie below the middle exponent, 150 ± 5 deviations.
    assert 107 < sum(one["a.log"] < 1e-3 for one in many) < 193


@pytest.mark.parametrize(
    "overrides",
    [
        list(trials.grid(AXES)),
        list(trials.random(DRAWN, num_trials=50, seed=0)),
        # What a name cannot show still tells trials apart.
        [{"data.augment": {"a": 1}}, {"data.augment": {"a": 2}}, {"data.augment": "a 1"}],
        [{"data.train": "train[:10%]"}, {"data.train": "train[:10 %]"}],
        [{f"a.{'k' * 30}{i}": j for i in range(9)} for j in range(3)],
        [{"optimizer.rate": 1, "task.rate": 2}, {"optimizer.rate": 2, "task.rate": 1}],
    ],
)
def test_names_are_folders_and_differ_where_trials_do(overrides):
    names = [trials.make_trial({}, one).name for one in overrides]
    assert len(set(names)) == len(names)
    assert all(trials.checked_name(name) == name for name in names)


def test_a_trial_changes_a_copy():
    base = {"train": {"seed": 0}, "task": {}}
    trial = trials.make_trial(base, {"train.seed": 1, "task.model.width": 8, "name": "mine"})
    assert trial.config == {"train": {"seed": 1}, "task": {"model": {"width": 8}}}
    assert base == {"train": {"seed": 0}, "task": {}}
    assert trial.name == "mine" and "name" not in trial.overrides


@pytest.mark.parametrize(
    "overrides, message",
    [
        ({"seed": 1}, "sets 'seed'; allowed: 'section.key'"),
        ({"train.seed.x": 1}, "seed is a value, no section"),
        ({"name": "a/b"}, "is named 'a/b'; allowed: up to 100 letters"),
    ],
)
def test_mistakes_are_one_sentence(overrides, message):
    with pytest.raises(InputError, match=message):
        trials.make_trial({"train": {"seed": 0}}, overrides)


def trial(name, *needs):
    return trials.make_trial({}, {"name": name, **{f"init.{n}": f"trial:{n}" for n in needs}})


def test_trials_come_after_those_they_need():
    trials.check_trials([trial("a"), trial("b", "a")])
    with pytest.raises(InputError, match="'b' needs 'a'; allowed: .* before it"):
        trials.check_trials([trial("b", "a"), trial("a")])
    with pytest.raises(InputError, match="two trials are named 'a'"):
        trials.check_trials([trial("a"), trial("a")])
    with pytest.raises(InputError, match="no trials"):
        trials.check_trials([])
    assert isinstance(trial("b", "a"), Trial) and trial("b", "a").needs == ("a",)


def test_trials_share_nothing_that_one_of_them_changes():
    common = {"padding": 0, "crop": {"low": 1}}
    found = [
        trials.make_trial({}, {"data.augment": common, "data.augment.padding": i}) for i in (1, 2)
    ]
    assert [one.config["data"]["augment"]["padding"] for one in found] == [1, 2]
    assert all(
        one.overrides["data.augment"] == common == {"padding": 0, "crop": {"low": 1}}
        for one in found
    )


def test_overrides_become_plain_data_or_are_refused():
    given = {"a.x": np.float32(0.5), "a.y": [np.int64(3), (np.bool_(True), None)]}
    one = trials.make_trial({}, given)
    assert json.loads(json.dumps(one.overrides)) == {"a.x": 0.5, "a.y": [3, [True, None]]}
    assert one.config == {"a": {"x": 0.5, "y": [3, (True, None)]}}
    for value in ({1, 2}, np.zeros(2), object(), [{"deep": {1}}]):
        with pytest.raises(InputError, match="a trial sets 'a.x' to .*; allowed: numbers"):
            trials.make_trial({}, {"a.x": value})


def test_a_name_is_one_folder_whatever_the_keys():
    names = [trials.name_of({key: 1}) for key in ("evals.a/b", "evals.a_b", "evals.a b")]
    assert len(set(names)) == 3
    assert all(trials.checked_name(name) == name and "/" not in name for name in names)


@pytest.mark.parametrize(
    "make", [lambda axes: list(trials.grid(axes)), lambda axes: list(trials.zipped(axes))]
)
def test_text_is_no_axis(make):
    with pytest.raises(InputError, match="the axis 'a.b' is 'abc'; allowed: a sequence"):
        list(make({"a.b": "abc"}))


@pytest.mark.parametrize(
    "make", [lambda: Uniform(2, 1), lambda: IntUniform(3, 1), lambda: Choice(())]
)
def test_what_nothing_can_be_drawn_from_is_refused(make):
    with pytest.raises(InputError, match="allowed"):
        make()
