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
from vit_jax.losses.self_distillation import view_cross_entropy
from vit_jax.losses.sinkhorn import sinkhorn
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
    assert "the same few prototypes win for all images" in told
    assert "set config.task.centring to 'centre' or 'sinkhorn'" in told


def test_without_sharpening_targets_are_uniform():
    (told,) = trained(teacher_temperature=1.0, warmup_teacher_temperature=1.0)
    assert "images are uniform" in told and "lower config.task.teacher_temperature" in told


def test_a_healthy_run_of_the_same_size_gives_no_warning():
    assert trained() == []


HEALTHY = dict(
    teacher_entropy_share=0.3,
    mean_target_entropy_share=0.6,
    target_information=2.0,
    teacher_student_kl=0.8,
    feature_std=0.7,
    effective_rank=40.0,
    images_compared=32.0,
    patch_teacher_entropy_share=0.3,
    patch_mean_target_entropy_share=0.6,
    patch_target_information=2.0,
    patch_teacher_student_kl=0.8,
)
CONSTANT = dict(target_information=0.01, teacher_student_kl=0.001)


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
            CONSTANT | dict(teacher_entropy_share=1.0, mean_target_entropy_share=1.0),
            "teacher_temperature",
        ),
        # Of whatever entropy, if the student has learned it.
        (CONSTANT | dict(teacher_entropy_share=0.5, mean_target_entropy_share=0.5), "are the same"),
        (dict(feature_std=0.001), "learning_rate"),
        (dict(effective_rank=1.01), "koleo_weight"),
        ({f"patch_{name}": value for name, value in CONSTANT.items()}, "all masked patches"),
        (dict(patch_target_information=float("nan")), None),
        # Of too few images to tell.
        (CONSTANT | dict(effective_rank=1.01, images_compared=8.0), None),
        (dict.fromkeys(HEALTHY, float("nan")), None),  # no image of the steps could be read
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


def test_patches_have_numbers_of_their_own():
    """Three masked patches, one of them in a view of its own; and those that do not count."""
    weight = jnp.asarray([[0.25, 0.25, 0], [0.5, 0, 0], [0.5, 0, 0]])
    targets = jnp.eye(4)[jnp.asarray([[0, 1, 3], [0, 3, 3], [2, 3, 3]])]
    mask = jnp.asarray([True, True, False])
    # Cross-entropies of 1, 3 and 2 nats with these weights; targets have no entropy of their own.
    loss = jnp.asarray([0.25 * 1 + 0.25 * 3, 0.5 * 2, jnp.nan])
    found = dino_monitors.measure_patches(targets, weight, loss, mask)
    found = {name: float(value.compute()) for name, value in found.items()}
    assert found["patch_teacher_entropy_share"] == 0
    mean_entropy = np.log(3) - 2 / 3 * np.log(2)
    np.testing.assert_allclose(found["patch_target_information"], mean_entropy, rtol=1e-6)
    np.testing.assert_allclose(found["patch_teacher_student_kl"], 2, rtol=1e-6)


def test_equal_logits_are_found_through_sinkhorn_s_even_shares():
    """A planted collapse: a teacher that says of every image nearly the same, and a student too."""
    b, k, temperature = 32, 64, 0.04
    logits = normal(k) + normal(b, 2, k, scale=1e-3, seed=1)
    mask = jnp.ones(b, bool)
    targets = sinkhorn(logits / temperature, jnp.ones((b, 2), bool))
    loss = view_cross_entropy(targets, jnp.zeros((b, 2, k)), temperature=0.1)
    spread = normal(b, 2, 16, seed=2)
    found = dino_monitors.measure(spread, targets, loss, mask)
    found = {name: float(value.compute()) for name, value in found.items()}
    (told,) = dino_monitors.diagnose(found, centring="sinkhorn")
    assert "the targets of all images are the same" in told and "koleo_weight" in told
    apart = sinkhorn(normal(b, 2, k) / temperature, jnp.ones((b, 2), bool))
    loss = view_cross_entropy(apart, jnp.log(apart + 1e-9) * 0.1, temperature=0.1)
    found = dino_monitors.measure(spread, apart, loss, mask)
    found = {name: float(value.compute()) for name, value in found.items()}
    assert dino_monitors.diagnose(found, centring="sinkhorn") == []
