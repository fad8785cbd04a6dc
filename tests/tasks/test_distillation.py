"""Distillation: which part of a student learns from whom, and what both are shown."""

import dataclasses
import functools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import learner_on, mesh_of
from toys import (
    IMAGE_SHAPE,
    MIXUP,
    NUM_CLASSES,
    Linear,
    Logits,
    assert_trees_close,
    assert_trees_equal,
    classification,
    image_batch,
    new_state,
    plain_sgd,
    random_like,
)

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.tasks import TASKS
from vit_jax.tasks.distillation import Distillation, Hard, Soft
from vit_jax.tasks.randomness import MIXING, step_key
from vit_jax.tasks.teacher import Teacher, TeacherSettings
from vit_jax.train import sharding
from vit_jax.train.step import make_train_step

RNG = jax.random.key(7)
SGD = plain_sgd(0.1)
LINEAR = Teacher(model=Linear(), image_shape=IMAGE_SHAPE, mean=(0.4,), std=(0.3,))


def task_of(model=None, *, method=None, teacher=LINEAR, **settings):
    """Distillation into `Linear`, or into a tiny ViT with these settings."""
    plain = classification(model, **settings)
    fields = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    return Distillation(**fields, teacher=teacher, method=method or Soft(teacher_weight=0.5))


def state_of(task, batch, tx=SGD, seed=0):
    """Everything random, the teacher's variables too."""
    state = new_state(task, tx, batch, seed=seed)
    return state.replace(task_state=random_like(state.task_state, seed + 10))


@functools.cache
def jitted_loss(task, train):
    return jax.jit(functools.partial(task.loss, train=train))


def losses(task, state, batch, *, train=False):
    return jitted_loss(task, train)(state.params, state, batch, RNG)


@functools.cache
def jitted_gradients(task, names):
    def total(params, state, batch, name):
        loss, aux = task.loss(params, state, batch, RNG, train=True)
        return {**aux.metrics, "loss": loss}[name].total

    return jax.jit(
        lambda params, *rest: {name: jax.grad(total)(params, *rest, name) for name in names}
    )


def gradients(task, state, batch, *names):
    """{name: gradient} of the sums of these metrics, by default of the loss."""
    names = names or ("loss",)
    return jitted_gradients(task, names)(state.params, state, batch)


def logits_of(variables, batch, mean, std):
    """`Linear` by NumPy, f64[b, k]."""
    layer = jax.tree.map(np.float64, variables["params"]["Dense_0"])
    pixels = (np.float64(batch["image"]).reshape(len(batch["mask"]), -1) / 255 - mean) / std
    return pixels @ layer["kernel"] + layer["bias"]


def by_loops(student, teacher, batch, *, weight, temperature, smoothing):
    """(label loss, teacher loss, both, agreement, teacher's hits), sums over the rows that count"""
    sums = np.zeros(5)
    for q, p, label, counts in zip(student, teacher, batch["label"], batch["mask"], strict=True):
        if not counts:
            continue
        k, of_labels, of_teacher = len(q), 0.0, 0.0
        for j in range(k):
            target = (1 - smoothing) * (j == label) + smoothing / k
            of_labels -= target * (q[j] - np.log(np.exp(q).sum()))
            if temperature is None:
                of_teacher -= (j == p.argmax()) * (q[j] - np.log(np.exp(q).sum()))
                continue
            share = np.exp(p[j] / temperature) / np.exp(p / temperature).sum()
            own = np.exp(q[j] / temperature) / np.exp(q / temperature).sum()
            of_teacher += temperature**2 * share * np.log(share / own)
        both = (1 - weight) * of_labels + weight * of_teacher
        hits = q.argmax() == p.argmax(), p.argmax() == label
        sums += of_labels, of_teacher, both, *hits
    return sums


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize(
    "method", [Soft(), Soft(teacher_weight=1.0, temperature=1.0), Hard(), Hard(teacher_weight=0.2)]
)
def test_loss_and_metrics_by_loops(method, train):
    task, batch = task_of(method=method, label_smoothing=0.1), image_batch(masked=(0, 5, 6))
    state = state_of(task, batch)
    # A quarter, where the loops' naive exponentials are exact.
    small = lambda tree: jax.tree.map(lambda x: x / 4, tree)  # noqa: E731
    state = state.replace(params=small(state.params), task_state=small(state.task_state))
    loss, aux = losses(task, state, batch, train=train)
    expected = by_loops(
        logits_of(state.variables(), batch, 0.5, 0.25),
        logits_of(state.task_state["teacher"], batch, 0.4, 0.3),
        batch,
        weight=method.teacher_weight,
        temperature=getattr(method, "temperature", None),
        smoothing=0.1 * train,
    )
    names = ("label_loss", "teacher_loss", "loss", "agreement", "teacher_top1")
    for name, total in zip(names, expected, strict=True):
        found = {**aux.metrics, "loss": loss}[name]
        np.testing.assert_allclose(
            (found.total, found.weight), (total, 13), rtol=1e-5, err_msg=name
        )
    assert {"top1", "top5"} <= aux.metrics.keys()


