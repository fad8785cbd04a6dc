"""MAE and DINO that go on from weights, and their runs as weights: each run learns two steps."""

import json
import shutil

import numpy as np
import pytest
from finished_runs import final_leaves
from rich.console import Console
from toys import assert_trees_equal

from vit_jax import experiment, restoring, weights
from vit_jax.errors import InputError
from vit_jax.initial import Beginning
from vit_jax.learner import Info
from vit_jax.train import sharding
from vit_jax.train.checkpoint import Checkpointer

MODEL = dict(patch_size=4, width=12, depth=1, num_heads=3, mlp_dim=16, activation="gelu")
DECODER = dict(width=8, depth=1, num_heads=2, mlp_dim=12)
HEAD = dict(hidden_dim=7, bottleneck_dim=5, num_prototypes=6)
VIEWS = dict(num_local=1, local_size=4, global_area=(0.4, 1.0), local_area=(0.1, 0.4))
VIEWS |= dict(blur=(0.0, 0.0, 0.0), solarize=(0.0, 0.0, 0.0))
TASKS = {
    "mae": dict(name="mae", model=MODEL, decoder=DECODER),
    "dino": dict(name="dino", model=MODEL, head=HEAD, patch_loss={}),
    "classification": dict(name="classification", model=MODEL),
}
AUGMENT = {"dino": dict(crop="inception", multi_crop=VIEWS)}


