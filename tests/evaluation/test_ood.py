"""Scores and their separation are those of scikit-learn and SciPy; ranks alone count.

Letters: n in; m out; k classes.
"""

import functools

import numpy as np
import pytest
from evaluation_checks import clusters, settings, split
from scipy import special
from sklearn import metrics
from sklearn.covariance import EmpiricalCovariance
from sklearn.neighbors import NearestNeighbors

from vit_jax.errors import InputError
from vit_jax.evaluation import ood_scores, separation
from vit_jax.evaluation.index import Index
from vit_jax.evaluation.ood import BY_FEATURES, BY_LOGITS, OutOfDistribution

K = 4
TRAIN, TEST = clusters(120, 6, k=K), clusters(60, 6, k=K, seed=1)
OTHER = np.random.default_rng(5).normal(0.5, 1.5, size=(45, 6)).astype(np.float32)


def groups(n, m, *, seed=0, with_ties=False):
    rng = np.random.default_rng(seed)
    found = rng.normal(1, 1, n), rng.normal(0, 1, m)
    return [np.round(x, 1) if with_ties else x for x in found]


@pytest.mark.parametrize("with_ties", [False, True])
@pytest.mark.parametrize("n, m", [(1, 1), (20, 31), (300, 7), (19, 200)])
def test_separation_is_that_of_scikit_learn(n, m, with_ties):
    inside, outside = groups(n, m, with_ties=with_ties)
    is_in, values = np.arange(n + m) < n, np.concatenate([inside, outside])
    false, true, _ = metrics.roc_curve(is_in, values, drop_intermediate=False)
    expected = {
        "auroc": metrics.roc_auc_score(is_in, values),
        "aupr_in": metrics.average_precision_score(is_in, values),
        "aupr_out": metrics.average_precision_score(~is_in, -values),
        "fpr95": false[true >= 0.95 - 1e-9].min(),  # of twenty, nineteen are enough
    }
    found = separation.measure(inside, outside)
    assert tuple(found) == separation.MEASURES
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name


def test_ranks_alone_count_and_exchanging_the_groups_mirrors():
    inside, outside = groups(50, 40, with_ties=True)
    plain = separation.measure(inside, outside)
    bent = separation.measure(np.exp(inside) + 3, np.exp(outside) + 3)
    assert plain == pytest.approx(bent)
    assert separation.auroc(outside, inside) == pytest.approx(1 - plain["auroc"])
    assert separation.measure(outside + 99, outside) == dict(
        auroc=1.0, aupr_in=1.0, aupr_out=1.0, fpr95=0.0
    )
    assert separation.auroc(np.zeros(3), np.zeros(5)) == 0.5


def test_interval_is_the_bootstrap_of_the_measure_itself():
    inside, outside = groups(40, 30, with_ties=True)
    rngs = np.random.default_rng(3), np.random.default_rng((3, 5))  # of what is in, of source 5
    pairs, found = list(zip((inside, outside), rngs, strict=True)), []
    for _ in range(100):
        drawn = [x[rng.integers(len(x), size=len(x))] for x, rng in pairs]
        found.append(list(separation.measure(*drawn).values()))
    samples = separation.samples(inside, outside, num_samples=100, seed=3, source=5)
    np.testing.assert_allclose(samples, found, rtol=1e-12)
    for (name, ends), column in zip(separation.intervals(samples).items(), samples.T, strict=True):
        np.testing.assert_allclose(ends, np.quantile(column, [0.025, 0.975]), rtol=1e-12)
        assert ends.low <= separation.measure(inside, outside)[name] <= ends.high


def test_scores_of_logits_are_those_of_scipy():
    logits = np.random.default_rng(0).normal(0, 30, size=(50, K)).astype(np.float32)
    as_double = logits.astype(np.float64)
    probability = special.softmax(as_double, axis=1).max(axis=1)
    np.testing.assert_allclose(ood_scores.max_probability(logits), probability, rtol=1e-12)
    np.testing.assert_array_equal(ood_scores.max_logit(logits), [max(row) for row in logits])
    for t in (0.5, 1.0, 10.0):
        expected = t * special.logsumexp(as_double / t, axis=1)
        found = ood_scores.energy(logits, temperature=t)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    extreme = np.array([[1e4, -1e4, 0.0, 0.0]], np.float32)
    assert ood_scores.max_probability(extreme) == 1 and ood_scores.energy(
        extreme, temperature=1.0
    ) == pytest.approx(1e4)


@pytest.mark.parametrize("is_singular", [False, True])
def test_mahalanobis_is_that_of_scikit_learn(is_singular, monkeypatch):
    monkeypatch.setattr(ood_scores, "AT_ONCE", 50)  # parts with a remainder
    train, other = (np.asarray(x, np.float64) for x in (TRAIN[0], OTHER))
    if is_singular:  # a channel that is the sum of two, and one that never changes
        train, other = (
            np.concatenate([x, x[:, :1] + x[:, 1:2], np.ones((len(x), 1))], axis=1)
            for x in (train, other)
        )
    label = 3 * TRAIN[1] + 1  # need not be 0, 1, ...
    means = [train[label == k].mean(axis=0) for k in np.unique(label)]
    residuals = train - np.array(means)[TRAIN[1]]
    tied = EmpiricalCovariance(assume_centered=True).fit(residuals)
    distance = np.min([tied.mahalanobis(other - mean) for mean in means], axis=0)
    fitted = ood_scores.fit_gaussians(train, label)
    np.testing.assert_allclose(-fitted.score(other), distance, rtol=1e-6)
    background = EmpiricalCovariance().fit(train).mahalanobis(other)
    np.testing.assert_allclose(fitted.relative_score(other), background - distance, rtol=1e-5)


