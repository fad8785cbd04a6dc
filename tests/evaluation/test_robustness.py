"""Corrupted accuracy counts each image, corruption and severity alike; shifts their own classes."""

import numpy as np
import pytest
from evaluation_checks import settings
from sklearn.metrics import accuracy_score

from vit_jax.data.corruptions.corrupt import COMMON, Corruption
from vit_jax.errors import InputError
from vit_jax.evaluation import robustness
from vit_jax.evaluation.protocol import SplitOutputs
from vit_jax.evaluation.robustness import ALEXNET, ALEXNET_CLEAN, Robustness

K = 6


def outputs(seed, n=30, *, k=K, present=None):
    rng = np.random.default_rng(seed)
    label = np.random.default_rng(0).integers(k, size=n)
    logits = rng.normal(size=(n, k)).astype(np.float32)
    logits[np.arange(n), label] += 1.0
    if present is not None:
        label = np.asarray(present)[label % len(present)]
    return SplitOutputs(
        name="some",
        index=np.arange(n),
        label=label,
        logits=logits,
        num_examples=n,
        class_names=tuple(map(str, range(k))),
        present=present,
        images=lambda places: [np.full((8, 8, 1), 90, np.uint8) for _ in places],
    )


def accuracy(found):
    return accuracy_score(found.label, found.logits.argmax(axis=1))


def test_means_are_over_severities_and_then_corruptions(tmp_path):
    protocol = Robustness(corruptions=("fog", "contrast"), severities=(2, 5), limit=20)
    roles = ["fog/2", "fog/5", "contrast/2", "contrast/5"]
    requests = protocol.requests(settings(), "train")
    assert list(requests) == ["test", *roles]
    assert requests["fog/5"].transform == Corruption("fog", 5) and not requests["fog/5"].is_kept
    assert requests["test"].settings.split == "test"
    assert requests["fog/5"].settings.split == "test[:20]"
    given = {"test": outputs(9)} | {role: outputs(i, 20) for i, role in enumerate(roles)}
    report = protocol.measure(given)
    means = [accuracy(given[role]) for role in roles]
    assert set(report.metrics) == set(protocol.metric_names())
    expected = {
        "top1": accuracy(given["test"]),
        "fog_top1": np.mean(means[:2]),
        "contrast_top1": np.mean(means[2:]),
        "corrupted_top1": np.mean(means),
        "corrupted_error": 1 - np.mean(means),
        # Of the first twenty, which were corrupted.
        "relative_error": accuracy_score(
            given["test"].label[:20], given["test"].logits[:20].argmax(axis=1)
        )
        - np.mean(means),
    }
    for name, value in expected.items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-12), name
    assert report.intervals.keys() == report.metrics.keys()
    assert "not stored as JPEG" in report.tables["corruptions"]
    for name, (low, high) in report.intervals.items():
        assert low <= report.metrics[name] <= high
    assert report.tables["top1"]["contrast"]["5"] == pytest.approx(means[3])
    for name, draw in report.pictures.items():
        draw(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 1000
    assert set(report.pictures) == {"accuracy.png", "corruptions.png"}


def test_mean_corruption_error_of_alexnet_is_one_and_is_told_of_imagenet_alone():
    assert list(ALEXNET) == list(COMMON)
    assert robustness.mean_corruption_error(ALEXNET) == pytest.approx(1)
    assert robustness.mean_corruption_error(ALEXNET, clean=ALEXNET_CLEAN) == pytest.approx(1)
    halved = {name: error / 2 for name, error in ALEXNET.items()}
    assert robustness.mean_corruption_error(halved) == pytest.approx(0.5)
    # Of Table 1 of arXiv:1903.12261: errors of ResNet-50 by corruption, in percent of AlexNet's.
    shares = (80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77)
    errors = {n: s / 100 * e for s, (n, e) in zip(shares, ALEXNET.items(), strict=True)}
    assert robustness.mean_corruption_error(errors) == pytest.approx(0.767, abs=0.005)
    share = np.random.default_rng(0).random((15, 40))
    share += 0.4 - share.mean(axis=1, keepdims=True)
    clean = np.linspace(0.4, 1, 40)
    whole = {n: v.mean() for n, v in Robustness()._summary(share, clean, 1000).items()}
    expected = np.mean([0.6 / error for error in ALEXNET.values()])
    assert whole["mce"] == pytest.approx(expected)
    relative = np.mean([0.3 / (error - 0.435) for error in ALEXNET.values()])
    assert whole["relative_mce"] == pytest.approx(relative)
    assert "mce" not in Robustness()._summary(share, clean, 10)
    some = Robustness(severities=(1, 2))
    assert "mce" not in some._summary(share, clean, 1000)


def test_a_shift_is_scored_among_the_classes_that_can_occur():
    present = (1, 2, 5)
    protocol = Robustness(corruptions=(), shifts={"adverse": dict(source="folder:a", split="val")})
    shifted = outputs(3, present=present)
    report = protocol.measure({"test": outputs(9), "shift/adverse": shifted})
    among = np.asarray(present)[shifted.logits[:, present].argmax(axis=1)]
    assert report.metrics["adverse_top1"] == pytest.approx((among == shifted.label).mean())
    assert report.metrics["adverse_top1"] > accuracy(shifted)
    assert set(report.metrics) == set(protocol.metric_names()) == {"top1", "adverse_top1"}
    requests = protocol.requests(settings(batch_size=9), "train")
    assert requests["shift/adverse"].settings.batch_size == 9


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(corruptions=("rain",)), "corruption is 'rain'; allowed: gaussian_noise"),
        (dict(severities=(0,)), "severity is 0; allowed: 1 to 5"),
        (dict(severities=(1, 1)), r"severities is \[1, 1\]; allowed: different"),
        (dict(corruptions=("fog", "fog")), "corruptions is .*; allowed: different"),
        (dict(corruptions=()), "nothing to score; allowed"),
        (dict(severities=()), "nothing to score; allowed"),
        (dict(limit=0), "limit is 0"),
        (dict(shifts={"fog": {}}), "a shift is called 'fog', as a corruption is; allowed"),
    ],
)
def test_mistakes_are_told(given, message):
    with pytest.raises(InputError, match=message):
        Robustness(**given)


def test_other_mistakes_are_told():
    with pytest.raises(InputError, match=r"limit is 5, but the split is 'test\[9:\]'; allowed"):
        Robustness(limit=5).requests(settings(split="test[9:]"), "train")
    with pytest.raises(InputError, match="robustness.shifts.a has unknown key 'splt'"):
        Robustness(shifts={"a": dict(splt="x")}).requests(settings(), "train")
    with pytest.raises(InputError, match="the examples have labels; allowed: with label"):
        Robustness().check("fog/1", {"labels"})
