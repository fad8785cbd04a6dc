"""DINO as a task: views, teacher, centre, masks, on any number of devices and microbatches."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_dino
from learners import mesh_of
from toys import (
    assert_trees_close,
    assert_trees_equal,
    empty_state,
    new_state,
    normal,
    random_like,
)

from vit_jax.errors import InputError
from vit_jax.models.dino import unit_length
from vit_jax.tasks import dino
from vit_jax.train import optimizer, sharding
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.step import make_train_step
from vit_jax.train.weight_decay import DECAY_KERNELS

SGD = optax.sgd(1.0)  # its update is minus the gradient, so parameters show gradients
WITH_PATCHES = dict(patch_loss=dict(own_head=True, mask_probability=0.8))
OF_BOTH = {"DINO with patches": WITH_PATCHES, "DINOv2": tiny_dino.V2}
# What several tests ask of one program: losses of views, and of everything there is.
VIEWS = dict(teacher_temperature=0.06, temperature_warmup_epochs=1.0)
PARTS = dict(
    koleo_weight=0.3,
    patch_loss=dict(weight=0.7, own_head=True, mask_probability=0.8),
    head=dict(normalise_last=False),
    freeze_last_layer_epochs=1.0,
)


def state_of(task, batch, *, step=0):
    """Student, teacher and centres all different, as late in a run."""
    state = new_state(task, SGD, batch)
    moved = {
        name: random_like(tree, seed=7) if name == "teacher" else normal(*tree.shape, seed=8)
        for name, tree in state.task_state.items()
    }
    return state.replace(task_state=moved, step=jnp.int32(step))


task_of_parts = functools.cache(lambda: tiny_dino.task(**PARTS))
task_of_views = functools.cache(lambda: tiny_dino.task(**VIEWS))


@functools.cache
def one_step(name):
    """The task, its step and the same compiled."""
    task = tiny_dino.task(**OF_BOTH[name])
    step = make_train_step(task, SGD)
    return task, step, jax.jit(step)


@pytest.mark.parametrize("name", OF_BOTH)
def test_eight_devices_equal_one(name):
    """Loss, gradients, metrics, teacher and centres, with a masked row."""
    task, step, on_one = one_step(name)
    batch = tiny_dino.batch(masked=(3,))
    state, mesh = state_of(task, batch), mesh_of(2, 4)
    expected, expected_metrics = on_one(state, batch)
    places, rows = sharding.state_sharding(state, mesh), sharding.batch_sharding(mesh)
    step = jax.jit(step, in_shardings=(places, rows), out_shardings=(places, None))
    found, metrics = step(jax.device_put(state, places), jax.device_put(batch, rows))
    assert_trees_close(metrics, expected_metrics, rtol=1e-4, atol=1e-5)
    # The gradients are of order 0.1, summed in another order.
    assert_trees_close(found.params, expected.params, rtol=0, atol=5e-6)
    assert_trees_close(found.task_state, expected.task_state, rtol=0, atol=5e-6)


def test_microbatches_equal_the_full_batch_with_plain_centring():
    """Masks of patches and the centres included; one microbatch has no valid row at all."""
    task, _, whole = one_step("DINO with patches")
    parts = jax.jit(make_train_step(task, SGD, accum_steps=4))
    batch = tiny_dino.batch(masked=(2, 3, 6))
    state = state_of(task, batch)
    whole, parts = whole(state, batch)[0], parts(state, batch)[0]
    # Gradients of up to 4, summed in another order.
    assert_trees_close(parts.params, whole.params, rtol=1e-5, atol=5e-6)
    assert_trees_close(parts.task_state, whole.task_state, rtol=0, atol=5e-6)
    assert jnp.abs(whole.params["head"]["last"]["kernel"]).max() > 0.1


@pytest.mark.parametrize("settings", [dict(centring="sinkhorn"), dict(koleo_weight=0.1)], ids=str)
def test_microbatches_are_refused_where_examples_meet(settings):
    with pytest.raises(InputError, match="Dino compares the examples of a batch"):
        make_train_step(tiny_dino.task(**settings), SGD, accum_steps=2)
    assert not tiny_dino.task(**WITH_PATCHES).mixes_examples


@pytest.mark.parametrize("name", OF_BOTH)
def test_rows_that_do_not_count_have_no_influence(name):
    task, _, step = one_step(name)
    batch, other = (tiny_dino.batch(masked=(0, 5), seed=seed) for seed in (0, 1))
    is_row = batch["mask"]
    other = {
        n: jnp.where(is_row.reshape(-1, *[1] * (x.ndim - 1)), x, other[n]) for n, x in batch.items()
    }
    state = state_of(task, batch)
    found, again = step(state, batch), step(state, other)
    assert_trees_close(found[0].params, again[0].params, rtol=0, atol=1e-6)
    assert_trees_close(found[0].task_state, again[0].task_state, rtol=0, atol=1e-6)
    # Eigenvalues of matrices with zeros in other places.
    assert_trees_close(found[1], again[1], rtol=1e-5, atol=1e-5)


def test_the_loss_is_that_of_the_views_one_by_one():
    """Equations 1 to 4 of the paper in loops, from a network that sees one view at a time."""
    task, batch = task_of_views(), tiny_dino.batch()
    state = state_of(task, batch, step=1)
    loss, _ = tiny_dino.loss_of(task)(state.params, state, batch)[0]

    @jax.jit
    def logits(params, image):
        return task.network.apply({"params": params}, task.normalise(image)[:, None]).logits[:, 0]

    views = [batch["global_images"][:, i] for i in range(2)]
    views += [batch["local_images"][:, i] for i in range(3)]
    expected = 0
    for i in range(2):
        seen = logits(state.task_state["teacher"], views[i]) - state.task_state["centre"]
        # The second of the four steps of the warm-up from 0.04 to 0.06.
        target = jax.nn.softmax(seen / (0.04 + 0.02 / 3))
        for j in range(5):
            if i != j:
                log_p = jax.nn.log_softmax(logits(state.params, views[j]) / 0.1)
                expected -= (target * log_p).sum(-1).mean() / 8
    np.testing.assert_allclose(loss.compute(), expected, rtol=1e-5)


def test_the_loss_is_the_weighted_sum_of_its_parts():
    task, batch = task_of_parts(), tiny_dino.batch(masked=(1,))
    state = state_of(task, batch)
    (loss, aux), _ = tiny_dino.loss_of(task)(state.params, state, batch)
    view, koleo, patch = (aux.metrics[f"{n}_loss"].compute() for n in ("view", "koleo", "patch"))
    np.testing.assert_allclose(loss.compute(), view + 0.3 * koleo + 0.7 * patch, rtol=1e-5)
    assert loss.weight == 7 and min(abs(view), abs(koleo), abs(patch)) > 0.01


def test_the_teacher_follows_the_student_by_the_scheduled_momentum():
    task, _, step = one_step("DINO with patches")
    batch = tiny_dino.batch()
    state = state_of(task, batch)
    views = task.views(batch).global_images
    logits = jax.jit(lambda teacher: task.network.apply({"params": teacher}, views).logits)
    teacher = jax.tree.map(np.float64, state.task_state["teacher"])
    centre = np.float64(state.task_state["centre"])
    for t in range(3):
        seen = logits(state.task_state["teacher"])
        centre = 0.9 * centre + 0.1 * np.float64(seen).reshape(-1, len(centre)).mean(0)
        state, _ = step(state, batch)
        m = 1 - (1 - 0.996) * (1 + np.cos(np.pi * t / tiny_dino.NUM_STEPS)) / 2
        teacher = jax.tree.map(lambda a, b, m=m: m * a + (1 - m) * b, teacher, state.params)
    assert_trees_close(state.task_state["teacher"], teacher, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.task_state["centre"], centre, rtol=1e-4, atol=1e-5)


def test_local_views_have_no_influence_on_the_teacher():
    task, batch = task_of_views(), tiny_dino.batch()
    other = {**batch, "local_images": tiny_dino.batch(seed=1)["local_images"]}
    state, run = state_of(task, batch), tiny_dino.loss_of(task)
    (loss, aux), _ = run(state.params, state, batch)
    (other_loss, other_aux), _ = run(state.params, state, other)
    assert_trees_equal(aux.carry, other_aux.carry)
    assert aux.metrics["teacher_entropy"].total == other_aux.metrics["teacher_entropy"].total
    assert abs(loss.total - other_loss.total) > 1e-3


def test_the_last_layer_is_frozen_for_the_first_epochs():
    """Four steps are an epoch here."""
    task, batch = task_of_parts(), tiny_dino.batch()
    for step, is_frozen in ((0, True), (3, True), (4, False)):
        state = state_of(task, batch, step=step)
        _, gradients = tiny_dino.loss_of(task)(state.params, state, batch)
        for head in ("head", "patch_head"):
            assert (jnp.abs(gradients[head]["last"]["kernel"]).max() == 0) == is_frozen
            assert jnp.abs(gradients[head]["layer_1"]["kernel"]).max() > 0


@pytest.mark.parametrize("patterns, is_kept", [(DECAY_KERNELS, True), (((".*", True),), False)])
def test_what_a_frozen_last_layer_computes_with_stays_under_weight_decay(patterns, is_kept):
    """Directions of the prototypes always; learned magnitudes where decay is of kernels alone."""
    task, batch = task_of_parts(), tiny_dino.batch()
    state = state_of(task, batch)
    _, gradients = tiny_dino.loss_of(task)(state.params, state, batch)
    before, gradients = state.params["head"], gradients["head"]
    tx = optimizer.build(
        num_steps=10, learning_rate=0.1, weight_decay=0.5, decay_patterns=patterns
    ).transform

    @jax.jit
    def train(head):
        opt_state = tx.init(head)
        for _ in range(3):
            updates, opt_state = tx.update(gradients, opt_state, head)
            head = optax.apply_updates(head, updates)
        return head

    after = train(before)
    assert jnp.abs(after["layer_1"]["kernel"] - before["layer_1"]["kernel"]).max() > 0.1
    old, new = (head["last"]["kernel"] for head in (before, after))
    np.testing.assert_allclose(unit_length(new, axis=0), unit_length(old, axis=0), atol=1e-6)
    # It is the length that decays.
    assert jnp.linalg.norm(new) < 0.95 * jnp.linalg.norm(old)
    old, new = (head["last"]["magnitude"] for head in (before, after))
    assert (jnp.abs(new) == jnp.abs(old)).all() if is_kept else (jnp.abs(new) < jnp.abs(old)).all()


def test_predictions_and_exports_are_the_teacher_s():
    learner = tiny_dino.learner(mesh_of(1), patch_loss={}, model=dict(num_registers=2))
    batch = tiny_dino.batch()
    state = state_of(learner.task, batch)
    teacher = state.task_state["teacher"]
    images = {"image": batch["global_images"][:, 0], "mask": batch["mask"]}

    @jax.jit
    def represent(variables, of_model):
        of_both = [
            learner.task.predict(variables, rows, jax.random.key(0)) for rows in (batch, images)
        ]
        pixels = learner.task.normalise(images["image"])
        expected = learner.task.model.apply(of_model, pixels).representation
        return *(found["representation"] for found in of_both), expected

    of_views, of_images, expected = represent(
        learner.task.variables(state), learner.model_variables(state)
    )
    np.testing.assert_array_equal(of_views, of_images)
    np.testing.assert_allclose(of_images, expected, rtol=1e-5)
    assert learner.model_variables(state)["params"] is teacher["backbone"]


def test_an_average_of_the_student_is_refused():
    """Nobody would read it."""
    learner = tiny_dino.learner(mesh_of(1))
    settings = dataclasses.replace(learner.settings, ema_decay=0.9)
    with pytest.raises(InputError, match="ema_decay is 0.9, .* the state's task_state/teacher; .*"):
        dataclasses.replace(learner, settings=settings).check(tiny_dino.BATCH_SIZE, [])


def test_learned_positions_are_those_of_the_global_views():
    assert tiny_dino.task().model.position_grid == (4, 4)
    assert tiny_dino.task(model=dict(position_grid=(3, 3))).model.position_grid == (3, 3)
    assert tiny_dino.task(model=dict(position_embedding="rope")).model.position_grid is None


IMAGES = {"image": ((8, 8, 1), "uint8"), "mask": ((), "bool")}


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(of=tiny_dino.info(batch=IMAGES)), "examples have image, mask; .*augment.multi_crop"),
        (dict(model=dict(name="mixer")), "model.name is 'mixer'; allowed for dino: 'vit'"),
        (
            dict(model=dict(position_embedding="relative")),
            "position_embedding is 'relative'; allowed for dino, since relative .*: 'learned', ",
        ),
        (
            dict(model=dict(stem="conv_1gf", patch_size=1)),
            "stem is 'conv_1gf'; allowed for dino, since a stem's batch norm .*: None, 'resnet_ro",
        ),
        (dict(model=dict(mask_token=True)), "mask_token is True; allowed: False.*not set"),
        (dict(centring="center"), "'center'.*'centre'.*sinkhorn, none"),
        (dict(head=dict(depth=0)), "config.task.head.depth is 0"),
        (dict(head=dict(num_prototypes=1)), "num_prototypes is 1; allowed: 2 or more"),
        (dict(head=dict(prototypes=3)), "config.task.head has unknown key 'prototypes'"),
        (dict(momentum=1.1), "momentum is 1.1"),
        (dict(koleo_weight=-1.0), "koleo_weight is -1.0"),
        (dict(patch_loss=dict(mask_ratio=(0.5, 0.1))), "mask_ratio is .*least <= largest < 1"),
        (dict(patch_loss=dict(mask_probability=0.0)), "mask_probability is 0.0; allowed"),
    ],
    ids=str,
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        tiny_dino.task(**settings)


def test_a_loss_on_plain_images_is_refused():
    """As an evaluation without protocol asks for; found where its metrics are named."""
    task, batch = tiny_dino.task(), tiny_dino.batch()
    images = {"image": batch["global_images"][:, 0], "mask": batch["mask"]}
    with pytest.raises(InputError, match="examples have image, mask; allowed: .*protocol='knn'"):
        task.loss({}, empty_state(), images, jax.random.key(0), train=False)


def test_a_run_continued_from_a_checkpoint_has_the_bits_of_one_without_a_break(tmp_path):
    """Student, teacher, both centres, optimizer; masks and dropped paths after the break, too."""
    settings = dict(patch_loss=dict(mask_probability=1.0), model=dict(drop_path_rate=0.5))
    learner = tiny_dino.learner(mesh_of(1), tx=optax.adam(1e-2), **settings)
    step = learner.step_fn()
    checkpointer = Checkpointer(tmp_path, every_steps=2)

    def train(state, first):
        for t in range(first, 4):
            state, _ = step(state, tiny_dino.batch(seed=t))
            if first == 0 and checkpointer.is_due(t + 1):
                checkpointer.save(t + 1, state, {})
        return state

    whole = train(learner.init_state(), 0)
    checkpointer.wait()
    again = train(checkpointer.restore(2, learner.abstract_state()), 2)
    checkpointer.close()
    assert again.step == 4 and set(again.task_state) == {"teacher", "centre", "patch_centre"}
    assert_trees_equal(again, whole)


def test_defaults_are_those_of_the_public_code():
    """facebookresearch/dino, main_dino.py."""
    task = dino.build(model=tiny_dino.MODEL, info=tiny_dino.info())
    head, schedules = task.network.head, task.schedules
    assert (head.hidden_dim, head.bottleneck_dim, head.num_prototypes) == (2048, 256, 65536)
    assert (head.depth, head.normalise_last, task.targets.centre_momentum) == (3, True, 0.9)
    assert (task.student_temperature, schedules.teacher_temperature) == (0.1, 0.04)
    assert (schedules.momentum, schedules.end_momentum) == (0.996, 1)
    assert schedules.freeze_last_layer_epochs == 1
