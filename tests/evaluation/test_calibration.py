"""Calibration: scikit-learn's and torchmetrics' numbers, and the temperature that is the best."""

import itertools
import json

import numpy as np
import pytest
import scipy.optimize
import scipy.special
import sklearn.metrics
from PIL import Image
from references import load_torchmetrics

from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation import calibration
from vit_jax.evaluation.calibration import Calibration
from vit_jax.evaluation.protocol import SplitOutputs
from vit_jax.evaluators import plain

N, K = 2000, 6


def outputs(temperature=1.0, seed=0, n=N):
    """Labels are drawn by the model's own probabilities, of logits then times `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(n, K))
    p = scipy.special.softmax(logits, axis=1)
    label = (p.cumsum(axis=1) < rng.random((n, 1))).sum(axis=1).clip(max=K - 1)
    return SplitOutputs(
        name="toy",
        index=np.arange(n),
        label=label,
        logits=(temperature * logits).astype(np.float32),
        num_examples=n,
        class_names=tuple("abcdef"),
    )


def measured(test, fit=None, **settings):
    given = {"test": test} if fit is None else {"test": test, "fit": fit}
    name = None if fit is None else "train[90%:]"
    return Calibration(fit=name, **settings).measure(given)


def loops(test, edges):
    """Equation 3 of arXiv:1706.04599."""
    p = scipy.special.softmax(np.float64(test.logits), axis=1)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = [i for i in range(len(p)) if low < p[i].max() <= high]
        if inside:
            accuracy = np.mean([p[i].argmax() == test.label[i] for i in inside])
            confidence = np.mean([p[i].max() for i in inside])
            total += len(inside) / len(p) * abs(accuracy - confidence)
    return total


def test_numbers_are_those_of_scikit_learn_and_of_the_definition():
    test = outputs(1.7)
    report = measured(test)
    p = scipy.special.softmax(np.float64(test.logits), axis=1)
    assert report.metrics["nll"] == pytest.approx(sklearn.metrics.log_loss(test.label, p))
    reference = sklearn.metrics.brier_score_loss(test.label, p, scale_by_half=False)
    assert report.metrics["brier"] == pytest.approx(reference)
    assert report.metrics["ece"] == pytest.approx(loops(test, np.linspace(0, 1, 16)))
    assert report.metrics.keys() == set(Calibration().metric_names()) == report.intervals.keys()


@pytest.mark.reference
@pytest.mark.parametrize("bins", [1, 10, 15])
def test_error_is_that_of_torchmetrics(bins):
    functional = load_torchmetrics().functional.classification
    import torch

    test = outputs(1.7)
    reference = functional.multiclass_calibration_error(
        torch.from_numpy(np.float64(test.logits)).softmax(-1),
        torch.from_numpy(test.label),
        num_classes=K,
        n_bins=bins,
        norm="l1",
    )
    # It sums in float32 where it is not told otherwise.
    assert measured(test, bins=bins).metrics["ece"] == pytest.approx(float(reference), abs=1e-6)


def test_bins_of_equal_mass_hold_equally_many():
    test = outputs(1.7)
    report = measured(test, bins=8, binning="equal_mass")
    assert set(report.tables["bins"]["count"]) == {N // 8}
    assert report.metrics["ece"] == pytest.approx(loops(test, report.tables["bins"]["edges"]))


def test_confidences_that_are_all_equal_make_one_bin():
    test = outputs()
    same = SplitOutputs(**{**vars(test), "logits": np.zeros((N, K), np.float32)})
    report = measured(same, binning="equal_mass")
    assert report.metrics["ece"] == pytest.approx(abs((test.label == 0).mean() - 1 / K))
    assert report.metrics["nll"] == pytest.approx(np.log(K))


def test_who_knows_how_sure_to_be_has_hardly_an_error():
    """Labels drawn by the probabilities; binning 20,000 leaves errors of about 0.7 % of chance."""

    def error(temperature):
        test = outputs(temperature, n=20_000)
        found = calibration.told(test.logits, test.label)
        place = calibration.places(found.confidence, np.linspace(0, 1, 16))
        return calibration.calibration_error(place, found.is_right - found.confidence)

    assert error(1.0) < 0.015 < 0.1 < error(3.0)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_temperature_has_the_least_nll(temperature):
    test = outputs(temperature)
    found = calibration.fit_temperature(test.logits, test.label)

    def loss(log_t):
        p = scipy.special.log_softmax(np.float64(test.logits) / np.exp(log_t), axis=1)
        return -p[np.arange(N), test.label].mean()

    best = scipy.optimize.minimize_scalar(loss, bounds=(-3, 3), options=dict(xatol=1e-9))
    assert found == pytest.approx(np.exp(best.x), rel=1e-4)
    # Labels of the untouched logits: the temperature is found again, but for their draw.
    assert found == pytest.approx(temperature, rel=0.1)


def test_temperature_of_a_faultless_model_ends_at_the_bound():
    test = outputs()
    label = test.logits.argmax(axis=1)
    assert calibration.fit_temperature(test.logits, label) == pytest.approx(0.01, rel=1e-4)
    assert calibration.fit_temperature(-test.logits, label) == pytest.approx(100, rel=1e-4)


def test_scaling_is_fitted_elsewhere_and_mends_what_can_be_mended(tmp_path):
    test, held_out = outputs(3.0, seed=1), outputs(3.0, seed=2)
    report, unscaled = measured(test, fit=held_out), measured(test)
    for name in ("ece", "nll", "brier"):
        assert report.metrics[name] == unscaled.metrics[name]
        assert report.metrics[f"{name}_scaled"] < report.metrics[name]
    assert report.metrics["temperature"] == pytest.approx(3, rel=0.1)
    names = Calibration(fit="train[90%:]").metric_names()
    assert set(names) == report.metrics.keys()
    json.dumps(plain(report.tables))
    report.pictures["reliability.png"](tmp_path / "a.png")
    assert np.asarray(Image.open(tmp_path / "a.png").convert("L")).std() > 10


def test_classes_that_cannot_occur_take_no_part():
    """As if the model had no logits of them; 'all' leaves them in."""
    test = outputs(3.0)
    wide = np.concatenate([test.logits, test.logits + 1], axis=1)
    present = tuple(range(K))
    wider = SplitOutputs(**{**vars(test), "logits": wide, "present": present})
    narrow, found = (measured(x, fit=x).metrics for x in (test, wider))
    assert found == pytest.approx(narrow, rel=1e-12)
    assert measured(wider, among="all").metrics["nll"] > narrow["nll"] + 1


@pytest.mark.parametrize(
    "fit, training_split, is_told",
    [
        ("train[90%:]", "train", True),
        ("train[80%:]", "train[:90%]", True),
        ("train[90%:]", "train[:90%]", False),
        ("validation", "train", False),
        ("train", None, False),
    ],
)
def test_a_temperature_of_training_examples_is_warned_of(fit, training_split, is_told, caplog):
    Calibration(fit=fit).requests(EvalSettings(split="test"), training_split)
    assert [f"trained on {training_split!r}" in told for told in caplog.messages] == [
        True
    ] * is_told


def test_rows_in_memory_together_make_no_difference(monkeypatch):
    test = outputs(2.0, n=50)
    whole = measured(test, fit=test)
    monkeypatch.setattr(calibration, "AT_ONCE", 7)
    assert measured(test, fit=test).metrics == pytest.approx(whole.metrics, rel=1e-9)


def test_data_is_what_was_asked_for():
    test = EvalSettings(split="test", source="folder:a", batch_size=3)
    found = Calibration(fit="train[90%:]").requests(test, "train[:90%]")
    assert found["test"].settings == test
    assert found["fit"].settings == EvalSettings(split="train[90%:]", batch_size=3)
    assert Calibration().requests(test, None).keys() == {"test"}


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(bins=0), "calibration.bins is 0"),
        (dict(among="some"), "calibration.among is 'some'; allowed: present, all"),
        (dict(binning="even"), "binning is 'even'; allowed: equal_width, equal_mass"),
    ],
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(InputError, match=message):
        Calibration(**settings)


def test_what_cannot_be_calibrated_is_told():
    with pytest.raises(InputError, match="fit is 'test', which is scored; allowed: another split"):
        Calibration(fit="test").requests(EvalSettings(split="test"), None)
    with pytest.raises(InputError, match="have image, labels; allowed: with label"):
        Calibration().check("test", ("labels", "image"))