def config_of(name, *, source=None, left_out=(), **init):
    task = {key: value for key, value in TASKS[name].items() if key not in left_out}
    return dict(
        task=task,
        data=dict(
            source="digits",
            train="train[:64]",
            image_size=(8, 8),
            batch_size=16,
            augment=AUGMENT.get(name, {}),
        ),
        optimizer=dict(name="sgd", learning_rate=0.1),
        train=dict(num_steps=2, log_every=1, checkpoint_every=1),
        evals={},
        mesh={},
        launch={},
        init={} if source is None else dict(source=str(source), **init),
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs: a MAE, and a DINO that began with it, from a copy that is gone."""
    folder = tmp_path_factory.mktemp("runs")
    config = config_of("mae")
    config["train"]["ema_decay"] = 0.5
    experiment.run(config, folder / "mae")
    shutil.copytree(folder / "mae", folder / "copy")
    experiment.run(config_of("dino", source=folder / "copy", left_out=("model",)), folder / "dino")
    shutil.rmtree(folder / "copy")
    return folder


def begin(config):
    """What a run begins with, without the run: its state and its learner."""
    config, beginning = Beginning.read(experiment.plain(config))
    data = experiment.build_data(config["data"], seed=0)
    learner = experiment.build_learner(config, sharding.make_mesh(), Info.of(data), 2)
    return beginning.new_state(learner, Console()), learner


def stored_state(workdir):
    paths = ("params", "ema_params", "task_state")
    return Checkpointer(workdir / "checkpoints", read_only=True).read_weights(2, *paths)


@pytest.mark.parametrize("name", ["mae", "dino"])
def test_a_runs_weights_are_those_that_it_measures(runs, name):
    state, found = stored_state(runs / name), weights.load(runs / name)
    tree = {"mae": state.get("ema_params"), "dino": state.get("task_state", {}).get("teacher")}
    assert_trees_equal(found.variables["params"], tree[name]["backbone"])
    restored = restoring.restore(runs / name)
    assert_trees_equal(restored.variables["params"], found.variables["params"])
    assert found.class_names == () and found.model.num_classes == 0
    assert found.model.mask_token == (name == "dino")
    # What else is there is told.
    parts = {leaf.name.split("/")[0] for leaf in found.report.of("unused")}
    assert parts == {"mae": {"decoder"}, "dino": {"head"}}[name]


@pytest.mark.parametrize("name", ["mae", "dino"])
def test_such_weights_are_a_representation(runs, name):
    """The same of a workdir restored as a run and as weights."""
    as_run, as_weights = restoring.restore(runs / name), restoring.load(runs / name)
    found = [
        restoring.represent(one, origin=as_run.origin, split="test[:16]", batch_size=16)
        for one in (as_run, as_weights)
    ]
    assert found[0].representation.shape == (16, 12)
    # One program computes more than the other, in another order.
    np.testing.assert_allclose(
        found[0].representation, found[1].representation, rtol=1e-5, atol=1e-5
    )
    image = np.zeros((8, 8, 1), np.uint8)
    with pytest.raises(InputError, match="allowed: a task that tells probabilities of classes"):
        next(as_run.learner.probabilities(as_run.state, [("a", image)], 1))


@pytest.mark.parametrize("name", ["mae", "dino"])
def test_a_classification_begins_with_such_a_run(runs, name):
    state, learner = begin(config_of("classification", source=runs / name, left_out=("model",)))
    expected = dict(weights.load(runs / name).variables["params"])
    expected.pop("mask_token", None)
    head = state.params["head"]
    assert head["kernel"].shape == (12, 10) and not np.any(head["kernel"])
    assert_trees_equal({n: t for n, t in state.params.items() if n != "head"}, expected)
    assert learner.task.model.block.num_heads == MODEL["num_heads"]


def test_a_mae_goes_on_with_its_decoder(runs):
    # Without the averages, which a state has only if the config keeps them.
    state, _ = begin(config_of("mae", source=runs / "mae", left_out=("model", "decoder")))
    assert_trees_equal(state.params, stored_state(runs / "mae")["ema_params"])
    new, _ = begin(config_of("mae", source=runs / "mae", new_head=True))
    assert_trees_equal(new.params["backbone"], state.params["backbone"])
    kernels = [one.params["decoder"]["embedding"]["kernel"] for one in (new, state)]
    assert np.any(kernels[0] != kernels[1])


def test_a_dino_goes_on_with_student_teacher_and_centres(runs, capsys):
    state, _ = begin(config_of("dino", source=runs / "dino", left_out=("model", "head")))
    stored = stored_state(runs / "dino")
    assert_trees_equal(state.params, stored["params"])
    assert_trees_equal(state.task_state, stored["task_state"])
    assert np.any(stored["task_state"]["centre"]) and np.any(stored["task_state"]["patch_centre"])
    assert "its teacher: vit_jax weights" in capsys.readouterr().out.replace("\n", " ")
    student, teacher = (tree["head"] for tree in (state.params, state.task_state["teacher"]))
    assert np.any(student["layer_1"]["kernel"] != teacher["layer_1"]["kernel"])


def test_new_heads_have_new_centres(runs):
    source = runs / "dino"
    state, _ = begin(config_of("dino", source=source, initialise=["head/.*"]))
    stored = stored_state(source)
    assert_trees_equal(state.params["backbone"], stored["params"]["backbone"])
    teacher = state.task_state["teacher"]
    assert_trees_equal(teacher["backbone"], stored["task_state"]["teacher"]["backbone"])
    assert_trees_equal(teacher["head"], state.params["head"])
    assert not np.any(state.task_state["centre"])


@pytest.mark.parametrize("part, is_kept", [("backbone/mask_token", True), ("head/.*", False)])
def test_centres_are_those_of_the_heads_that_are_the_sources(runs, part, is_kept):
    state, _ = begin(config_of("dino", source=runs / "dino", initialise=[part]))
    stored = stored_state(runs / "dino")["task_state"]
    for name in ("centre", "patch_centre"):  # one head for both
        assert np.array_equal(state.task_state[name], stored[name]) == is_kept


def test_a_teacher_is_a_copy_where_the_source_has_one_network(runs):
    state, _ = begin(config_of("dino", source=runs / "mae"))
    assert_trees_equal(state.task_state["teacher"], state.params)
    expected = weights.load(runs / "mae").variables["params"]
    backbone = {n: t for n, t in state.params["backbone"].items() if n != "mask_token"}
    assert_trees_equal(backbone, expected)


def test_an_interrupted_run_goes_on_without_its_source(runs, tmp_path):
    """The source of this one is gone, and with it what it says of the model."""
    shutil.copytree(runs / "dino", tmp_path / "run")
    (tmp_path / "run" / "result.json").unlink()
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "2")
    config = json.loads((runs / "dino" / "config.json").read_text())
    assert "model" not in config["task"]
    experiment.run(config_of("dino", source=runs / "copy", left_out=("model",)), tmp_path / "run")
    assert json.loads((tmp_path / "run" / "result.json").read_text())["resumed_from_step"] == 1
    ours, theirs = final_leaves(tmp_path / "run"), final_leaves(runs / "dino")
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)
