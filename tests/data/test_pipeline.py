"""Batches are a function of the step: of nothing else, on any number of hosts and threads."""

import itertools
import subprocess
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from batch_checks import assert_same, joined, take

from vit_jax.data import pipeline
from vit_jax.data.batching import batches
from vit_jax.errors import InputError

SHIFT = {"crop": "shift", "padding": 2, "flip_probability": 0.5}


def digits(**changed):
    config = {
        "source": "digits",
        "batch_size": 64,
        "image_size": 8,
        "augment": SHIFT,
        "seed": 3,
        "num_threads": 2,
        "prefetch": 2,
    }
    return pipeline.build(**{**config, **changed})


# training


def test_batch_types_and_contents():
    data = digits(augment=None)
    batch = data.train(5)
    shapes = {key: (value.dtype.name, value.shape) for key, value in batch.items()}
    assert shapes == {
        "image": ("uint8", (64, 8, 8, 1)),
        "label": ("int32", (64,)),
        "mask": ("bool", (64,)),
        "index": ("int32", (64,)),
    }
    assert batch["mask"].all()
    for image, label, i in zip(batch["image"], batch["label"], batch["index"], strict=True):
        assert np.array_equal(image, data.train.source[i]["image"])
        assert label == data.train.source[i]["label"]


@pytest.mark.parametrize("first_step", [0, 1, 37])
def test_iterating_equals_random_access(first_step):
    data = digits().train
    for step, batch in enumerate(take(data.iterate(first_step), 4), first_step):
        assert_same(batch, data(step))


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_share_the_same_global_batch(hosts):
    whole = digits().train
    parts = [digits(process_index=i, process_count=hosts).train for i in range(hosts)]
    for step in (0, 22, 23, 500):  # an epoch ends within step 22
        assert_same(joined([part(step) for part in parts]), whole(step))
    iterated = [take(part.iterate(21), 3) for part in parts]
    for step, global_parts in enumerate(zip(*iterated, strict=True), 21):
        assert_same(joined(global_parts), whole(step))


@pytest.mark.parametrize(
    "num_workers, num_threads, prefetch",
    [(0, 0, 1), (0, 1, 1), (0, 4, 8), (0, None, 16), (1, 0, 1), (3, 0, 2)],
)
def test_threads_and_processes_change_nothing(num_workers, num_threads, prefetch):
    expected = digits().train
    data = digits(num_workers=num_workers, num_threads=num_threads, prefetch=prefetch).train
    for step, batch in enumerate(take(data.iterate(20), 8), 20):
        assert_same(batch, expected(step))


def test_each_epoch_is_another_permutation_with_other_augmentation():
    data = digits(batch_size=479, train="train").train  # 3 batches an epoch
    epochs = [joined([data(3 * epoch + k) for k in range(3)]) for epoch in range(4)]
    orders = [epoch["index"] for epoch in epochs]
    assert all(sorted(order) == list(range(1437)) for order in orders)
    for one, other in itertools.combinations(epochs, 2):
        assert np.mean(one["index"] == other["index"]) < 0.01
        same = np.all(
            one["image"][one["index"].argsort()] == other["image"][other["index"].argsort()],
            axis=(1, 2, 3),
        )
        assert same.mean() < 0.2  # 1 in 50 shifts and flips coincide, and digits have margins


def test_batches_run_across_the_border_of_epochs():
    data = digits(batch_size=64).train
    seen = np.concatenate([data(step)["index"] for step in range(45)])
    assert sorted(seen[:1437]) == sorted(seen[1437:2874]) == list(range(1437))


def test_a_split_smaller_than_the_batch():
    data = digits(train="train[:5]", batch_size=64).train
    batch = data(0)
    assert batch["mask"].all() and set(batch["index"]) == set(range(5))
    for epoch in range(12):
        assert sorted(batch["index"][5 * epoch : 5 * epoch + 5]) == list(range(5))
    one = digits(train="train[:1]", batch_size=4).train(9)
    assert one["index"].tolist() == [0] * 4


def test_seeds_differ_and_repeat():
    assert_same(digits(seed=3).train(2), digits(seed=3).train(2))
    a, b = digits(seed=3).train, digits(seed=4).train
    assert not np.array_equal(a(0)["index"], b(0)["index"])
    # The next seed is no shifted copy.
    epochs = [digits(seed=s, batch_size=1437).train for s in (3, 4)]
    assert not np.array_equal(epochs[0](1)["index"], epochs[1](0)["index"])


