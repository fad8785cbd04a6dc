"""Protocols on frozen features from entries of `config.evals` to numbers, on digits.

The toy's representation is the image itself, so scikit-learn can be asked about the same points.
"""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from toys import classification

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.pipeline import Origin, Splits
from vit_jax.errors import InputError
from vit_jax.evaluators import Builder
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.train import optimizer, sharding
from vit_jax.train.agreement import Votes

DIGITS = Origin(source="digits")
INFO = Info(
    class_names=tuple("0123456789"),
    preprocessing=Preprocessing(image_size=(8, 8), channels=1),
    num_examples=1437,
    num_steps=4,
    batch={
        "image": ((8, 8, 1), "uint8"),
        "label": ((), "int32"),
        "mask": ((), "bool"),
        "index": ((), "int32"),
    },
)
ENTRIES = {
    "test": dict(split="test"),
    "head": dict(protocol="classification", split="test"),
    "knn": dict(protocol="knn", split="test", k=(5, 20), every_steps=3),
    "few_shot": dict(protocol="few_shot", split="test", shots=(1, 5), seeds=2),
    "probe": dict(protocol="linear_probe", split="test", strengths=(1.0,)),
}
TASK = dict(group="natural", source="digits", train="train[:200]", test="test[:100]")
TRANSFER = dict(
    protocol="transfer",
    tasks=(),
    solver="ridge",
    entries=[dict(TASK, name="few"), dict(TASK, name="many", train="train")],
    num_examples=None,
)


@pytest.fixture(scope="module")
def learner():
    return Learner(
        info=INFO,
        mesh=sharding.make_mesh(),
        task=classification(num_classes=10, mean=(0.0,), std=(1.0,)),
        optimizer=optimizer.build(num_steps=4, learning_rate=0.1),
        settings=TrainSettings(num_steps=4),
    )


@pytest.fixture(scope="module")
def state(learner):
    return learner.init_state()


class Kept(dict):
    """Reports by name, and which splits were gone through."""

    def builder(self, learner, **splits):
        given = dict(origin=DIGITS, training_split="train")
        splits = Splits(
            **given | splits, preprocessing=INFO.preprocessing, class_names=INFO.class_names
        )
        found = Builder(learner, splits, Votes(), batch_size=100, keep=self.__setitem__)
        self.passes, run = [], found.passes._run
        found.passes._run = lambda state, data, reads: (
            self.passes.append(data.source.name) or run(state, data, reads)
        )
        return found


@pytest.fixture(scope="module")
def found(learner, state):
    kept = Kept()
    builder = kept.builder(learner)
    evaluators = [builder.build(name, entry) for name, entry in ENTRIES.items()]
    metrics = {}
    for evaluator in evaluators:
        metrics |= evaluator.run(state)
    return metrics, kept


def pixels(split):
    source = DIGITS.open(split)
    images = np.stack([source[i]["image"] for i in range(len(source))])
    return images.reshape(len(images), -1) / 255, np.array([e["label"] for e in source])


def test_each_split_is_gone_through_once_for_all(found):
    _, kept = found
    assert sorted(kept.passes) == ["digits:test", "digits:train"]
    assert list(kept) == ["head", "knn", "few_shot", "probe"]


def test_every_test_image_is_scored_and_training_images_are_not_counted(found):
    metrics, _ = found
    for name in ENTRIES:
        counts = [metrics[f"{name}/{count}"] for count in ("scored", "examples", "unreadable")]
        assert counts == [360, 360, 0]


def test_numbers_are_those_of_scikit_learn(found):
    metrics, _ = found
    train, test = pixels("train"), pixels("test")
    for k in (5, 20):
        voters = KNeighborsClassifier(
            k, metric="cosine", weights=lambda distance: np.exp(-distance / 0.07)
        )
        top1 = voters.fit(*train).score(*test)
        # Digits have 17 grey levels: near ties are common, and one may fall otherwise.
        assert metrics[f"knn/top1_{k}nn"] == pytest.approx(top1, abs=1.01 / 360)
    reference = LogisticRegression(C=1.0, max_iter=10_000).fit(*train)
    assert metrics["probe/top1"] == pytest.approx(reference.score(*test), abs=1.01 / 360)
    assert 0.3 < metrics["few_shot/top1_1shot"] < metrics["few_shot/top1_5shot"] < 1


def test_a_suite_needs_no_data_of_the_models(learner, state):
    kept = Kept()
    builder = kept.builder(learner, origin=None, training_split=None)
    metrics = builder.build("suite", TRANSFER).run(state)
    # How often is not told: what checks the types here looks at a value of a mapping, too.
    splits = ["digits train[:200]", "digits test[:100]", "digits:train"]
    assert list(dict.fromkeys(kept.passes)) == splits
    assert metrics["suite/scored"] == metrics["suite/examples"] == 200
    assert 0.5 < metrics["suite/few_top1"] < metrics["suite/many_top1"] < 1
    mean = (metrics["suite/few_top1"] + metrics["suite/many_top1"]) / 2
    assert (
        metrics["suite/mean_of_tasks_top1"] == metrics["suite/natural_top1"] == pytest.approx(mean)
    )


@pytest.mark.parametrize(
    "entry, message",
    [
        (
            dict(TRANSFER, split="test"),
            "x has unknown key split; allowed: tasks, entries",
        ),
        (dict(protocol="knn", split="test", shots=(5,)), "unknown key shots; allowed: train, k"),
        (dict(protocol="knn", split="test", k="20"), "config.evals.x.k is '20'; allowed"),
        (dict(protocol="knn", split="test", source="digits"), "learns from training examples"),
    ],
)
def test_entries_that_cannot_be_are_refused(learner, entry, message):
    with pytest.raises(InputError, match=message):
        Kept().builder(learner).build("x", entry)


def test_reads_that_come_later_are_not_lost(learner, state):
    kept = Kept()
    builder = kept.builder(learner)
    builder.build("head", ENTRIES["head"]).run(state)
    found = builder.build("probe", ENTRIES["probe"]).run(state)
    assert found["probe/scored"] == 360 and kept.passes.count("digits:test") == 2
