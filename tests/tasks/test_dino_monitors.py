"""Planted collapses are named, with the setting to change; a healthy run is left in peace."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_dino
from learners import mesh_of
from toys import normal

from vit_jax.data import pipeline
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.tasks import dino_monitors
from vit_jax.train.optimizer import Optimizer

NUM_STEPS = 60


@functools.cache
def digits():
    """Views of digits, and what they say of themselves."""
    crops = dict(num_local=2, local_size=8, local_area=(0.1, 0.4))
    data = pipeline.build(
        source="digits",
        train="train[:320]",
        batch_size=32,
        image_size=(16, 16),
        augment=dict(crop="inception", multi_crop=dict(crops, blur=(0.5, 0.1, 0.1))),
        seed=0,
    )
    return data, Info.of(data)


def trained(**settings):
    """The metrics of the last of some tens of steps."""
    data, info = digits()
    info = Info(**{**vars(info), "num_steps": NUM_STEPS})
    task = tiny_dino.task(
        of=info,
        model=dict(width=32, mlp_dim=64, patch_size=4),
        head=dict(hidden_dim=64, bottleneck_dim=16, num_prototypes=64),
        momentum=0.99,
        **settings,
    )
    learner = Learner(
        info=info,
        mesh=mesh_of(1),
        task=task,
        optimizer=Optimizer(optax.adam(1e-3), lambda step: 1e-3),
        settings=TrainSettings(num_steps=NUM_STEPS),
    )
    step, state = learner.step_fn(), learner.init_state()
    for _, batch in zip(range(NUM_STEPS), data.train.iterate(0), strict=False):
        state, metrics = step(state, jax.tree.map(jnp.asarray, dict(batch)))
    metrics = {f"train/{name}": float(value.compute()) for name, value in metrics.items()}
    return task.diagnose(metrics)


def test_without_centring_few_prototypes_win():
    (told,) = trained(centring="none")
    assert "the same few prototypes win for every image" in told
    assert "set config.task.centring to 'centre' or 'sinkhorn'" in told


def test_without_sharpening_targets_are_uniform():
    (told,) = trained(teacher_temperature=1.0, warmup_teacher_temperature=1.0)
    assert "targets are uniform" in told and "lower config.task.teacher_temperature" in told


def test_a_healthy_run_of_the_same_size_gives_no_warning():
    assert trained() == []


HEALTHY = dict(
    teacher_entropy_share=0.3,
    mean_target_entropy_share=0.6,
    target_information=2.0,
    teacher_student_kl=0.8,
    feature_std=0.7,
    effective_rank=40.0,
)


@pytest.mark.parametrize(
    "changed, word",
    [
        ({}, None),
        # A random start, and the uniform targets that a student has yet to learn.
        (dict(teacher_entropy_share=0.99, mean_target_entropy_share=0.99), None),
        (
            dict(
                teacher_entropy_share=0.99,
                mean_target_entropy_share=0.992,
                target_information=0.01,
            ),
            None,
        ),
        (dict(mean_target_entropy_share=0.05, target_information=0.02), "centre_momentum"),
        (
            dict(
                teacher_entropy_share=1.0,
                mean_target_entropy_share=1.0,
                target_information=0.0,
                teacher_student_kl=0.001,
            ),
            "teacher_temperature",
        ),
        (dict(feature_std=0.001), "learning_rate"),
        (dict(effective_rank=1.01), "koleo_weight"),
    ],
    ids=str,
)
def test_each_sign_names_a_setting(changed, word):
    told = dino_monitors.diagnose({**HEALTHY, **changed}, centring="centre")
    assert len(told) == (word is not None)
    assert word is None or word in told[0]


def test_lines_without_these_metrics_say_nothing():
    assert dino_monitors.diagnose({"knn/top1": 0.5}, centring="centre") == []


def test_the_numbers_are_those_of_the_targets():
    """Two images, each of whose views have one prototype of four; a third row does not count."""
    targets = jnp.eye(4)[jnp.asarray([[0, 0], [1, 1], [2, 3]])]
    mask = jnp.asarray([True, True, False])
    found = dino_monitors.measure(normal(3, 2, 5), targets, jnp.asarray([0.5, 1.5, 9.0]), mask)
    found = {name: float(value.compute()) for name, value in found.items()}
    assert found["teacher_entropy"] == 0 and found["teacher_student_kl"] == 1
    np.testing.assert_allclose(found["mean_target_entropy_share"], 0.5, rtol=1e-6)
    np.testing.assert_allclose(found["target_information"], np.log(2), rtol=1e-6)
