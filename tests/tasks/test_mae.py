"""Masked autoencoding as a task: masks, loss, weights of rows, what it predicts and refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_mae
import pytest
from learners import mesh_of, optimised
from toys import assert_trees_close, image_batch, new_state, plain_sgd

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.tasks import TASKS
from vit_jax.train import optimizer, sharding
from vit_jax.train.optimizer import Optimizer
from vit_jax.train.step import make_train_step

SHAPE = (4, 8, 3)
MODEL = dict(patch_size=2, width=8, depth=1, mlp_dim=16, num_heads=2, activation="gelu")
DECODER = dict(width=8, depth=1, num_heads=2, mlp_dim=16)
RNG = jax.random.key(5)


def info_of(shape=SHAPE, without=()):
    rows = {name: x for name, x in image_batch(1, shape=shape).items() if name not in without}
    return Info(
        class_names=(),
        preprocessing=Preprocessing(
            image_size=shape[:2], channels=shape[2], mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4)
        ),
        num_examples=100,
        num_steps=10,
        batch={name: (x.shape[1:], str(x.dtype)) for name, x in rows.items()},
    )


@functools.cache
def info():
    return info_of()


def build(model=(), **settings):
    settings = {"decoder": DECODER, **settings}
    return TASKS["mae"](model={**MODEL, **dict(model)}, info=info(), **settings)


@functools.cache
def start(normalise=True):
    """A task, and a state whose parameters are all random."""
    task = build(normalise_targets=normalise)
    return task, new_state(task, plain_sgd(), image_batch(2, shape=SHAPE))


@functools.cache
def loss_of(task, train=False):
    @jax.jit
    def loss(state, batch):
        return task.loss(state.params, state, batch, RNG, train=train)

    return loss


MEAN, STD = np.float64([0.4, 0.5, 0.6]), np.float64([0.2, 0.3, 0.4])


def by_loops(params, picture, masked, normalise):
    """(loss, painted image) of one uint8 image and one bool a patch, with pixels from 0 to 1."""
    image = (np.float64(picture) / 255 - MEAN) / STD
    settings = dict(patch=(2, 2), num_visible=2, heads=2, decoder_heads=2)
    # Among what is masked, and what is not, order does not matter.
    prediction, again = numpy_mae.predict(params, image, np.float64(masked), **settings)
    np.testing.assert_array_equal(masked, again)
    loss = numpy_mae.loss(prediction, image, masked, patch=(2, 2), normalise=normalise)
    painted = []
    for j, own in enumerate(numpy_mae.cut(image, (2, 2))):
        if masked[j]:
            deviation = np.sqrt(own.var(ddof=1) + 1e-6)
            own = prediction[j] * deviation + own.mean() if normalise else prediction[j]
        painted.append(own * np.tile(STD, 4) + np.tile(MEAN, 4))
    return loss, np.stack(painted)


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_and_prediction_equal_loops(normalise):
    """The masks of the loss in evaluation are those of the prediction."""
    task, state = start(normalise)
    batch = image_batch(4, shape=SHAPE, masked=(2,))
    loss, aux = loss_of(task)(state, batch)
    outputs = jax.device_get(jax.jit(task.predict)(state.variables(), batch, state.rng))
    params, losses, errors = jax.tree.map(np.float64, state.params), [], []
    for i in np.flatnonzero(batch["mask"]):
        patches = numpy_mae.cut(outputs["masked"][i][..., None], (2, 2))
        masked = np.array([patch.all() for patch in patches])
        assert masked.sum() == 6 and len(masked) == 8
        expected, painted = by_loops(params, batch["image"][i], masked, normalise)
        losses.append(expected)
        found = numpy_mae.cut(outputs["reconstruction"][i], (2, 2))
        np.testing.assert_allclose(found, painted, atol=2e-5)
        true = np.stack(numpy_mae.cut(np.float64(batch["image"][i]) / 255, (2, 2)))
        errors.append(np.square(painted - true)[masked].mean())
    assert loss.weight == 3
    np.testing.assert_allclose(loss.compute(), np.mean(losses), rtol=1e-5)
    np.testing.assert_allclose(aux.metrics["pixel_mse"].compute(), np.mean(errors), rtol=1e-5)


def test_masks_change_with_step_and_example_and_not_in_evaluation():
    task, state = start()
    batch = image_batch(4, shape=SHAPE)
    later = state.replace(step=state.step + 1)
    of_step = [loss_of(task, train=True)(s, batch)[0].total for s in (state, later)]
    assert of_step[0] != of_step[1]
    evaluated = [loss_of(task)(s, batch)[0].total for s in (state, later)]
    assert evaluated[0] == evaluated[1]
    masked = jax.jit(task.predict)(state.variables(), batch, state.rng)["masked"]
    assert len({row.tobytes() for row in np.asarray(masked)}) > 1


def test_rows_that_are_masked_have_no_influence():
    task, state = start()
    step = jax.jit(make_train_step(task, plain_sgd()))
    batch = image_batch(4, shape=SHAPE, masked=(1, 3))
    other = {**batch, "image": batch["image"].at[jnp.array([1, 3])].set(0)}
    (one, metrics), (two, _) = step(state, batch), step(state, other)
    assert_trees_close(one.params, two.params, rtol=0, atol=0)
    assert metrics["loss"].weight == metrics["pixel_mse"].weight == 2


def test_microbatches_equal_the_batch():
    task, state = start()
    batch = image_batch(8, shape=SHAPE, masked=(0, 4, 5))
    whole, expected = whole_step()(state, batch)
    parts, found = jax.jit(make_train_step(task, plain_sgd(), accum_steps=4))(state, batch)
    np.testing.assert_allclose(found["loss"].compute(), expected["loss"].compute(), rtol=1e-5)
    assert_trees_close(parts.params, whole.params, rtol=1e-4, atol=1e-5)


@functools.cache
def whole_step():
    return jax.jit(make_train_step(start()[0], plain_sgd()))


def test_eight_devices_equal_one(monkeypatch):
    """Gradients, read off the parameters after a step of plain gradient descent."""
    monkeypatch.setattr(sharding, "SMALLEST_SPLIT", 1)
    task, state = start()
    batch = image_batch(8, shape=SHAPE, masked=(0, 5))
    whole, expected = whole_step()(state, batch)
    learner = Learner(
        info=info(),
        mesh=mesh_of(data=2, fsdp=4),
        task=task,
        optimizer=Optimizer(plain_sgd(), lambda step: 1.0),
        settings=TrainSettings(num_steps=10),
    )
    places = jax.tree.map(lambda x: x.sharding, learner.abstract_state())
    (spread,) = sharding.to_devices([jax.device_get(batch)], learner.mesh)
    # Copied, since the step takes over what it is given.
    found, metrics = learner.step_fn()(
        jax.device_put(jax.tree.map(jnp.copy, state), places), spread
    )
    np.testing.assert_allclose(metrics["loss"].compute(), expected["loss"].compute(), rtol=1e-5)
    assert_trees_close(
        jax.device_get(found.params), jax.device_get(whole.params), rtol=1e-4, atol=1e-5
    )


def test_positions_stay_where_the_learning_rate_is_zero():
    rules = ((".*position_embedding", 0.0), (".*", 1.0))
    built = optimizer.build(num_steps=2, learning_rate=0.1, rate_patterns=rules)
    task, state = start()
    state = state.replace(opt_state=built.transform.init(state.params))
    new, _ = jax.jit(make_train_step(task, built.transform))(state, image_batch(2, shape=SHAPE))
    for part in ("backbone", "decoder"):
        (before, after) = (s.params[part] for s in (state, new))
        np.testing.assert_array_equal(after["position_embedding"], before["position_embedding"])
    assert (new.params["decoder"]["mask_token"] != state.params["decoder"]["mask_token"]).any()


def test_an_evaluation_of_representations_does_not_pay_for_the_decoder():
    task, state = start()
    batch = image_batch(2, shape=SHAPE)

    def flops(outputs):
        with optimised():
            compiled = jax.jit(outputs).lower(state.variables(), batch).compile()
        return compiled.cost_analysis()["flops"]

    def representation(variables, batch):
        return task.predict(variables, batch, RNG)["representation"]

    def encoder(variables, batch):
        params = {"params": variables["params"]["backbone"]}
        return task.model.apply(params, task.normalise(batch["image"])).representation

    everything = flops(lambda variables, batch: task.predict(variables, batch, RNG))
    assert flops(representation) == flops(encoder) < 0.6 * everything


def test_in_bfloat16_with_rematerialisation_the_loss_is_near_and_float32():
    batch = image_batch(4, shape=SHAPE)
    task, state = start()
    other = build(dict(dtype="bfloat16", remat="full"))
    expected, (found, aux) = loss_of(task)(state, batch)[0], loss_of(other)(state, batch)
    assert found.total.dtype == aux.metrics["pixel_mse"].total.dtype == jnp.float32
    # bfloat16 has 8 bits, and the difference to the target is squared.
    np.testing.assert_allclose(found.compute(), expected.compute(), rtol=0.05)


REFUSED = [
    (dict(model=dict(name="mixer")), "name is 'mixer'; allowed for mae: vit"),
    (dict(model=dict(stem="resnet50")), "stem"),
    (dict(model=dict(position_embedding="relative")), "'relative'; allowed for mae.*'rope'"),
    (dict(model=dict(pool="map")), "pool is 'map'; allowed for mae.*'cls_gap'"),
    (dict(model=dict(final_norm="pooled")), "final_norm is 'pooled'; allowed for mae.*'tokens'"),
    (dict(model=dict(representation_dim=8)), "representation_dim is 8"),
    (dict(model=dict(mask_token=True)), "mask_token is True"),
    (dict(model=dict(patch_size=3)), "multiples of it"),
    (dict(model=dict(num_classes=10)), "num_classes is 10; allowed: no such key"),
    (dict(decoder=dict(width=10)), "width=10"),
    (dict(decoder=dict(dept=1)), "did you mean 'depth'"),
    (dict(mask_ratio=0.0), "leaves 8 of 8"),
    (dict(mask_ratio=0.9), "leaves 0 of 8"),
    (dict(mask_ratio=1.5), "mask_ratio is 1.5"),
]


@pytest.mark.parametrize(("settings", "message"), REFUSED, ids=str)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        build(**settings)


def test_batches_of_several_crops_are_refused():
    with pytest.raises(InputError, match="with image, so without config.data.augment.multi_crop"):
        TASKS["mae"](model=MODEL, info=info_of(without=("image",)))


@pytest.mark.parametrize(("ratio", "visible"), [(0.75, 49), (0.9, 19), (0.5, 98)])
def test_as_many_patches_are_visible_as_in_the_public_code(ratio, visible):
    """int(196 · (1 - ratio))."""
    task = TASKS["mae"](
        model={**MODEL, "patch_size": 16}, info=info_of((224, 224, 3)), mask_ratio=ratio
    )
    assert task.num_visible == visible
    assert (task.network.decoder.width, task.network.decoder.depth) == (512, 8)
    assert task.network.decoder.block.num_heads == 16
    assert task.network.decoder.block.mlp_dim == 2048
