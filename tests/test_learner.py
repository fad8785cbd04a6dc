"""What is trained, put together: shapes before arrays, and averages exactly where asked for."""

import dataclasses

import jax
import numpy as np
import pytest
from toys import IMAGE_SHAPE, NUM_CLASSES, TINY, classification

from vit_jax import models
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.mixing import Mixing
from vit_jax.errors import InputError
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.train import optimizer, sharding

INFO = Info(
    class_names=tuple("abcdefg"),
    preprocessing=Preprocessing(image_size=IMAGE_SHAPE[:2], channels=3),
    num_examples=100,
    num_steps=4,
    batch={
        "image": (IMAGE_SHAPE, "uint8"),
        "label": ((), "int32"),
        "mask": ((), "bool"),
        "index": ((), "int32"),
    },
)


def learner(**settings):
    return Learner(
        info=INFO,
        mesh=sharding.make_mesh(),
        task=classification(),
        optimizer=optimizer.build(num_steps=4, learning_rate=0.1),
        settings=TrainSettings(num_steps=4, **settings),
    )


def test_info_survives_json():
    assert Info.from_dict(INFO.to_dict()) == INFO


def test_earlier_cards_tell_the_batch_size_in_their_config():
    card = {**INFO.to_dict(), "config": {"data": {"batch_size": 48}}}
    del card["batch_size"]
    assert Info.from_dict(card).batch_size == 48


def test_empty_batches_have_the_datas_shapes_and_count_nothing():
    batch = INFO.empty_batch(3)
    assert batch["image"].shape == (3, *IMAGE_SHAPE) and batch["image"].dtype == np.uint8
    assert not batch["mask"].any() and batch["label"].shape == (3,)


@pytest.mark.parametrize("decay", [None, 0.0, 0.9])
def test_weights_are_averaged_wherever_a_decay_is_set(decay):
    """The step averages for any number, so zero needs its place in the state, too."""
    built = learner(ema_decay=decay)
    state = built.abstract_state()
    assert (state.ema_params is None) == (decay is None)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), INFO.empty_batch(8))
    after, metrics = jax.eval_shape(built.step_fn(), state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert "loss" in metrics


def test_state_is_made_in_the_shapes_and_places_that_were_announced():
    built = learner(ema_decay=0.9)
    expected = built.abstract_state()
    state = built.init_state()
    for leaf, shape in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        assert (leaf.shape, leaf.dtype) == (shape.shape, shape.dtype)
        assert leaf.sharding.is_equivalent_to(shape.sharding, leaf.ndim)
    assert state.params["Dense_0"]["kernel"].shape[-1] == NUM_CLASSES
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(state.ema_params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_same_seed_makes_the_same_state_and_another_another():
    first, again, other = (learner(seed=seed).init_state() for seed in (0, 0, 1))
    kernel = lambda state: np.asarray(state.params["Dense_0"]["kernel"])  # noqa: E731
    np.testing.assert_array_equal(kernel(first), kernel(again))
    assert not np.allclose(kernel(first), kernel(other))
    assert not np.array_equal(jax.random.key_data(first.rng), jax.random.key_data(other.rng))


@pytest.mark.parametrize("size, rounded", [(1, 8), (8, 8), (9, 16), (64, 64)])
def test_evaluation_batches_are_rounded_up_to_the_devices(size, rounded):
    assert learner().round_up(size) == rounded


@pytest.mark.parametrize("count, batch_size", [(3, 8), (8, 8), (11, 8), (5, 1)])
def test_probabilities_come_for_every_image_in_order(count, batch_size):
    built = learner()
    state = built.init_state()
    rng = np.random.default_rng(0)
    images = [(i, rng.integers(0, 256, IMAGE_SHAPE, dtype=np.uint8)) for i in range(count)]
    found = list(built.probabilities(state, images, batch_size))
    assert [key for key, _, _ in found] == list(range(count))
    layer = jax.tree.map(np.float64, state.params["Dense_0"])
    for (_, image, probabilities), (_, expected) in zip(found, images, strict=True):
        np.testing.assert_array_equal(image, expected)
        logits = ((image.ravel() / 255 - 0.5) / 0.25) @ layer["kernel"] + layer["bias"]
        shares = np.exp(logits - logits.max())
        np.testing.assert_allclose(probabilities, shares / shares.sum(), rtol=1e-3, atol=1e-5)


def test_training_costs_three_forward_passes():
    assert learner().flops_per_example() == 3 * 2 * np.prod(IMAGE_SHAPE) * NUM_CLASSES


TINY_VIT = dict(TINY, pool="map", drop_path_rate=0.1)


@pytest.mark.parametrize(
    "model",
    [
        models.build("vit", num_classes=NUM_CLASSES, **TINY_VIT),
        models.build("vit", num_classes=NUM_CLASSES, **TINY_VIT, remat="full"),
        models.build("resnet", num_classes=NUM_CLASSES, stages=(1,)),
        models.build(
            "mixer",
            num_classes=NUM_CLASSES,
            width=8,
            depth=2,
            patch_size=4,
            token_mlp_dim=4,
            channel_mlp_dim=16,
        ),
    ],
    ids=["vit", "remat", "resnet", "mixer"],
)
def test_a_classifications_step_is_three_times_its_prediction(model):
    """To the unit: its loss has no product of its own, and recomputing does not count."""
    task = dataclasses.replace(classification(mixing=Mixing(mixup_alpha=0.5)), model=model)
    found = dataclasses.replace(learner(), task=task)
    prediction = found.flops_of_prediction()
    assert (found.forward_flops_per_example(), found.flops_per_example()) == (
        prediction,
        3 * prediction,
    )


@pytest.mark.parametrize(
    "settings, steps",
    [(dict(num_steps=7), 7), (dict(num_epochs=2), 25), (dict(num_epochs=0.001), 1)],
)
def test_length_is_given_in_steps_or_epochs(settings, steps):
    assert TrainSettings(**settings).steps(num_examples=100, batch_size=8) == steps


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(), "num_steps=None and num_epochs=None; allowed: exactly one"),
        (dict(num_steps=1, num_epochs=1), "num_steps=1 and num_epochs=1; allowed: exactly one"),
        (dict(num_steps=0), "num_steps is 0; allowed: 1 or more"),
        (dict(num_epochs=-1.0), "num_epochs is -1.0; allowed: more than 0"),
        (dict(num_steps=1, accum_steps=0), "accum_steps is 0"),
        (dict(num_steps=1, log_every=0), "log_every is 0"),
        (dict(num_steps=1, keep_last=0), "keep_last is 0"),
        (dict(num_steps=1, ema_decay=1.5), "ema_decay is 1.5; allowed: 0 or more, less than 1"),
        (dict(num_steps=1, ema_decay=-0.1), "ema_decay is -0.1; allowed: 0 or more, less"),
        (dict(num_steps=1, checkpoint_every=-5), "checkpoint_every is -5; allowed: 0 or more"),
    ],
)
def test_settings_out_of_range_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        TrainSettings(**settings)