def test_masked_rows_change_nothing():
    task, padded = task_of(), image_batch(masked=(3, 8, 9))
    state, rows = state_of(task, padded), jnp.array([3, 8, 9])
    changed = padded | {
        "image": padded["image"].at[rows].set(255),
        "label": padded["label"].at[rows].set(-1),  # as padding may have
    }
    assert_trees_equal(*(losses(task, state, batch, train=True) for batch in (padded, changed)))
    assert_trees_equal(*(gradients(task, state, batch) for batch in (padded, changed)))


@pytest.mark.parametrize("method", [Soft, Hard])
def test_without_weight_for_the_teacher_it_is_classification(method):
    """To the bit: (1 - 0) a + 0 b is a."""
    plain, batch = classification(label_smoothing=0.1), image_batch(masked=(2,))
    task = task_of(method=method(teacher_weight=0.0), label_smoothing=0.1)
    state = state_of(task, batch)
    (loss, aux), (expected, expected_aux) = (
        losses(t, state, batch, train=True) for t in (task, plain)
    )
    assert_trees_equal(loss, expected)
    assert_trees_equal({name: aux.metrics[name] for name in ("top1", "top5")}, expected_aux.metrics)
    assert_trees_equal(gradients(task, state, batch), gradients(plain, state, batch))


def test_a_student_that_is_its_teacher_has_nothing_to_learn():
    teacher = dataclasses.replace(LINEAR, mean=(0.5,), std=(0.25,))
    task, batch = task_of(teacher=teacher, method=Soft(teacher_weight=1.0)), image_batch()
    state = state_of(task, batch)
    state = state.replace(task_state={"teacher": {"params": state.params}})
    loss, aux = losses(task, state, batch)
    # float32 of logits around 20; the gradient at random labels is a thousand times as large.
    np.testing.assert_allclose(loss.compute(), 0, atol=1e-5)
    assert aux.metrics["agreement"].compute() == 1
    assert size(gradients(task, state, batch)) < 1e-3


def test_the_student_comes_to_agree_and_the_teacher_stays_as_it_is():
    """Within forty steps, on labels that are noise: all that can be learned is the teacher."""
    task, batch = task_of(method=Soft(teacher_weight=1.0)), image_batch(32)
    first = state_of(task, batch)
    state, step, seen = first, jax.jit(make_train_step(task, SGD)), []
    for _ in range(40):
        state, metrics = step(state, batch)
        seen.append(float(metrics["agreement"].compute()))
    assert seen[0] < 0.5 and seen[-1] > 0.9
    assert_trees_equal(state.task_state, first.task_state)


# who learns from whom


TOKEN = dict(pool="cls", distillation_token=True)
TERMS, HEADS = ("label_loss", "teacher_loss"), ("head", "distillation_head")


def size(tree):
    return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


def test_each_head_learns_from_its_own_alone():
    task, batch = task_of(TOKEN, method=Hard()), image_batch(4)
    found = gradients(task, state_of(task, batch), batch, *TERMS)
    for term, own, other in zip(TERMS, HEADS, reversed(HEADS), strict=True):
        assert size(found[term][own]) > 1e-3 and size(found[term][other]) == 0
        assert size(found[term]["patch_embedding"]) > 1e-3


def test_without_the_token_one_head_learns_both():
    task, batch = task_of({}), image_batch(4)
    found = gradients(task, state_of(task, batch), batch, *TERMS)
    assert min(size(found[term]["head"]) for term in TERMS) > 1e-3


def test_the_teacher_gets_no_gradient():
    task, batch = task_of(), image_batch()
    state = state_of(task, batch)

    def total(task_state):
        seen = state.replace(task_state=task_state)
        return task.loss(state.params, seen, batch, RNG, train=True)[0].total

    assert size(jax.grad(total)(state.task_state)) == 0


# what both are shown

SHOWN: list[tuple[str, np.ndarray]] = []


