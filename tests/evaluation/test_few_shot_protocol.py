"""The few-shot protocol: `few_shot_accuracy` for each number of shots, over seeds."""

import numpy as np
import pytest
from evaluation_checks import clusters, settings, split

from vit_jax.errors import InputError
from vit_jax.evaluation.few_shot import FewShot, few_shot_accuracy

K = 4
TRAIN, TEST = clusters(60, 6, k=K, spread=1.5), clusters(60, 6, k=K, seed=1, spread=1.5)
OUTPUTS = {"train": split(TRAIN, K), "test": split(TEST, K)}


def test_means_and_deviations_are_over_seeds():
    protocol = FewShot(shots=(1, 10), seeds=4, l2=2.0)
    report = protocol.measure(OUTPUTS)
    assert list(report.metrics) == protocol.metric_names()
    for shots in (1, 10):
        values = [
            few_shot_accuracy(*TRAIN, *TEST, shots=shots, seed=seed, l2=2.0) for seed in range(4)
        ]
        assert report.tables["top1_by_seed"][f"{shots}shot"] == values
        assert report.metrics[f"top1_{shots}shot"] == pytest.approx(np.mean(values))
        low, high = report.intervals[f"top1_{shots}shot"]
        assert low < np.mean(values) < high
        std = np.sqrt(np.sum((values - np.mean(values)) ** 2) / 3)
        assert report.metrics[f"top1_{shots}shot_std"] == pytest.approx(std) and std > 0


def test_one_seed_has_no_deviation():
    protocol = FewShot(shots=(5,), seeds=1)
    assert protocol.metric_names() == list(protocol.measure(OUTPUTS).metrics) == ["top1_5shot"]


def test_defaults_are_those_of_the_field():
    names = [name for name in FewShot().metric_names() if not name.endswith("std")]
    assert names == ["top1_1shot", "top1_5shot", "top1_10shot", "top1_25shot"]


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(shots=()), "shots are"),
        (dict(shots=(5, 5)), "shots are"),
        (dict(shots=(0,)), "shots and seeds is 0"),
        (dict(seeds=0), "shots and seeds is 0"),
        (dict(l2=0.0), "few_shot.l2 is 0.0; allowed: more than 0"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        FewShot(**given)


def test_what_cannot_be_learned_is_told():
    with pytest.raises(InputError, match="class 0 has 15 training images; allowed: 25 or more"):
        FewShot().measure(OUTPUTS)
    with pytest.raises(InputError, match="allowed: train"):
        FewShot().requests(settings(source="digits"), "train")
