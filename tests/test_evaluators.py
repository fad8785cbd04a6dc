"""From entries of a config to numbers: the same on any devices, each example once."""

import dataclasses
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import learner_on, mesh_of
from PIL import Image
from toys import NUM_CLASSES, random_like

from vit_jax import evaluators
from vit_jax.data.pipeline import EvalData, EvalSettings, Origin, Splits
from vit_jax.errors import InputError
from vit_jax.evaluation.protocol import Interval, Report, Request
from vit_jax.train.agreement import Votes
from vit_jax.train.sharding import state_sharding

NUM_IMAGES = 21  # no multiple of eight
CLASSES = tuple(map(str, range(NUM_CLASSES)))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Noise in seven folders, and one file that cannot be read."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(NUM_IMAGES):
        path = folder / "test" / str(i % NUM_CLASSES) / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(path)
    (folder / "test" / "3" / "10_broken.png").write_bytes(b"junk")
    return folder


def splits(pictures, learner, **reading):
    return Splits(
        origin=Origin(source=f"folder:{pictures}"),
        training_split="test",
        preprocessing=learner.info.preprocessing,
        class_names=CLASSES,
        reading=dict(skip_bad_examples=True, num_workers=0, num_threads=0) | reading,
    )


def builder(pictures, learner, **settings):
    given = {"batch_size": 8, **settings}
    return evaluators.Builder(learner, splits(pictures, learner), Votes(), **given)


def state_of(learner):
    """Random everywhere, and the same on every mesh; averaged weights are other ones."""
    abstract = learner.abstract_state()
    values = jax.tree.map(np.asarray, random_like(abstract.params))
    averaged = None if abstract.ema_params is None else jax.tree.map(lambda x: -x, values)
    state = learner.init_state().replace(params=values, ema_params=averaged, opt_state=())
    return jax.device_put(state, state_sharding(state, learner.mesh, learner.rules))


ENTRIES = {
    "test": dict(split="test"),
    "full": dict(split="test", protocol="classification"),
    "calibration": dict(split="test", protocol="calibration"),
}


def measured(pictures, learner, entries=ENTRIES, **settings):
    one = builder(pictures, learner, **settings)
    built = [one.build(name, entry) for name, entry in entries.items()]
    return evaluators.measure(built, state_of(learner), Votes())


def test_eight_devices_are_one_device_are_a_plain_loop(pictures):
    """By the averaged weights, which are other ones."""
    one = learner_on(mesh_of(1), ema_decay=0.9)
    eight = learner_on(mesh_of(4, 2), ema_decay=0.9)
    found = measured(pictures, eight)
    assert found == pytest.approx(measured(pictures, one, batch_size=5), rel=1e-5)
    state, right, losses = state_of(one), [], []
    predict = jax.jit(one.task.predict)
    for path in sorted(pictures.rglob("*.png")):
        if "broken" in path.name:
            continue
        image = jnp.asarray(np.asarray(Image.open(path))[None])
        variables = state.variables(averaged=True)
        logits = predict(variables, {"image": image}, state.rng)["logits"][0]
        label = int(path.parent.name)
        right.append(int(logits.argmax()) == label)
        losses.append(np.log(np.exp(np.float64(logits)).sum()) - logits[label])
    assert found["full/top1"] == pytest.approx(np.mean(right)) == found["test/top1"]
    assert found["calibration/nll"] == pytest.approx(np.mean(losses), rel=1e-5)
    assert found["test/loss"] == pytest.approx(found["calibration/nll"], rel=1e-5)
    for name in ENTRIES:
        counts = [found[f"{name}/{count}"] for count in ("scored", "examples", "unreadable")]
        assert counts == [NUM_IMAGES, NUM_IMAGES + 1, 1]


def test_protocols_share_a_pass_and_splits_are_opened_once(pictures, monkeypatch):
    passes, opened = [], []
    iterate, open_split = EvalData.__iter__, Splits.open
    monkeypatch.setattr(EvalData, "__iter__", lambda self: passes.append(1) or iterate(self))
    monkeypatch.setattr(
        Splits, "open", lambda self, *a, **k: opened.append(1) or open_split(self, *a, **k)
    )
    entries = {name: ENTRIES[name] for name in ("full", "calibration")}
    measured(pictures, learner_on(mesh_of(1)), entries)
    assert len(passes) == len(opened) == 1


def test_batches_are_watched(pictures):
    seen = []

    def watch(data, batches):
        for batch in batches:
            seen.append((data.num_examples, len(batch["index"])))
            yield batch

    measured(pictures, learner_on(mesh_of(1)), watch=watch)
    assert seen == [(NUM_IMAGES + 1, 8)] * 6  # three batches for the task, three for all others


def test_speed_is_measured_on_a_split_like_all_else(pictures):
    entry = dict(
        split="test", protocol="throughput", repetitions=2, calls=1, warm_up=1, batch_size=16
    )
    found = measured(pictures, learner_on(mesh_of(8)), {"speed": entry})
    names = ["speed/images_per_second", "speed/images_per_second_with_data"]
    assert list(found) == names and min(found.values()) > 0  # a CPU's peak is not known