class Recording(nn.Module):
    """A classifier by the first pixels, that keeps what it was shown."""

    name_of: str

    @nn.compact
    def __call__(self, image, *, train=False):
        if not isinstance(image, jax.core.Tracer):
            SHOWN.append((self.name_of, np.asarray(image)))
        gain = self.param("gain", nn.initializers.ones, ())
        pixels = image.reshape(len(image), -1)
        return Logits(gain * pixels[:, :NUM_CLASSES], pixels)


def shown(task, batch, *, train):
    """(the student's, the teacher's images) of one call."""
    state = new_state(task, SGD, batch)
    state = state.replace(task_state={"teacher": {"params": {"gain": jnp.ones(())}}})
    SHOWN.clear()
    task.loss(state.params, state, batch, RNG, train=train)
    found = dict(SHOWN)
    assert len(SHOWN) == 2 and found.keys() == {"student", "teacher"}
    return state, found["student"], found["teacher"]


@pytest.mark.parametrize("train", [True, False])
def test_teacher_and_student_see_the_same_mixed_pixels(train):
    """Each normalised in its own way, three channels unlike each other."""
    means, stds = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    teacher = Teacher(model=Recording("teacher"), image_shape=IMAGE_SHAPE, mean=means, std=stds)
    task = dataclasses.replace(task_of(teacher=teacher, mixing=MIXUP), model=Recording("student"))
    batch = image_batch(4)
    state, student, teacher = shown(task, batch, train=train)
    pixels = batch["image"]
    if train:
        key, target = step_key(state, MIXING), jnp.zeros((4, NUM_CLASSES))
        pixels, _ = task.mixing(key, pixels, target, batch["mask"])
        assert np.abs(pixels - batch["image"]).max() > 10  # of 255: it was mixed
    # float32 of numbers up to three.
    np.testing.assert_allclose(student, (pixels / 255 - 0.5) / 0.25, atol=1e-5)
    expected = (pixels / 255 - np.array(means)) / np.array(stds)
    np.testing.assert_allclose(teacher, expected, atol=1e-5)


def test_a_teacher_of_another_size_and_of_three_channels_sees_the_same_crop():
    """Each pixel of a grey image becomes four of each channel, but for bilinear edges."""
    teacher = Teacher(
        model=Recording("teacher"), image_shape=(16, 16, 3), mean=(0.5, 0.4, 0.3), std=(0.5,)
    )
    task = dataclasses.replace(task_of(teacher=teacher), model=Recording("student"))
    grey = jnp.tile(jnp.arange(8, dtype=jnp.uint8)[None, :, None, None] * 30, (4, 1, 8, 1))
    batch = image_batch(4, shape=(8, 8, 1)) | {"image": grey}
    _, student, seen = shown(task, batch, train=True)
    assert student.shape == (4, 8, 8, 1) and seen.shape == (4, 16, 16, 3)
    # Halfway between pixels' centres: rows at 0 (cut), 7.5, 22.5, ... of the ramp.
    ramp = np.clip((np.arange(16) - 0.5) * 15, 0, 210) / 255
    for channel, mean in enumerate((0.5, 0.4, 0.3)):
        row = seen[0, :, 3, channel]
        np.testing.assert_allclose(row, (ramp - mean) / 0.5, atol=1e-5)


# microbatches and devices


def test_microbatches_equal_the_full_batch():
    task, batch = task_of(mixing=MIXUP), image_batch(16, masked=(0, 8, 1, 5))
    state = state_of(task, batch)
    steps = (jax.jit(make_train_step(task, SGD, accum_steps=k)) for k in (1, 4))
    (whole, whole_metrics), (parts, parts_metrics) = (step(state, batch) for step in steps)
    # Gradients of order one, summed in another order.
    assert_trees_close(parts.params, whole.params, rtol=0, atol=1e-6)
    assert_trees_close(parts_metrics, whole_metrics, rtol=1e-5, atol=1e-5)


def test_eight_devices_equal_one(monkeypatch):
    """The teacher's arrays are split like the student's."""
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)
    task, found = task_of(mixing=MIXUP), {}
    for name, mesh in {"one": mesh_of(), "eight": mesh_of(data=2, fsdp=4)}.items():
        learner = dataclasses.replace(learner_on(mesh, tx=SGD), task=task)
        places = jax.tree.map(lambda x: x.sharding, learner.abstract_state())
        state = jax.device_put(state_of(task, image_batch(1)), places)
        kernel = state.task_state["teacher"]["params"]["Dense_0"]["kernel"]
        assert kernel.sharding.is_fully_replicated == (name == "one")
        (batch,) = sharding.to_devices([image_batch(16, masked=(1, 2, 11))], mesh)
        after, metrics = learner.step_fn()(state, batch)
        found[name] = jax.device_get((after.params, after.task_state, metrics))
    (params, teacher, metrics), expected = found["eight"], found["one"]
    assert_trees_close(metrics, expected[2], rtol=1e-5, atol=1e-5)
    # The update is a tenth of the gradient, which is of order one and summed in another order.
    assert_trees_close(params, expected[0], rtol=0, atol=1e-6)
    assert_trees_equal(teacher, expected[1])


