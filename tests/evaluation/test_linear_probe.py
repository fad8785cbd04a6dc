"""Linear probes: the optimum that scikit-learn finds, the steps that a plain loop takes."""

import numpy as np
import pytest
from evaluation_checks import clusters, settings, split
from PIL import Image
from scipy.special import log_softmax, logsumexp
from sklearn.linear_model import LogisticRegression as Reference

from vit_jax.errors import InputError
from vit_jax.evaluation import linear_classifier, logistic_regression
from vit_jax.evaluation.features import Examples
from vit_jax.evaluation.linear_classifier import hold_out
from vit_jax.evaluation.linear_probe import LinearProbe
from vit_jax.evaluation.linear_sgd import GradientDescent
from vit_jax.evaluation.logistic_regression import LogisticRegression

K = 4  # classes
TRAIN = Examples(*clusters(101, 5, k=K))  # no multiple of the eight devices
TEST = Examples(*clusters(60, 5, k=K, seed=1))


def objective(weights, bias, l2, examples=TRAIN):
    logits = examples.features @ weights.astype(np.float64) + bias
    own = log_softmax(logits, axis=1)[np.arange(len(logits)), examples.label]
    return -own.sum() + l2 / 2 * (weights.astype(np.float64) ** 2).sum()


def one(solver, strength, train=TRAIN):
    [classifier] = solver.fit(train, (strength,), num_classes=K)
    return classifier


# lbfgs


@pytest.mark.parametrize("l2", [0.1, 1.0, 100.0])
def test_optimum_is_that_of_scikit_learn(l2):
    found = one(LogisticRegression(), l2)
    reference = Reference(C=1 / l2, tol=1e-10, max_iter=10_000).fit(*TRAIN)
    expected = objective(reference.coef_.T, reference.intercept_, l2)
    # Steps stop where float32 no longer tells one loss from the next, at about 1e-7 of it.
    assert objective(found.weights, found.bias, l2) == pytest.approx(expected, rel=1e-6)
    # A loss that is so near its minimum leaves the weights the root of that.
    spread = np.abs(reference.coef_).max()
    np.testing.assert_allclose(found.weights, reference.coef_.T, atol=5e-3 * spread)
    agreement = (found(TEST.features).argmax(1) == reference.predict(TEST.features)).mean()
    assert agreement >= 59 / 60  # one may lie on a border


def test_optimum_has_no_order_of_examples():
    order = np.random.default_rng(0).permutation(len(TRAIN.label))
    a, b = (one(LogisticRegression(), 1.0, train) for train in (TRAIN, TRAIN.at(order)))
    np.testing.assert_allclose(a.weights, b.weights, atol=1e-3)  # sums in another order


def test_more_penalty_makes_smaller_weights_and_no_smaller_bias():
    """The bias has none: under an endless penalty it tells how frequent the classes are."""
    rare = TRAIN.at(np.flatnonzero((TRAIN.label > 0) | (np.arange(101) < 40)))
    found = one(LogisticRegression(), 1e6, rare)
    assert np.abs(found.weights).max() < 1e-3
    frequency = np.bincount(rare.label) / len(rare.label)
    np.testing.assert_allclose(np.exp(found.bias - logsumexp(found.bias)), frequency, atol=1e-3)


@pytest.mark.parametrize("solver", [LogisticRegression(), GradientDescent(epochs=20)])
def test_standardised_features_have_no_units(solver):
    solver = type(solver)(**{**vars(solver), "standardise": True})
    units = np.float32([1, 1000, 0.01, 5, 1])
    other = Examples(TRAIN.features * units + 7, TRAIN.label)
    a, b = one(solver, 1.0), one(solver, 1.0, other)
    # The smallest deviation, 1e-5, is a thousandth of the one that became 0.01.
    np.testing.assert_allclose(a(TEST.features), b(TEST.features * units + 7), atol=0.02)


