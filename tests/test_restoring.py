"""Published weights as a model to be measured: the numbers of `weights.load`, head or none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from learners import mesh_of
from pretrained import CLASSES, SIZE, preprocessing, vit
from toys import empty_state

from vit_jax import evaluators, restoring, weights
from vit_jax.data.pipeline import EvalSettings, Origin
from vit_jax.errors import InputError
from vit_jax.evaluation.protocol import Request
from vit_jax.train.agreement import Votes

NUM_IMAGES = 19


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """An .npz of noise with labels of five classes."""
    path, rng = tmp_path_factory.mktemp("data") / "noise.npz", np.random.default_rng(0)
    images = rng.integers(0, 256, (NUM_IMAGES, *SIZE, 3), np.uint8)
    labels = np.arange(NUM_IMAGES) % len(CLASSES)
    np.savez(path, test_images=images, test_labels=labels)
    return path, images, labels


def saved(folder, **settings):
    model, variables = vit(**settings)
    names = CLASSES if settings.get("num_classes", 1) else ()
    weights.save(
        folder / "a.npz",
        model,
        variables,
        preprocessing=preprocessing(),
        class_names=names,
        layout="big_vision",
    )
    return folder / "a.npz"


def builder(restored, data, **settings):
    origin = Origin(source=f"npz:{data[0]}", labels={"name": "order"})
    splits = restoring.splits(restored, origin=origin, **settings)
    return evaluators.Builder(restored.learner, splits, Votes(), batch_size=8)


def outputs_of(found, images):
    mean, std = np.asarray(found.preprocessing.mean), np.asarray(found.preprocessing.std)
    normalised = ((images / 255 - mean) / std).astype(np.float32)
    return jax.jit(found.model.apply)(found.variables, jnp.asarray(normalised))


def test_weights_are_measured_as_they_are(data, tmp_path):
    path = saved(tmp_path)
    restored = restoring.load(path, mesh=mesh_of(8))
    assert restored.origin is None and restored.training_split is None
    assert restored.learner.info.class_names == weights.load(path).class_names
    expected = outputs_of(weights.load(path), data[1])
    one = builder(restored, data)
    request = Request(settings=EvalSettings(split="test"))
    one.passes.expect(request, ("logits", "representation"))
    found = one.passes.outputs(restored.state, request, stop_requested=lambda: False)
    for name in ("logits", "representation"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4
        )
    metrics = one.build("test", {"split": "test"}).run(restored.state)
    logits = np.asarray(expected.logits, np.float64)
    assert metrics["test/top1"] == pytest.approx((logits.argmax(1) == data[2]).mean())
    assert metrics["test/examples"] == NUM_IMAGES


def test_weights_without_a_head_are_a_representation(data, tmp_path):
    path = saved(tmp_path, num_classes=0)
    restored = restoring.load(path, mesh=mesh_of(1))
    assert restored.learner.info.class_names == () and restored.vit.num_classes == 0
    origin = Origin(source=f"npz:{data[0]}")
    found = restoring.represent(restored, origin=origin, split="test", batch_size=8)
    expected = outputs_of(weights.load(path), data[1]).representation
    np.testing.assert_allclose(found.representation, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(found.label, data[2])
    splits = restoring.splits(restored, origin=origin)
    one = evaluators.Builder(restored.learner, splits, Votes(), batch_size=8)
    with pytest.raises(InputError, match="the task reads logits, but this model"):
        one.build("test", {"split": "test"})


def test_settings_of_the_loading_are_passed_on(tmp_path):
    restored = restoring.load(saved(tmp_path), image_size=(16, 8), mesh=mesh_of(1))
    assert restored.grid == (4, 2)
    assert restored.learner.info.preprocessing.image_size == (16, 8)


def test_the_training_split_belongs_to_its_origin(tmp_path):
    restored = restoring.load(saved(tmp_path), mesh=mesh_of(1))
    origin = Origin(source="digits")
    assert restoring.splits(restored, origin=origin).training_split is None
    given = restoring.splits(restored, origin=origin, training_split="train[:9]")
    assert (given.origin, given.training_split) == (origin, "train[:9]")
    with pytest.raises(InputError, match="has no source, and the model brings none"):
        restoring.splits(restored).open(EvalSettings(split="test"), batch_size=8)


def test_no_optimizer_is_carried_along(tmp_path):
    state = restoring.load(saved(tmp_path), mesh=mesh_of(1)).state
    assert state.opt_state == empty_state().opt_state and int(state.step) == 0
