"""Every example is scored exactly once, whatever the batch size and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import IMAGE_SHAPE, NUM_CLASSES, classification, image_batch, new_state

from vit_jax.data.examples import Source
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.pipeline import EvalData
from vit_jax.errors import InputError
from vit_jax.evaluation.runner import Evaluator
from vit_jax.train import sharding

TASK = classification()
MEAN, STD = 0.5, 0.25


class Noise(Source):
    name = "noise"
    class_names = tuple("abcdefg")

    def __init__(self, size):
        batch = image_batch(size, seed=3)
        self.images, self.labels = np.asarray(batch["image"]), np.asarray(batch["label"])

    def __len__(self):
        return len(self.labels)

    def read(self, i):
        return {"image": self.images[i], "label": int(self.labels[i])}


def evaluator(source, batch_size, **settings):
    data = EvalData(
        source=source,
        preprocessing=Preprocessing(image_size=IMAGE_SHAPE[:2], channels=3),
        batch_size=batch_size,
        num_threads=1,
        prefetch=1,
    )
    mesh = sharding.make_mesh()
    return Evaluator(
        **dict(name="test", task=TASK, num_examples=len(source)) | settings,
        batches=lambda: sharding.to_devices(data, mesh),
    )


def state_of(**changed):
    state = new_state(TASK, optax.sgd(0.1), image_batch(8))
    # Everywhere, so that its devices are those of the batches.
    state = jax.device_put(state, sharding.replicated(sharding.make_mesh()))
    return state.replace(**changed)


def scores_in_numpy(params, source):
    layer = jax.tree.map(np.float64, params["Dense_0"])
    pixels = (source.images.reshape(len(source), -1) / 255 - MEAN) / STD
    logits = pixels @ layer["kernel"] + layer["bias"]
    own = logits[np.arange(len(source)), source.labels]
    shifted = logits - logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1)) + logits.max(-1)
    rank = (logits > own[:, None]).sum(-1)
    return {"loss": (log_sum - own).mean(), "top1": (rank < 1).mean(), "top5": (rank < 5).mean()}


@pytest.mark.parametrize("size, batch_size", [(10, 8), (7, 8), (16, 8), (17, 16), (1, 8)])
def test_each_example_counts_once_on_eight_devices(size, batch_size):
    state, source = state_of(), Noise(size)
    found = evaluator(source, batch_size).run(state)
    assert found["test/scored"] == found["test/examples"] == size
    assert found["test/unreadable"] == 0  # padding is not
    expected = scores_in_numpy(state.params, source)
    assert found.keys() == {
        f"test/{name}" for name in (*expected, "scored", "examples", "unreadable")
    }
    for name, value in expected.items():
        assert found[f"test/{name}"] == pytest.approx(value, rel=1e-5), name


def test_averaged_weights_are_scored_where_the_run_keeps_them():
    source, plain = Noise(10), state_of()
    averaged = jax.tree.map(lambda p: -p, plain.params)
    found = evaluator(source, 8).run(plain.replace(ema_params=averaged))
    expected = scores_in_numpy(averaged, source)
    assert found["test/loss"] == pytest.approx(expected["loss"], rel=1e-5)
    assert found["test/loss"] != pytest.approx(scores_in_numpy(plain.params, source)["loss"])


def test_scoring_leaves_the_state_as_it_was_and_repeats_its_numbers():
    state, runner = state_of(), evaluator(Noise(10), 8)
    before = jax.tree.map(np.array, state.params)
    assert runner.run(state) == runner.run(state)
    for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(state.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_name_is_the_prefix():
    found = evaluator(Noise(4), 8, name="validation").run(state_of())
    assert {name.split("/")[0] for name in found} == {"validation"}


def test_unreadable_examples_show_as_scored_of_all():
    """Left out by the data, whose batches mask them; the number of examples stays."""
    state = state_of()
    batch = image_batch(8, masked=(2, 5))
    runner = Evaluator(
        name="test",
        task=TASK,
        num_examples=8,
        batches=lambda: sharding.to_devices(
            [jax.tree.map(np.asarray, batch)], sharding.make_mesh()
        ),
    )
    found = runner.run(state)
    assert (found["test/scored"], found["test/examples"]) == (6, 8)
    assert found["test/unreadable"] == 2


def test_nothing_to_score_is_an_error():
    runner = Evaluator(name="test", task=TASK, num_examples=0, batches=lambda: [])
    with pytest.raises(InputError, match="evaluation 'test' has no examples"):
        runner.run(state_of())


@pytest.mark.parametrize("every, due", [(0, [7]), (3, [3, 6, 7]), (1, [1, 2, 3, 4, 5, 6, 7])])
def test_due_steps(every, due):
    runner = Evaluator(name="x", task=TASK, num_examples=1, batches=list, every_steps=every)
    assert [step for step in range(1, 8) if runner.is_due(step, is_last=step == 7)] == due


def test_number_of_classes_is_what_the_toys_say():
    """Guards the NumPy twin: ranks of five mean something only among more classes."""
    assert NUM_CLASSES > 5 and jnp.unique(image_batch(64)["label"]).size == NUM_CLASSES