@pytest.mark.parametrize(
    "entry, message",
    [
        (dict(protocol="clasification"), "protocol is 'clasification' (did you mean 'classificat"),
        (
            dict(protocol="calibration", bns=3),
            "evals.x has unknown key bns; allowed: bins, ",
        ),
        (dict(protocol="calibration", bns=3), "and of every evaluation split, every_steps"),
        (dict(protocol="throughput", call=3), "allowed: repetitions, calls, warm_up of the prot"),
        (dict(protocol="calibration", bins="3"), "config.evals.x.bins is '3'; allowed: int"),
        (dict(bins=3), "config.evals.x has unknown key 'bins'"),
        (dict(protocol="classification", split="tset"), "tset"),
    ],
)
def test_mistakes_are_told_before_anything_is_computed(pictures, entry, message):
    with pytest.raises(InputError) as error:
        builder(pictures, learner_on(mesh_of(1))).build("x", {"split": "test", **entry})
    assert message in str(error.value)


def test_model_without_a_head_is_told_what_it_lacks(pictures):
    learner = learner_on(mesh_of(1), {})
    headless = dataclasses.replace(learner.task.model, num_classes=0)
    task = dataclasses.replace(learner.task, model=headless)
    one = builder(pictures, dataclasses.replace(learner, task=task))
    for entry in ({}, {"protocol": "classification"}):
        with pytest.raises(InputError) as error:
            one.build("x", {"split": "test", **entry})
        assert "reads logits, but this model gives representation alone" in str(error.value)
        assert "allowed: a model with a head, or another protocol" in str(error.value)


def test_report_is_written_in_jsons_types(tmp_path):
    drawn = []
    report = Report(
        metrics={"a": 0.5},
        intervals={"a": Interval(0.25, 0.75)},
        tables={
            "matrix": np.eye(2, dtype=int),
            "rows": [{"n": np.int64(3)}, (None, "b")],
            "no number": [np.array([np.nan])[0], 1.0, -math.inf],
        },
        pictures={"p.png": drawn.append},
        files={"i.npz": drawn.append},
        about={"step": 4},
    )
    evaluators.write_report(tmp_path / "new", "test/x", report)
    folder = tmp_path / "new" / "test" / "x"
    assert json.loads((folder / "report.json").read_text()) == {
        "step": 4,
        "metrics": {"a": 0.5},
        "intervals": {"a": {"low": 0.25, "high": 0.75}},
        "tables": {
            "matrix": [[1, 0], [0, 1]],
            "rows": [{"n": 3}, [None, "b"]],
            "no number": [None, 1.0, None],
        },
    }
    assert drawn == [folder / "p.png", folder / "i.npz"]
    (folder / "old.png").write_bytes(b"")
    (folder / "notes.txt").write_text("mine")
    evaluators.write_report(tmp_path / "new", "test/x", Report(metrics={"a": 0.5}))
    assert sorted(file.name for file in folder.iterdir()) == ["notes.txt", "report.json"]


@pytest.mark.parametrize("name", ["", "/a", "..", "a/../b", "a//b", "a/", "a\0", "a" * 201])
def test_names_that_are_no_folders_are_refused(pictures, name):
    with pytest.raises(InputError, match="an evaluation is called"):
        builder(pictures, learner_on(mesh_of(1))).build(name, {"split": "test"})


def test_names_of_evaluations_are_their_own(pictures):
    one = builder(pictures, learner_on(mesh_of(1)))
    one.build("a/b", {"split": "test"})
    with pytest.raises(InputError, match="two evaluations are called 'a/b'"):
        one.build("a/b", {"split": "test"})


@pytest.mark.parametrize(
    "entry, message",
    [
        (dict(protocol="ood", scores=("msp", "msp")), "two metrics would be called 'msp_auroc'"),
        (
            dict(
                protocol="ood",
                out={"relative": dict(split="test")},
                scores=("mahalanobis", "relative_mahalanobis"),
            ),
            "two metrics would be called 'relative_mahalanobis_auroc'",
        ),
        (dict(protocol="ood", out={"a": 5}), "out.a is 5; allowed: keys of an evaluation"),
        (dict(protocol="ood", out={"a/b": {}}), "out has the name 'a/b'; allowed: letters"),
        (dict(protocol="robustness", shifts={"a": 5}), "shifts.a is 5; allowed: keys"),
        (dict(protocol="robustness", shifts={"": {}}), "shifts has the name ''; allowed"),
        (dict(every_steps=-1), "every_steps is -1; allowed: 0 or more"),
        (dict(batch_size=0), "batch_size is 0; it must be a whole number above 0"),
        (dict(protocol="linear_probe", seed=-1), "linear_probe.seed is -1; allowed: 0 or more"),
        (dict(protocol="transfer", seed=-1), "transfer.seed is -1; allowed: 0 or more"),
    ],
)
def test_what_would_mislead_is_refused(pictures, entry, message):
    given = {} if entry.get("protocol") == "transfer" else {"split": "test"}
    if entry.get("protocol") == "ood":
        given["out"] = {"other": dict(split="test")}
    with pytest.raises(InputError) as error:
        builder(pictures, learner_on(mesh_of(1))).build("x", {**given, **entry})
    assert message in str(error.value)


def test_batches_have_no_more_rows_than_are_needed(pictures):
    """But those of a measurement of speed, whose padding does not count."""
    one = builder(pictures, learner_on(mesh_of(8)), batch_size=1_000)
    data = one.open_data(Request(settings=EvalSettings(split="test")))
    assert data.batch_size == 24  # for 22 files
    speed = one.build("x", {"split": "test", "protocol": "throughput"})
    assert speed.batch_size == 1_000 and speed._sizes() == [22]