def test_mahalanobis_does_not_change_under_linear_maps():
    """So that no channel's unit matters."""
    bend = np.random.default_rng(1).normal(size=(6, 6)) + 2 * np.eye(6)
    plain = ood_scores.fit_gaussians(TRAIN[0].astype(float), TRAIN[1]).score(OTHER)
    bent = ood_scores.fit_gaussians(TRAIN[0] @ bend + 5, TRAIN[1]).score(OTHER @ bend + 5)
    np.testing.assert_allclose(plain, bent, rtol=1e-6)


@pytest.mark.parametrize("k", [1, 7])
def test_nearness_is_that_of_scikit_learn(k):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (TRAIN[0], OTHER)]
    expected = NearestNeighbors(n_neighbors=k).fit(unit[0]).kneighbors(unit[1])[0][:, -1]
    found = ood_scores.nearness(Index(TRAIN[0]), OTHER, k=k)
    np.testing.assert_allclose(-found, expected, atol=1e-3, rtol=1e-3)  # a root of float32


def with_logits(features, label=None):
    label = np.zeros(len(features), int) if label is None else label
    return split((features, label), K, logits=(features[:, :K] * 2).astype(np.float32))


def test_the_protocol_reports_each_source_and_their_mean(tmp_path, monkeypatch):
    few = functools.partial(separation.samples, num_samples=50)
    monkeypatch.setattr(separation, "samples", few)
    names = (*BY_LOGITS, *BY_FEATURES)
    protocol = OutOfDistribution(
        out={"near": dict(source="digits", split="test"), "far": dict(source="digits", split="a")},
        scores=names,
        neighbours=5,
    )
    requests = protocol.requests(settings(batch_size=7), "train")
    assert list(requests) == ["train", "test", "out/near", "out/far"]
    assert requests["out/far"].own_classes and requests["out/far"].settings.batch_size == 7
    assert protocol.reads == ("logits", "representation")
    outputs = {
        "train": with_logits(*TRAIN),
        "test": with_logits(*TEST),
        "out/near": with_logits(OTHER),
        "out/far": with_logits(10 + 4 * OTHER),
    }
    report = protocol.measure(outputs)
    assert set(report.metrics) == set(protocol.metric_names())
    for name in names:
        for measure in separation.MEASURES:
            parts = [report.metrics[f"{source}_{name}_{measure}"] for source in ("near", "far")]
            assert report.metrics[f"{name}_{measure}"] == pytest.approx(np.mean(parts))
    assert report.metrics["far_mahalanobis_auroc"] > 0.99
    assert report.metrics["near_mahalanobis_auroc"] > 0.6
    expected = separation.measure(
        ood_scores.energy(outputs["test"].logits, temperature=1.0),
        ood_scores.energy(outputs["out/near"].logits, temperature=1.0),
    )
    assert report.metrics["near_energy_auroc"] == expected["auroc"]
    assert report.intervals.keys() == report.metrics.keys()
    for name in ("near_energy_auroc", "energy_auroc", "energy_aupr_in"):
        low, high = report.intervals[name]
        assert low < report.metrics[name] < high
    assert not report.tables
    few = (TRAIN[0][: K + 5], TRAIN[1][: K + 5])
    note = protocol.measure(outputs | {"train": with_logits(*few)}).tables["mahalanobis"]
    assert note.startswith("9 training examples of 4 classes tell the covariance in 5 of 6")
    report.pictures["scores.png"](tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_only_what_is_needed_is_asked_for():
    out = {"other": dict(source="digits", split="test")}
    by_logits = OutOfDistribution(out=out, scores=("msp",))
    assert by_logits.reads == ("logits",)
    assert list(by_logits.requests(settings(), None)) == ["test", "out/other"]
    by_features = OutOfDistribution(out=out, scores=("knn",))
    assert by_features.reads == ("representation",)
    with pytest.raises(InputError, match="no split of them is given; allowed: train"):
        by_features.requests(settings(), None)


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(out={}), "out is empty; allowed"),
        (dict(scores=()), "scores is empty; allowed"),
        (dict(scores=("odin",)), "scores is 'odin'; allowed: msp"),
        (dict(temperature=0.0), "temperature is 0.0; allowed: above 0"),
        (dict(neighbours=0), "neighbours is 0"),
    ],
)
def test_mistakes_are_told(given, message):
    with pytest.raises(InputError, match=message):
        OutOfDistribution(**{"out": {"x": dict(split="test")}, **given})


def test_other_mistakes_are_told():
    protocol = OutOfDistribution(out={"x": dict(split="a")})
    protocol.check("out/x", {"labels"})  # whose labels nobody reads
    with pytest.raises(InputError, match="the examples have labels; allowed: with label"):
        protocol.check("train", {"labels"})
    with pytest.raises(InputError, match="ood.out.x has unknown key 'splits'"):
        OutOfDistribution(out={"x": dict(splits="a")}).requests(settings(), "train")
    with pytest.raises(InputError, match="representations of a class are the same; allowed"):
        ood_scores.fit_gaussians(np.ones((4, 3), np.float32), np.zeros(4, int))
    with pytest.raises(InputError, match="not all finite"):
        separation.measure(np.array([np.nan]), np.ones(2))
