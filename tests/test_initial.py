"""`config.init` in real tiny runs: what training begins with, and what it no longer needs later."""

import dataclasses
import json
import os
import shutil
import signal
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers import LEFT_OUT, TINY_MODEL, tiny_config
from pretrained import preprocessing, vit
from toys import Regression, assert_trees_equal

from vit_jax import experiment, initial, restoring, weights
from vit_jax.commands import evaluate
from vit_jax.errors import InputError
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.preemption import Preempted
from vit_jax.workdir import Workdir

OPEN = ("name", "patch_size", *TINY_MODEL, "pool", "position_embedding")
# What the source has, and a run with no settings of its own is to take from it.
SOURCE = dict(**TINY_MODEL, patch_size=2, pool="cls", representation_dim=6)
NUM_STEPS = 4


def config_of(source, **overrides):
    """A run that leaves all it can to the source."""
    settings = {f"task.model.{name}": LEFT_OUT for name in OPEN}
    settings |= {"data.image_size": LEFT_OUT, "train.num_steps": NUM_STEPS, "train.log_every": 1}
    settings |= {"train.checkpoint_every": 2, "train.ema_decay": None, "init.source": str(source)}
    settings |= {"evals.validation.every_steps": 0, "task.label_smoothing": 0.0}
    settings |= {"data.augment": LEFT_OUT, "optimizer.learning_rate": 1e-3}
    settings |= {"optimizer.warmup_steps": 0}
    settings.update({name.replace("__", "."): value for name, value in overrides.items()})
    if settings["data.augment"] is LEFT_OUT:
        settings["data.augment.padding"] = LEFT_OUT
    config = tiny_config(**{name: v for name, v in settings.items() if name != "data.augment"})
    config["data"]["augment"] = {}
    return config


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Google's layout of a grey model with ten classes."""
    folder = tmp_path_factory.mktemp("source")
    model, variables = vit((8, 8), 1, num_classes=10, **{**SOURCE, "activation": "gelu_tanh"})
    weights.save(
        folder / "a.npz",
        model,
        variables,
        layout="google",
        preprocessing=preprocessing(channels=1),
    )
    return folder / "a.npz"


@pytest.fixture(scope="module")
def finished(source, tmp_path_factory):
    """(workdir, its own copy of the source, which is gone after training)"""
    folder = tmp_path_factory.mktemp("finished")
    own = shutil.copy(source, folder / "a.npz")
    experiment.run(config_of(own), folder / "run")
    os.remove(own)
    return folder / "run", own


def rows(workdir):
    found = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["train/loss"] for row in found if "train/loss" in row}


def test_the_first_steps_loss_is_that_of_the_loaded_model(source, finished):
    workdir, _ = finished
    loaded = weights.load(source)
    learner, _, config = restoring.restore(workdir)
    assert learner.task.model == loaded.model
    data = experiment.build_data(config["data"], seed=config["train"]["seed"])
    batch = data.train(0)
    image = (jnp.asarray(batch["image"], jnp.float32) / 255 - 0.5) / 0.5
    logits = loaded.model.apply(loaded.variables, image).logits
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(batch["label"]))
    # Eight devices sum in another order; the log rounds to six digits.
    np.testing.assert_allclose(rows(workdir)[1], losses.mean(), rtol=1e-5)
    assert rows(workdir)[1] > 1.01 * np.log(10)  # a new head would begin there


def test_the_head_is_kept_where_the_classes_are_the_same(source, tmp_path, capsys):
    config = config_of(source, train__num_steps=1, optimizer__learning_rate=0.0)
    experiment.run(config, tmp_path / "run")
    _, state, _ = restoring.restore(tmp_path / "run")
    assert_trees_equal(state.params, weights.load(source).variables["params"])
    assert "google weights" in capsys.readouterr().out  # the report


