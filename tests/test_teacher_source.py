"""The teacher of real tiny runs: what its source completes, and what a run needs no more later."""

import json
import os

import jax
import numpy as np
import pytest
from finished_runs import assert_same_run
from helpers import LEFT_OUT, tiny_config
from learners import mesh_of
from pretrained import preprocessing, vit
from rich.console import Console
from toys import assert_trees_equal

from vit_jax import experiment, restoring, teacher_source, weights
from vit_jax.errors import InputError
from vit_jax.initial import Beginning
from vit_jax.learner import Info
from vit_jax.workdir import Workdir

NUM_STEPS = 4


def config_of(source, **overrides):
    """By token, with everything of the teacher left to its source."""
    settings = {"task.name": "distillation", "task.teacher": {"source": str(source)}}
    settings |= {"task.model.distillation_token": True, "task.model.pool": "cls"}
    settings |= {"train.num_steps": NUM_STEPS, "train.checkpoint_every": 2, "train.log_every": 1}
    settings |= {"train.ema_decay": None, "evals.validation": LEFT_OUT}
    return tiny_config(**{**settings, **{k.replace("__", "."): v for k, v in overrides.items()}})


def save(path, *, num_classes=10, **settings):
    """A teacher's file in Google's layout, every number in it random; it names no classes."""
    model, variables = vit((8, 8), 1, num_classes=num_classes, activation="gelu_tanh", **settings)
    grey = preprocessing(channels=1, mean=(0.4,), std=(0.3,))
    weights.save(path, model, variables, layout="google", preprocessing=grey)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(the workdir of a distillation, its teacher's file, which is gone, what the file held)"""
    folder = tmp_path_factory.mktemp("finished")
    source = save(folder / "teacher.npz")
    held = weights.load(source)
    experiment.run(config_of(source), folder / "run")
    os.remove(source)
    return folder / "run", source, held


def test_the_teachers_variables_are_in_the_state_as_they_were(finished):
    workdir, _, held = finished
    restored = restoring.restore(workdir)
    assert_trees_equal(restored.state.task_state["teacher"], held.variables)
    assert restored.learner.task.teacher.model == held.model


def test_the_source_completes_what_the_config_leaves_open(finished):
    workdir, source, _ = finished
    card = json.loads((workdir / "run.json").read_text())["config"]["task"]["teacher"]
    assert card["source"] == str(source) and card["model"]["num_classes"] == 10
    assert (card["image_size"], card["channels"]) == ([8, 8], 1)
    assert card["interpolation"] == "bilinear" and card["class_names"] is None
    # What a person wrote is kept as it was written.
    given = json.loads((workdir / "config.json").read_text())["task"]["teacher"]
    assert given == {"source": str(source)}


def test_a_finished_run_needs_no_source(finished):
    workdir, source, _ = finished
    assert not source.exists()
    metrics = json.loads((workdir / "result.json").read_text())["metrics"]
    assert experiment.run(config_of(source), workdir) == metrics
    assert {"test/agreement", "test/teacher_top1", "test/teacher_loss"} <= metrics.keys()


def test_a_killed_run_goes_on_without_its_source_bit_for_bit(finished, tmp_path, monkeypatch):
    whole, source, _ = finished
    save(source)  # the same path, as it is part of the config; every seed is fixed
    fit = experiment.loop.fit

    def killed(step_fn, *arguments, **settings):
        steps = iter(range(NUM_STEPS))

        def step(*inputs):
            if next(steps) == 3:
                raise KeyboardInterrupt  # nothing is saved on the way out
            return step_fn(*inputs)

        return fit(step, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(experiment.loop, "fit", killed)
        with pytest.raises(KeyboardInterrupt):
            experiment.run(config_of(source), tmp_path / "run")
    os.remove(source)
    experiment.run(config_of(source), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed_from_step"] == 2
    assert_same_run(whole, tmp_path / "run")


def test_a_distilled_run_may_teach_in_its_turn(finished):
    """What the config says of it stands above the source's: here, larger images than the crops."""
    teacher = {"source": str(finished[0]), "model": {"dtype": "bfloat16"}, "image_size": 16}
    config = experiment.plain(config_of("", task__teacher=teacher))
    config, beginning = Beginning.read(config)
    told = config["task"]["teacher"]
    assert told["model"]["dtype"] == "bfloat16" and told["model"]["distillation_token"]
    assert told["class_names"] == [str(digit) for digit in range(10)]
    info = Info.of(experiment.build_data(config["data"], seed=0))
    learner = experiment.build_learner(config, mesh_of(), info, NUM_STEPS)
    found = beginning.teacher.load(learner, Console(quiet=True))
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), learner.abstract_state().task_state)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), found) == shapes
    own = restoring.restore(finished[0]).variables["params"]
    loaded = found["teacher"]["params"]
    assert loaded["position_embedding"].shape == (1, 2 + 8 * 8, 16)
    for name in own.keys() - {"position_embedding"}:
        assert_trees_equal(loaded[name], own[name])


def test_what_is_written_stands_above_what_is_stored():
    stored = {"model": {"name": "vit", "width": 8}, "mean": [0.5], "image_size": [8, 8]}
    given = {"source": "a", "model": {"width": 16}, "mean": [0.1], "image_size": None}
    assert teacher_source.complete(given, stored) == {
        "source": "a",
        "model": {"name": "vit", "width": 16},
        "mean": [0.1],
        "image_size": [8, 8],
    }


@pytest.mark.parametrize(
    "teacher, message",
    [
        ({"source": "/no/such.npz"}, "There is no '/no/such.npz' here"),
        ({}, "config.task.teacher lacks source; allowed keys: source, architecture, part"),
        ("runs/a", "config.task.teacher is 'runs/a'; allowed: a section with a source"),
        (None, "config.task lacks teacher|config.task.teacher is None; allowed"),
        ({"num_classes": 0}, "a model without a head; allowed: one with a head for the data's 10"),
        ({"num_classes": 5}, "with 5 classes, but the data has 10 .0, 1, 2, 3, 4, ....; allowed"),
        ({"width": 7}, "width"),
    ],
    ids=str,
)
def test_mistakes_are_told_before_anything_begins(teacher, message, tmp_path):
    if isinstance(teacher, dict) and (made := teacher.keys() & {"num_classes", "width"}):
        settings = {} if "width" in made else teacher
        model = {"width": 7} if "width" in made else None
        source = save(tmp_path / "teacher.npz", **settings)
        teacher = {"source": str(source), "model": model}
    with pytest.raises(InputError, match=message) as told:
        experiment.run(config_of("", task__teacher=teacher), tmp_path / "run")
    assert len(str(told.value).splitlines()) == 1
    assert not Workdir(tmp_path / "run").holds_training()


def test_a_training_without_its_teacher_breaks_at_once(finished):
    """A state that nobody gave a teacher holds NaN in its place."""
    teacher = restoring.restore(finished[0]).learner.task.teacher
    assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(teacher.unknown()))