# building

MODEL = dict(width=8, depth=2, mlp_dim=16, num_heads=2, patch_size=4)
NAMES = tuple(f"class {i}" for i in range(NUM_CLASSES))
COMPLETE = dict(
    source="runs/a",
    model=dict(name="mixer", num_classes=NUM_CLASSES, size="S", patch_size=4),
    image_size=(8, 8),
    channels=3,
    mean=(0.5,),
    std=(0.5,),
    interpolation="bilinear",
    class_names=NAMES,
)
INFO = types.SimpleNamespace(
    class_names=NAMES,
    preprocessing=Preprocessing(image_size=(8, 8), channels=3),
    batch={"image": ((8, 8, 3), "uint8"), "label": ((), "int32")},
)


def built(*, teacher=None, info=INFO, **settings):
    known = {**COMPLETE, **(teacher or {})}
    return TASKS["distillation"](model=MODEL, teacher=known, info=info, **settings)


def test_built_from_a_config():
    task = built(label_smoothing=0.1, mixing=dict(mixup_alpha=0.8))
    assert task.method == Soft(teacher_weight=0.1, temperature=3.0)  # DeiT, section 5.1
    assert built(method="hard").method == Hard(teacher_weight=0.5)  # equation 3
    assert task.teacher.image_shape == (8, 8, 3) and task.teacher.model.num_classes == NUM_CLASSES
    assert task.label_smoothing == 0.1 and task.mixing.mixup_alpha == 0.8
    assert not any(np.isfinite(x).any() for x in jax.tree.leaves(task.init_task_state({})))


@pytest.mark.parametrize("names", [None, NAMES, [*NAMES]])
def test_a_teacher_that_states_no_names_has_the_datas(names):
    assert built(teacher=dict(class_names=names)).teacher == built().teacher


def test_other_names_of_the_same_classes_may_be_allowed():
    teacher = dict(class_names=[*reversed(NAMES)], same_classes=True)
    assert built(teacher=teacher).teacher == built().teacher


def resized(number):
    return dict(model={**COMPLETE["model"], "num_classes": number}, class_names=None)


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(method="medium"), "config.task.method is 'medium'; allowed: soft, hard"),
        (dict(method="hard", temperature=2.0), "temperature is 2.0, but method 'hard' has no such"),
        (dict(temperature=0.0), "config.task.temperature is 0.0; allowed: more than 0"),
        (dict(teacher_weight=1.5), "config.task.teacher_weight is 1.5; allowed: 0 to 1"),
        (dict(teacher=dict(sauce=1)), r"teacher has unknown key 'sauce' \(did you mean 'source'"),
        (dict(teacher=dict(mean=None)), "config.task.teacher lacks mean; allowed: a section that"),
        (
            dict(teacher=resized(0)),
            "'runs/a', a model without a head; allowed: one with a head for",
        ),
        (dict(teacher=resized(5)), "'runs/a' with 5 classes, but the data has 7 .class 0, .*same"),
        (
            dict(teacher=dict(class_names=[*reversed(NAMES)])),
            r"with 7 classes \(class 6, .*but the data has 7 \(class 0.*same_classes=True where",
        ),
        (dict(teacher=dict(channels=1)), "of 1 channels, but the data's have 3; allowed: as many"),
        (dict(teacher=dict(std=(0.5, 0.5))), "std is .0.5, 0.5.; allowed: one number, or one for"),
        (dict(teacher=dict(interpolation="area")), "is 'area'; allowed: bilinear, bicubic"),
        (dict(label_smoothing=1.0), "label_smoothing is 1.0; allowed"),
    ],
    ids=str,
)
def test_mistakes_are_told_with_what_is_allowed(settings, message):
    with pytest.raises(InputError, match=message) as told:
        built(**settings)
    assert len(str(told.value).splitlines()) == 1


def test_every_setting_of_a_teacher_is_told():
    fields = {field.name for field in dataclasses.fields(TeacherSettings)}
    told = TeacherSettings.__doc__.split("Attributes:")[1]
    assert not {name for name in fields if name not in told}