@pytest.mark.parametrize(
    "settings", [dict(init__new_head=True), dict(init__initialise=["head/.*"])]
)
def test_a_new_head_begins_at_zero(source, settings, tmp_path):
    config = config_of(source, train__num_steps=1, optimizer__learning_rate=0.0, **settings)
    experiment.run(config, tmp_path / "run")
    _, state, _ = restoring.restore(tmp_path / "run")
    expected = weights.load(source).variables["params"]
    assert not np.any(state.params["head"]["kernel"]) and np.any(expected["head"]["kernel"])
    for name in expected.keys() - {"head"}:
        assert_trees_equal(state.params[name], expected[name])
    np.testing.assert_allclose(rows(tmp_path / "run")[1], np.log(10), rtol=1e-5)


def test_model_and_preprocessing_are_the_sources_where_the_config_is_silent(finished):
    learner, _, config = restoring.restore(finished[0])
    model = config["task"]["model"]
    assert {name: model[name] for name in SOURCE} == {**SOURCE, "patch_size": [2, 2]}
    assert learner.info.preprocessing.image_size == (8, 8)
    # What a person wrote is kept as it was written.
    given = json.loads((finished[0] / "config.json").read_text())
    assert "width" not in given["task"]["model"] and "image_size" not in given["data"]


def test_the_config_overrides_the_source(source, tmp_path):
    config = config_of(
        source,
        train__num_steps=1,
        task__model__drop_path_rate=0.2,
        data__image_size=(12, 16),
        data__mean=(0.25,),
    )
    experiment.run(config, tmp_path / "run")
    learner, state, _ = restoring.restore(tmp_path / "run")
    assert learner.task.model.drop_path_rate == 0.2 and learner.task.model.width == 16
    assert learner.info.preprocessing.image_size == (12, 16) and learner.task.mean == (0.25,)
    assert state.params["position_embedding"].shape == (1, 1 + 6 * 8, 16)


def test_equal_means_of_three_channels_serve_one():
    stored = dataclasses.asdict(preprocessing(mean=(0.5,) * 3, std=(0.1, 0.2, 0.3)))
    begin = initial.Initial(source="x")
    task = {"name": "classification"}
    config = {"task": task, "data": {"std": (0.2,)}}
    found = begin.complete(config, {"model": {"name": "vit"}}, stored)
    assert found["data"]["mean"] == (0.5,) and found["data"]["std"] == (0.2,)
    assert found["task"] == {**task, "model": {"name": "vit"}}


def all_leaves(workdir):
    folder = workdir / "checkpoints" / str(NUM_STEPS)
    learner, _, _ = restoring.restore(workdir)
    state = Checkpointer(folder.parent, read_only=True).restore(NUM_STEPS, learner.abstract_state())
    return state.replace(rng=jax.random.key_data(state.rng))


