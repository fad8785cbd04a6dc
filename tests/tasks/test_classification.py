"""Classification's loss and metrics against loops over examples and classes.

Letters: b examples; k classes.
"""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import NUM_CLASSES, classification, image_batch, new_state, normal

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.losses import accuracy
from vit_jax.tasks import TASKS
from vit_jax.tasks.classification import build

RNG = jax.random.key(7)


@functools.cache
def state_and_logits():
    """A state, and the logits f64[b, k] of `image_batch`, by NumPy."""
    batch = image_batch()
    state = new_state(classification(), optax.sgd(0.1), batch)
    layer = jax.tree.map(np.float64, state.params["Dense_0"])
    pixels = (np.float64(batch["image"]).reshape(16, -1) / 255 - 0.5) / 0.25
    return state, pixels @ layer["kernel"] + layer["bias"]


def loss_by_loops(logits, labels, mask, *, smoothing, kind):
    total = weight = 0.0
    for row, label, valid in zip(logits, labels, mask, strict=True):
        if not valid:
            continue
        weight += 1
        for k, logit in enumerate(row):
            target = (1 - smoothing) * (k == label) + smoothing / len(row)
            if kind == "softmax":
                total -= target * (logit - np.log(np.exp(row).sum()))
            else:
                p = 1 / (1 + np.exp(-logit))
                total -= target * np.log(p) + (1 - target) * np.log(1 - p)
    return total, weight


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_loss_equals_loops_and_smooths_only_in_training(kind, smoothing, train):
    task = classification(loss_name=kind, label_smoothing=smoothing)
    batch = image_batch(masked=(0, 5, 6))
    state, logits = state_and_logits()
    logits = logits / 4  # where the loops' naive exponentials are exact
    params = jax.tree.map(lambda p: p / 4, state.params)
    loss, aux = task.loss(params, state, batch, RNG, train=train)
    expected = loss_by_loops(
        logits, batch["label"], batch["mask"], smoothing=smoothing * train, kind=kind
    )
    np.testing.assert_allclose((loss.total, loss.weight), expected, rtol=1e-5)
    assert aux.model_state == {} and aux.carry == {}


def test_metrics_equal_loops():
    batch = image_batch(masked=(1, 2))
    state, logits = state_and_logits()
    _, aux = classification().loss(state.params, state, batch, RNG, train=False)
    for k in (1, 5):
        hits = [
            label in np.argsort(-row)[:k]
            for row, label, valid in zip(logits, batch["label"], batch["mask"], strict=True)
            if valid
        ]
        found = aux.metrics[f"top{k}"]
        assert (found.total, found.weight) == (sum(hits), 14)
        assert 0 < sum(hits) < 14


def test_masked_rows_change_neither_loss_nor_gradient():
    task, (state, _) = classification(), state_and_logits()

    @jax.jit
    def total(params, batch):
        return task.loss(params, state, batch, RNG, train=True)[0].total

    padded = image_batch(masked=(3, 8, 9))
    rows = jnp.array([3, 8, 9])
    changed = dict(
        padded,
        image=padded["image"].at[rows].set(255),
        label=padded["label"].at[rows].set(-1),  # as padding may have
    )
    left, right = (jax.value_and_grad(total)(state.params, b) for b in (padded, changed))
    assert left[0] == right[0]
    for a, b in zip(jax.tree.leaves(left[1]), jax.tree.leaves(right[1]), strict=True):
        np.testing.assert_array_equal(a, b)


def ranks_within(logits, label, k):
    logits = jnp.asarray([logits], jnp.float32)
    metrics = accuracy.top_k(logits, jnp.array([label]), jnp.array([True]))
    return bool(metrics[f"top{k}"].total)


@pytest.mark.parametrize("num_classes", [2, 5, 6, 10])
def test_top5_is_told_only_where_it_says_something(num_classes):
    metrics = accuracy.top_k(normal(4, num_classes), jnp.arange(4) % 2, jnp.ones(4, bool))
    assert set(metrics) == ({"top1", "top5"} if num_classes > 5 else {"top1"})


