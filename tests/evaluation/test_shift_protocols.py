"""Retrieval, other kinds and corruptions, from entries of `config.evals` to files, by a toy.

What the model was given is read back from what it made of it: its outputs for images that were
corrupted beforehand are compared with those of the pass.
"""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import mesh_of
from toys import classification, image_batch, random_like

from vit_jax.data.corruptions.corrupt import Corruption
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.pipeline import EvalSettings, Origin, Splits
from vit_jax.evaluation.protocol import Request
from vit_jax.evaluators import Builder, write_report
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.train import optimizer
from vit_jax.train.agreement import Votes

OUT = dict(source="digits", split="test[30:50]")
ENTRIES = {
    "same": dict(protocol="retrieval", split="test[:30]", sheet=2),
    "gallery": dict(protocol="retrieval", split="test[:30]", gallery=dict(split="train[:60]")),
    "other": dict(
        protocol="ood",
        split="test[:30]",
        train="train[:60]",
        scores=("energy", "mahalanobis", "knn"),
        neighbours=3,
        out=dict(more=OUT),
    ),
    "hard": dict(
        protocol="robustness",
        split="test",
        limit=30,
        corruptions=("gaussian_noise", "fog"),
        severities=(1, 5),
        shifts=dict(more=OUT),
    ),
}
INFO = Info(
    class_names=tuple("0123456789"),
    preprocessing=Preprocessing(image_size=(8, 8), channels=1),
    num_examples=1437,
    num_steps=4,
    batch={
        name: (x.shape[1:], str(x.dtype)) for name, x in image_batch(1, shape=(8, 8, 1)).items()
    },
)


def builder_on(mesh, **settings):
    """A builder, and a state whose every number is random."""
    learner = Learner(
        info=INFO,
        mesh=mesh,
        task=classification(num_classes=10),
        optimizer=optimizer.build(num_steps=4, learning_rate=0.1),
        settings=TrainSettings(num_steps=4),
    )
    state = learner.init_state()
    params = jax.device_put(
        random_like(state.params), jax.tree.map(lambda x: x.sharding, state.params)
    )
    splits = Splits(
        origin=Origin(source="digits"),
        training_split="train",
        preprocessing=INFO.preprocessing,
        class_names=INFO.class_names,
    )
    given = {"batch_size": 16, **settings}  # 30 images leave padding in the second batch
    return Builder(learner, splits, Votes(), **given), state.replace(params=params)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """On eight devices: metrics by name, and the folder of the reports."""
    folder = tmp_path_factory.mktemp("evaluations")
    builder, state = builder_on(mesh_of(data=8), keep=functools.partial(write_report, folder))
    evaluators = [builder.build(name, entry) for name, entry in ENTRIES.items()]
    return {e.name: (e, e.run(state)) for e in evaluators}, folder, (builder, state)


@pytest.mark.parametrize("name", ENTRIES)
def test_metrics_and_files_are_those_promised(found, name):
    evaluators, folder, _ = found
    evaluator, metrics = evaluators[name]
    report = json.loads((folder / name / "report.json").read_text())
    assert {f"{name}/{m}" for m in evaluator.metric_names(None)} <= set(metrics)
    shares = {n: value for n, value in report["metrics"].items() if n != "relative_error"}
    assert all(0 <= value <= 1 for value in shares.values())
    for metric, interval in report["intervals"].items():
        assert interval["low"] <= report["metrics"][metric] <= interval["high"], metric
    pictures = {p.name for p in (folder / name).glob("*.png")}
    expected = {"other": {"scores.png"}, "hard": {"accuracy.png", "corruptions.png"}}
    assert pictures == expected.get(name, {"neighbours.png"})
    # Those that are corrupted; all but the queries that are alone with their class.
    assert metrics[f"{name}/scored"] == {"same": 28}.get(name, 30)


def test_one_device_finds_the_same(found):
    builder, state = builder_on(mesh_of(), batch_size=7)
    for name, (_, metrics) in found[0].items():
        again = builder.build(name, ENTRIES[name]).run(state)
        # Sums in another order move a logit by 1e-6, and no rank of these images.
        assert again == pytest.approx(metrics, abs=1e-6), name


def made_of(builder, state, request):
    builder.passes.expect(request, ("logits",))
    return builder.passes.outputs(state, request, stop_requested=lambda: False)


def test_the_model_is_given_corrupted_images_and_can_show_them(found):
    _, _, (builder, state) = found
    settings = EvalSettings(split="test[:5]")
    plain, noisy = (
        Request(settings=settings, transform=transform)
        for transform in (None, Corruption("gaussian_noise", 5))
    )
    clean, hurt = (made_of(builder, state, request) for request in (plain, noisy))
    images = hurt.images(range(5))
    change = Corruption("gaussian_noise", 5)
    for before, image in zip(clean.images(range(5)), images, strict=True):
        np.testing.assert_array_equal(change({"image": before})["image"], image)
    task = builder._learner.task
    batch = {"image": jnp.asarray(np.stack(images)), "mask": jnp.ones(5, bool)}
    expected = task.predict(state.variables(averaged=True), batch, state.rng)["logits"]
    np.testing.assert_allclose(hurt.logits, expected, atol=1e-5)  # of float32
    assert abs(clean.logits - hurt.logits).max() > 1e-2


def test_relative_numbers_are_of_the_images_that_are_corrupted(found):
    evaluators, folder, _ = found
    metrics = evaluators["hard"][1]
    report = json.loads((folder / "hard" / "report.json").read_text())
    assert report["tables"]["images"] == {"top1": 360, "corrupted": 30} and report["scored"] == 30
    right = metrics["hard/clean_top1"] * 30
    assert right == pytest.approx(round(right))
    relative = metrics["hard/clean_top1"] - metrics["hard/corrupted_top1"]
    assert metrics["hard/relative_error"] == pytest.approx(relative, abs=1e-12)