def test_an_interrupted_run_goes_on_without_its_source_bit_for_bit(
    source, finished, tmp_path, monkeypatch
):
    own = finished[1]  # the same path, as it is part of the config
    shutil.copy(source, own)
    fit = experiment.loop.fit

    def interrupted(step_fn, *arguments, **settings):
        steps = []

        def step(*inputs):
            steps.append(0)
            if len(steps) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return step_fn(*inputs)

        return fit(step, *arguments, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(experiment.loop, "fit", interrupted)
        with pytest.raises(Preempted, match="after step 3"):
            experiment.run(config_of(own), tmp_path / "run")
    os.remove(own)

    def read(self):
        raise AssertionError("the source is read again")

    monkeypatch.setattr(initial.Initial, "read", read)
    metrics = experiment.run(config_of(own), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed_from_step"] == 3
    assert_trees_equal(all_leaves(tmp_path / "run"), all_leaves(finished[0]))
    assert rows(tmp_path / "run") == rows(finished[0])
    assert metrics == json.loads((finished[0] / "result.json").read_text())["metrics"]


def test_a_run_that_was_killed_before_its_first_checkpoint_reads_the_source_again(source, tmp_path):
    config = config_of(source, train__num_steps=2)
    experiment.run(config, tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    (tmp_path / "run" / "checkpoints" / "2.orbax-checkpoint-tmp").mkdir(parents=True)
    experiment.run(config, tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed_from_step"] == 0


def test_a_finished_run_needs_no_source(finished, capsys):
    workdir, own = finished
    assert not os.path.exists(own)
    metrics = json.loads((workdir / "result.json").read_text())["metrics"]
    assert experiment.run(config_of(own), workdir) == metrics
    assert evaluate.main([f"--workdir={workdir}", "--split=test"]) == 0
    assert "360 of 360 scored" in capsys.readouterr().out
    loaded = weights.load(workdir)
    _, state, _ = restoring.restore(workdir)
    assert_trees_equal(loaded.variables["params"], state.params)


def test_a_run_begins_with_another_run(finished, tmp_path):
    config = config_of(finished[0], train__num_steps=1, optimizer__learning_rate=0.0)
    experiment.run(config, tmp_path / "run")
    states = [restoring.restore(folder)[1] for folder in (finished[0], tmp_path / "run")]
    assert_trees_equal(states[0].params, states[1].params)


def test_a_stem_of_ones_own_begins_anew_with_its_statistics(source, tmp_path):
    config = config_of(
        source,
        train__num_steps=1,
        data__image_size=(32, 32),
        task__model__stem="conv_1gf",
        task__model__patch_size=1,
        init__initialise=["stem/.*", "patch_embedding/.*"],
        init__ignore=["embedding/.*"],
    )
    experiment.run(config, tmp_path / "run")
    _, state, _ = restoring.restore(tmp_path / "run")
    assert set(state.model_state) == {"batch_stats"}
    # And back again: without a stem there are no statistics.
    config = config_of(
        tmp_path / "run",
        train__num_steps=1,
        data__image_size=(32, 32),
        task__model__stem=None,
        task__model__patch_size=16,
        init__initialise=["patch_embedding/.*"],
        init__ignore=["stem/.*"],
    )
    experiment.run(config, tmp_path / "back")
    _, state, _ = restoring.restore(tmp_path / "back")
    assert not state.model_state


# mistakes


def test_a_workdir_of_another_source_is_refused(source, finished):
    workdir, own = finished
    with pytest.raises(InputError, match="another config: init.source: .* there, .* now"):
        experiment.run(config_of(source), workdir)
    with pytest.raises(InputError, match="init.new_head: '.not set.' there, True now"):
        experiment.run(config_of(own, init__new_head=True), workdir)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            dict(init__sorce="x"),
            r"config.init has unknown key 'sorce' \(did you mean 'source'\?\); allowed keys: "
            "source, architecture, part, positions, old_grid, new_head, initialise, ignore",
        ),
        (dict(init__source=LEFT_OUT, init__new_head=True), "config.init lacks source; allowed"),
        (dict(init__source=3), "config.init.source is 3; allowed: str"),
        (dict(init__source="/no/such.npz"), "There is no '/no/such.npz' here"),
        (dict(init__initialise=["haed/.*"]), "initialised: no parameter matches 'haed/.*'"),
        (dict(init__initialise=["("]), "config.init.initialise is .*allowed: a list of"),
        (dict(init__ignore=["("]), "config.init.ignore is .*allowed: a list of"),
        (dict(init__positions="cubic"), "method is 'cubic'.*; allowed: bicubic, bilinear, zoom"),
        (dict(init__old_grid=(3, 3)), "17 positions.*3x3"),
        (dict(task__model__width=32), "class_token 1x1x32 from cls 1x1x16"),
        (dict(task__model__widht=32), "unknown key 'widht'"),
    ],
    ids=str,
)
def test_mistakes_are_told(source, settings, message, tmp_path):
    with pytest.raises(InputError, match=message) as told:
        experiment.run(config_of(source, **settings), tmp_path / "run")
    assert len(str(told.value).splitlines()) == 1
    assert not Workdir(tmp_path / "run").holds_training()  # the corrected command may have it


def test_a_task_without_a_model_is_refused(source):
    begin = initial.Initial(source=str(source))
    learner = types.SimpleNamespace(task=Regression(), info=None)
    with pytest.raises(InputError, match="a Regression has no single model; allowed: a task with"):
        begin.load_into(learner, begin.read())