def test_ties_count_for_the_smallest_index_alone():
    """So a constant model scores chance, not 100 %."""
    equal = [2.0] * 7
    assert [ranks_within(equal, label, 1) for label in range(7)] == [True] + [False] * 6
    assert [ranks_within(equal, label, 5) for label in range(7)] == [True] * 5 + [False] * 2
    assert not ranks_within([1, 3, 3, 0, 0, 0], 2, 1)
    assert ranks_within([1, 3, 3, 0, 0, 0], 1, 1)


@pytest.mark.parametrize("label", range(6))
def test_a_model_of_nan_scores_nothing(label):
    assert not ranks_within([np.nan] * 6, label, 1)
    assert not ranks_within([np.nan] * 6, label, 5)
    one_bad = [0.0] * 6
    one_bad[label] = np.nan
    assert not ranks_within(one_bad, label, 5)
    if label != 1:
        assert not ranks_within([0.0, np.nan, *[0.0] * 4], label, 1)


def test_infinite_logits_are_ranked():
    assert ranks_within([0, np.inf, 0, 0, 0, -np.inf], 1, 1)
    assert not ranks_within([0, np.inf, 0, 0, 0, -np.inf], 5, 5)


@pytest.mark.parametrize(
    "mean, std", [((0.5,), (0.25,)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
)
def test_normalise_is_pixel_minus_mean_over_deviation(mean, std):
    image = image_batch()["image"]
    found = classification(mean=mean, std=std).normalise(image)
    assert found.dtype == jnp.float32
    expected = (np.float64(image) / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_normalised_extremes_are_exact_enough():
    image = jnp.array([0, 255], jnp.uint8).reshape(1, 2, 1, 1)
    found = classification(mean=(0.5,), std=(0.5,)).normalise(image)
    np.testing.assert_allclose(found.ravel(), [-1, 1], atol=1e-6)


def test_predicted_probabilities():
    (state, logits), batch = state_and_logits(), image_batch()
    softmax, sigmoid = (
        classification(loss_name=name).predict(state.variables(), batch, RNG)
        for name in ("softmax", "sigmoid")
    )
    np.testing.assert_allclose(softmax["logits"], logits, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(softmax["probabilities"].sum(-1), np.ones(16), rtol=1e-5)
    expected = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(softmax["probabilities"], expected, rtol=1e-3, atol=1e-5)
    expected = 1 / (1 + np.exp(-logits))
    np.testing.assert_allclose(sigmoid["probabilities"], expected, rtol=1e-3, atol=1e-5)


def test_dropout_is_off_in_evaluation_and_prediction():
    task, batch = classification(dict(dropout_rate=0.5)), image_batch(4)
    state = new_state(task, optax.sgd(0.1), batch)
    loss = jax.jit(
        lambda key, train: task.loss(state.params, state, batch, key, train=train)[0].total,
        static_argnums=1,
    )
    assert loss(RNG, False) == loss(jax.random.key(8), False)
    assert loss(RNG, True) != loss(jax.random.key(8), True)


# building


def info(num_classes=NUM_CLASSES, **preprocessing):
    names = tuple(f"class {i}" for i in range(num_classes))
    settings = dict(image_size=(8, 8), channels=3, mean=(0.1, 0.2, 0.3), std=(0.4,))
    return types.SimpleNamespace(
        class_names=names,
        preprocessing=Preprocessing(**settings | preprocessing),
        batch={"image": ((8, 8, 3), "uint8"), "label": ((), "int32")},
    )


MODEL = dict(width=8, depth=2, mlp_dim=16, num_heads=2, patch_size=4)


def test_built_from_a_config_and_what_the_data_says():
    task = TASKS["classification"](
        model=dict(name="vit", **MODEL), info=info(), mixing=dict(mixup_alpha=0.2), loss="sigmoid"
    )
    assert task.num_classes == task.model.num_classes == NUM_CLASSES
    assert task.mean == (0.1, 0.2, 0.3) and task.std == (0.4,)
    assert task.mixing.mixup_alpha == 0.2 and task.loss_name == "sigmoid"
    assert task == build(model=MODEL, info=info(), mixing=dict(mixup_alpha=0.2), loss="sigmoid")
    assert build(model=MODEL, info=info(), num_classes=NUM_CLASSES).num_classes == NUM_CLASSES


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(num_classes=10), r"num_classes is 10, but the data has 7 classes.*allowed: 7"),
        (dict(loss="hinge"), "loss is 'hinge'.*allowed: softmax, sigmoid"),
        (dict(mixing=dict(mixup=0.2)), r"mixing has unknown key 'mixup' \(did you mean"),
        (dict(mixing=dict(mixup_alpha=-1.0)), "mixup_alpha is -1.0; allowed: >= 0"),
        (dict(mixing=dict(probability=1.5)), "probability is 1.5; allowed: between 0 and 1"),
        (dict(model=dict(name="vot", **MODEL)), r"model.name is 'vot' \(did you mean 'vit'\?\)"),
        (dict(model=dict(MODEL, pool="mean")), "pool is 'mean'.*allowed: cls, gap, map"),
        (dict(label_smoothing=1.5), r"label_smoothing is 1.5; allowed"),
    ],
)
def test_mistakes_are_told_with_what_is_allowed(settings, message):
    with pytest.raises(InputError, match=message):
        build(**{"model": MODEL, "info": info(), **settings})


# several labels


def several(batch, labels):
    batch = {name: rows for name, rows in batch.items() if name != "label"}
    return batch | {"labels": jnp.asarray(labels, jnp.float32)}


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_one_of_several_labels_is_a_label(kind, train):
    task, batch = classification(loss_name=kind, label_smoothing=0.1), image_batch(masked=(3,))
    state, _ = state_and_logits()
    one, one_aux = task.loss(state.params, state, batch, RNG, train=train)
    rows = several(batch, np.eye(NUM_CLASSES)[batch["label"]])
    other, other_aux = task.loss(state.params, state, rows, RNG, train=train)
    assert (one.total, one.weight) == (other.total, other.weight)
    assert one_aux.metrics["top1"] == other_aux.metrics["top1"]


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_several_labels_by_loops(kind):
    labels = np.random.default_rng(0).random((16, NUM_CLASSES)) < 0.3
    labels[4] = False
    assert labels.sum(1).max() > 1
    batch = several(image_batch(masked=(0, 5)), labels)
    state, logits = state_and_logits()
    params, logits = jax.tree.map(lambda p: p / 4, state.params), logits / 4
    loss, aux = classification(loss_name=kind).loss(params, state, batch, RNG, train=False)
    total = weight = right = counted = 0.0
    for i, (row, own) in enumerate(zip(logits, labels, strict=True)):
        if i in (0, 5):
            continue
        if own.any():
            counted += 1
            right += own[np.argmax(row)]
        for k, logit in enumerate(row):
            if kind == "sigmoid":
                total -= np.log(1 / (1 + np.exp(-logit if own[k] else logit)))
            elif own[k]:
                total -= (logit - np.log(np.exp(row).sum())) / own.sum()
        weight += own.any() or kind == "sigmoid"  # no class at all is an answer to the sigmoid
    assert loss.weight == weight and loss.total == pytest.approx(total, rel=1e-5)
    assert (aux.metrics["top1"].total, aux.metrics["top1"].weight) == (right, counted)


def test_nan_is_none_of_several_labels():
    logits = jnp.array([[0.0, jnp.nan], [0.0, 1.0]])
    (found,) = accuracy.any_of(logits, jnp.ones((2, 2)), jnp.ones(2, bool)).values()
    assert (found.total, found.weight) == (1, 2)


def test_data_without_labels_is_refused():
    batch = image_batch()
    del batch["label"]
    state, _ = state_and_logits()
    with pytest.raises(InputError, match="have image, index, mask; allowed: with label"):
        classification().loss(state.params, state, batch, RNG, train=False)


@pytest.mark.parametrize(
    "row, message",
    [
        (("global_images", "label"), "have global_images, label; .* without .*multi_crop"),
        (("image", "mask"), "have image, mask; allowed: with label or labels"),
    ],
)
def test_data_that_cannot_be_classified_is_refused_at_once(row, message):
    """Before anything is traced, where it would be a KeyError."""
    odd = info()
    odd.batch = dict.fromkeys(row, ((), "int32"))
    with pytest.raises(InputError, match=message):
        build(model=MODEL, info=odd)


def test_data_without_any_class_is_refused():
    with pytest.raises(InputError, match="no classes, as no example has a label"):
        build(model=MODEL, info=info(num_classes=0))