@pytest.mark.parametrize("peak", [-6.0, -1.3, 0.0, 2.71, 5.9])
def test_binary_search_comes_within_half_of_an_eighth_of_a_decade(peak):
    curve = logistic_regression.binary_search(lambda l2: -abs(np.log10(l2) - peak))
    best = linear_classifier.best_of(curve)
    assert abs(np.log10(best) - peak) <= 1 / 16 + 1e-9
    assert len(curve) <= 7 + 2 * 4 and list(curve) == sorted(curve)
    assert {10.0**e for e in range(-6, 7, 2)} <= set(curve)


def test_of_equally_good_strengths_the_larger_one_is_taken():
    assert linear_classifier.best_of({0.1: 0.5, 1.0: 0.9, 10.0: 0.9, 100.0: 0.8}) == 10.0


# sgd


def by_plain_loop(rate, *, epochs, size, seed):
    """The law at the top of linear_sgd.py, in float64."""
    weights, velocity = np.zeros((2, 6, K))
    rng, n, step = np.random.default_rng(seed), len(TRAIN.label), 0
    for _ in range(epochs):
        order = rng.permutation(n)
        for begin in range(0, n - size + 1, size):
            rows = order[begin : begin + size]
            x = np.pad(TRAIN.features[rows].astype(np.float64), ((0, 0), (0, 1)), constant_values=1)
            logits = x @ weights
            shares = np.exp(logits - logits.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            gradient = x.T @ (shares - np.eye(K)[TRAIN.label[rows]]) / size
            velocity = 0.9 * velocity + gradient
            cosine = (1 + np.cos(np.pi * step / (epochs * (n // size)))) / 2
            weights = weights - rate * size / 256 * cosine * velocity
            step += 1
    return weights


def test_steps_are_those_of_the_plain_loop_and_rates_do_not_meet():
    solver = GradientDescent(epochs=3, examples_per_step=16, seed=5)
    rates = (0.01, 1.0, 5.0)
    for rate, found in zip(rates, solver.fit(TRAIN, rates, num_classes=K), strict=True):
        expected = by_plain_loop(rate, epochs=3, size=16, seed=5)
        # 18 steps in float32
        np.testing.assert_allclose(found.weights, expected[:-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.bias, expected[-1], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(one(solver, rate).weights, found.weights, rtol=1e-5, atol=1e-6)


def test_long_descent_comes_to_the_optimum_without_penalty():
    """Clusters that overlap have one."""
    overlapping = Examples(*clusters(200, 3, k=K, spread=2.0))
    sgd = one(GradientDescent(epochs=300, examples_per_step=200), 3.0, overlapping)
    lbfgs = one(LogisticRegression(), 1e-6, overlapping)
    losses = [objective(c.weights, c.bias, 0.0, overlapping) for c in (sgd, lbfgs)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)  # it stops where the cosine ends


def test_rate_that_diverges_counts_nothing():
    huge = Examples(TRAIN.features * np.float32(1e18), TRAIN.label)
    solver = GradientDescent(strengths=(1e-36, 1e30), epochs=2)
    curve = solver.curve(huge, huge, num_classes=K)
    assert curve[1e30] == 0 < curve[1e-36]
    with pytest.raises(InputError, match=r"learning_rate 1e\+30 does not converge"):
        linear_classifier.choose_and_fit(solver, huge, None, num_classes=K, strengths=(1e30,))


# the protocol


def test_held_out_examples_are_a_random_share():
    rest, held_out = hold_out(TRAIN, share=0.25, seed=1)
    assert (len(rest.label), len(held_out.label)) == (76, 25)
    together = np.concatenate([rest.features, held_out.features])
    np.testing.assert_array_equal(np.unique(together, axis=0), np.unique(TRAIN.features, axis=0))
    others = hold_out(TRAIN, share=0.25, seed=2)[1]
    assert not np.array_equal(others.features, held_out.features)


def test_strength_is_chosen_on_held_out_examples_and_all_are_learned_from():
    protocol = LinearProbe(strengths=(1e6, 10.0, 1e3), held_out=0.3)
    probe = protocol.fit(TRAIN, num_classes=K)
    rest, held_out = hold_out(TRAIN, share=0.3, seed=0)
    expected = {
        l2: linear_classifier.accuracy(one(LogisticRegression(), l2, rest), held_out)
        for l2 in (10.0, 1e3, 1e6)
    }
    # One of the 30 may lie on a border: the search begins elsewhere, and stops near the optimum.
    assert probe.curve == pytest.approx(expected, abs=1.01 / 30)
    assert list(probe.curve) == sorted(expected)
    assert probe.strength == linear_classifier.best_of(probe.curve)
    whole = one(LogisticRegression(), probe.strength)
    np.testing.assert_allclose(probe.classifier.weights, whole.weights, atol=1e-3)


@pytest.mark.parametrize(
    "given, name",
    [
        (dict(strengths=(1.0, 100.0)), "l2"),
        (dict(solver="sgd", epochs=5, examples_per_step=32), "learning_rate"),
    ],
)
def test_report_tells_the_choice(given, name, tmp_path):
    protocol = LinearProbe(**given)
    report = protocol.measure({"train": split(TRAIN, K), "test": split(TEST, K)})
    assert list(report.metrics) == protocol.metric_names() == ["top1", "top5", f"chosen_{name}"]
    assert 0.5 < report.metrics["top1"] <= report.metrics["top5"] == 1  # of four classes
    curve = {row[name]: row["held_out_top1"] for row in report.tables["curve"]}
    assert report.metrics[f"chosen_{name}"] == linear_classifier.best_of(curve)
    is_at_edge = report.metrics[f"chosen_{name}"] in (min(curve), max(curve))
    assert report.tables["chosen_is_at_the_edge"] == is_at_edge
    report.pictures["strengths.png"](tmp_path / "strengths.png")
    picture = np.asarray(Image.open(tmp_path / "strengths.png").convert("L"))
    assert picture.std() > 1


def test_single_strength_is_taken_as_it_is():
    report = LinearProbe(strengths=(2.0,)).measure(
        {"train": split(TRAIN, K), "test": split(TEST, K)}
    )
    assert report.metrics["chosen_l2"] == 2.0 and not report.pictures and not report.tables


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(solver="adam"), "linear_probe.solver is 'adam'; allowed: lbfgs, sgd"),
        (dict(epochs=3), "linear_probe.epochs is 3, but solver 'lbfgs' has no such setting"),
        (dict(solver="sgd", max_iterations=3), "max_iterations is 3, but solver 'sgd' has no"),
        (dict(solver="sgd", epochs=0), "epochs is 0"),
        (dict(strengths=(1.0, 0.0)), "strengths is 0.0; allowed: more than 0"),
        (dict(strengths=(1.0, 1.0)), "strengths are"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        LinearProbe(**given)


@pytest.mark.parametrize("share", [0.0, 0.001, 1.0])
def test_held_out_needs_some_on_either_side(share):
    with pytest.raises(InputError, match=f"held_out is {share}, which is"):
        LinearProbe(held_out=share).fit(TRAIN, num_classes=K)


def test_training_split_of_published_weights_must_be_named():
    with pytest.raises(InputError, match="allowed: train"):
        LinearProbe().requests(settings(source="digits"), None)


@pytest.mark.parametrize("strength", [1e-60, 1e60])
def test_rates_that_single_precision_does_not_hold_are_refused(strength):
    with pytest.raises(InputError, match="out of single precision's range"):
        one(GradientDescent(epochs=1), strength)


def test_probe_that_diverges_is_refused_in_words():
    far = TEST._replace(features=TEST.features * np.float32(1e30))
    probe = LinearProbe(solver="sgd", strengths=(1e20,), epochs=1)
    with pytest.raises(InputError, match="allowed: (other strengths|numbers)"):
        probe.measure({"train": split(TRAIN, K), "test": split(far, K)})