def test_without_shuffle_the_order_is_that_of_the_source():
    data = digits(shuffle=False, train="train[:100]").train
    assert data(1)["index"].tolist() == [*range(64, 100), *range(28)]


def test_rectangles_and_resized_crops():
    config = {"crop": "inception", "min_area": 0.3, "flip_probability": 0.5}
    data = digits(image_size=[6, 12], channels=3, augment=config)
    assert data.train(0)["image"].shape == (64, 6, 12, 3)
    batch = next(iter(data.evaluation(pipeline.EvalSettings(split="test"))))
    assert batch["image"].shape == (64, 6, 12, 3)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 6.0}, "batch_size is 6.0"),
        ({"batch_size": 6, "process_count": 4}, "multiple of the 4 processes"),
        ({"process_index": 2, "process_count": 2}, "process_index is 2; allowed: 0 to 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "seed is"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"num_threads": -1}, "num_threads is -1"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"repeats": 2**31}, "repeats is 2147483648; allowed: less"),
        ({"repeats": 1.5}, "repeats is 1.5"),
        ({"prefetch": 0}, "prefetch is 0"),
        ({"prefetch": 1025}, "prefetch is 1025; allowed: less than 1025"),
        ({"num_workers": 1025}, "num_workers is 1025"),
        ({"num_threads": 1025}, "num_threads is 1025"),
        ({"num_workers": 1, "num_threads": 2}, "one of them, since processes take the place"),
        ({"max_objects": 0}, "max_objects is 0"),
        ({"image_size": 2**31}, "image_size is 2147483648"),
        ({"image_size": 0}, "image_size is 0"),
        ({"augment": {"flip": 0.5}}, "config.data.augment has unknown key 'flip'"),
        ({"augment": {"preprocessing": 1}}, "unknown key 'preprocessing'"),
        ({"channels": 2}, "digits:train #.*1 channels into 2"),
    ],
)
def test_bad_configs_are_refused(changed, message):
    with pytest.raises(InputError, match=message):
        digits(**changed).train(0)


def test_negative_steps_are_refused():
    with pytest.raises(InputError, match="step is -1"):
        digits().train(-1)
    with pytest.raises(InputError, match="step is -1"):
        digits().train.iterate(-1)


def test_closing_an_iterator_ends_its_threads():
    def readers():
        return [t for t in threading.enumerate() if t.name.startswith("data-")]

    before = readers()
    iterator = digits(num_threads=3).train.iterate(0)
    next(iterator)
    started = [thread for thread in readers() if thread not in before]
    assert started
    iterator.close()
    for thread in started:
        thread.join(timeout=5)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    "decodes, cores, workers, threads",
    [(True, 1, 0, 1), (True, 2, 2, 2), (True, 100, 64, 16), (False, 2, 0, 1), (False, 8, 8, 1)],
)
def test_default_workers(monkeypatch, decodes, cores, workers, threads):
    monkeypatch.setattr(batches, "num_cores", lambda: cores)
    maker = types.SimpleNamespace(decodes=decodes)
    assert batches.default_workers(maker) == workers
    assert batches.default_threads(maker) == threads


# the whole


def test_sections_of_a_config_dict_are_accepted():
    config_dict = pytest.importorskip("ml_collections").ConfigDict
    config = {"source": "digits", "batch_size": 8, "image_size": (8, 12), "mean": [0.1]}
    section = config_dict({**config, "augment": {"crop": "shift", "padding": 1}})
    data = pipeline.build(**section.lock(), seed=0)
    assert data.train(0)["image"].shape == (8, 8, 12, 1)
    assert data.preprocessing.mean == (0.1,) and data.class_names == tuple("0123456789")


UNDER_ABSL = """
import warnings
from absl import app, flags
warnings.simplefilter("error")
flags.DEFINE_string("workdir", None, "")

def main(argv):
    from vit_jax.data import pipeline
    data = pipeline.build(source="digits", batch_size=8, image_size=8, seed=0)
    iterator = data.train.iterate()
    print(next(iterator)["index"].tolist() == data.train(0)["index"].tolist())
    # Not closed: threads that read ahead must not keep the program from ending.

app.run(main)
"""


def test_it_works_under_absl_flags_and_lets_the_program_end():
    command = [sys.executable, "-c", UNDER_ABSL, "--workdir=x"]
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


def test_the_dialect_is_that_of_evaluation_and_of_augmentation():
    data = digits(dialect="big_vision", augment={"crop": "inception"}, resize="crop")
    assert data.preprocessing.dialect == "big_vision"
    assert data.preprocessing.interpolation == "area"
    assert data.train.transform.steps[-1].law == "uniform_height"
