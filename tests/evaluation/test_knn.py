"""Weighted k-NN: exactly DINO's votes, however the bank is cut and whoever computes."""

import jax
import numpy as np
import pytest
from evaluation_checks import clusters, settings, split
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from vit_jax.errors import InputError
from vit_jax.evaluation import knn, nearest
from vit_jax.evaluation.knn import NearestNeighbours

K = 7  # classes
TRAIN, TEST = clusters(150, 6, k=K), clusters(60, 6, k=K, seed=1)


def found(*, k, train=TRAIN, test=TEST, temperature=0.07, **cut):
    neighbours = nearest.nearest(test[0], train[0], k=k, **cut)
    return knn.vote_hits(neighbours, train[1], test[1], K, temperature=temperature)


def hits_by_loops(*, k, temperature):
    """Each test image by itself, in float64; the classes with votes in the order of the votes."""
    right = {1: [], 5: []}
    units = [
        x.astype(float) / np.linalg.norm(x, axis=1, keepdims=True) for x in (TRAIN[0], TEST[0])
    ]
    for feature, label in zip(units[1], TEST[1], strict=True):
        similarity = [float(feature @ other) for other in units[0]]
        voters = sorted(range(len(similarity)), key=lambda i: -similarity[i])[:k]
        votes = {}
        for i in voters:
            votes.setdefault(TRAIN[1][i], 0.0)
            votes[TRAIN[1][i]] += np.exp(similarity[i] / temperature)
        order = sorted(votes, key=lambda c: -votes[c])
        for top in right:
            right[top].append(label in order[:top])
    return right


@pytest.mark.parametrize("k", [1, 3, 20, 150])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_votes_are_those_of_plain_loops(k, temperature):
    expected = hits_by_loops(k=k, temperature=temperature)
    hits = found(k=k, temperature=temperature)
    for top in (1, 5):
        np.testing.assert_array_equal(hits[top], expected[top])
    assert 0 < hits[1].mean() < 1


@pytest.mark.parametrize("k", [5, 20])
def test_votes_are_those_of_scikit_learn(k):
    """Whose distance is 1 - cosine, and which divides the votes by their sum."""
    neighbours = nearest.nearest(TEST[0], TRAIN[0], k=k)
    votes = knn.votes_of(neighbours, TRAIN[1], K)
    weights = lambda distance: np.exp((1 - distance) / 0.07)  # noqa: E731
    reference = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
    expected = reference.fit(*TRAIN).predict_proba(TEST[0])
    # Similarities in float32 are off by about 1e-7, which the temperature makes 15 times as much.
    share = votes / votes.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(share, expected, rtol=1e-5, atol=1e-7)


def test_neighbours_are_those_of_scikit_learn():
    got = nearest.nearest(TEST[0], TRAIN[0], k=9)
    reference = NearestNeighbors(n_neighbors=9, metric="cosine", algorithm="brute").fit(TRAIN[0])
    distance, position = reference.kneighbors(TEST[0])
    np.testing.assert_array_equal(got.position, position)
    np.testing.assert_allclose(1 - got.similarity, distance, atol=1e-6)  # of float32


@pytest.mark.parametrize(
    "queries_at_once, bank_at_once, num_devices", [(1, 150, 1), (8, 7, 8), (16, 149, 3)]
)
def test_nothing_depends_on_chunks_or_devices(queries_at_once, bank_at_once, num_devices):
    """Chunks smaller than k, with remainders, and more of them than there are queries."""
    whole = nearest.nearest(TEST[0], TRAIN[0], k=20)
    cut = nearest.nearest(
        TEST[0],
        TRAIN[0],
        k=20,
        queries_at_once=queries_at_once,
        bank_at_once=bank_at_once,
        devices=jax.devices()[:num_devices],
    )
    np.testing.assert_array_equal(cut.position, whole.position)
    np.testing.assert_allclose(cut.similarity, whole.similarity, rtol=1e-6)


def test_order_of_the_bank_and_lengths_of_features_make_no_difference():
    order = np.random.default_rng(3).permutation(len(TRAIN[1]))
    lengths = np.random.default_rng(4).uniform(0.1, 10, (len(order), 1)).astype(np.float32)
    other = (TRAIN[0][order] * lengths, TRAIN[1][order])
    for top, hits in found(k=20, train=other).items():
        np.testing.assert_array_equal(hits, found(k=20)[top])


def test_of_equals_the_first_is_nearer_and_the_first_class_wins():
    """Six copies of one image, in chunks of two; three classes of two votes each."""
    bank = np.tile(np.float32([[1, 2]]), (6, 1))
    got = nearest.nearest(bank[:1], bank, k=4, bank_at_once=2)
    np.testing.assert_array_equal(got.position, [[0, 1, 2, 3]])
    labels = np.array([2, 1, 2, 1, 0, 0])
    neighbours = nearest.nearest(bank[:1], bank, k=6)
    for label, is_hit in ((0, True), (1, False), (2, False)):
        hits = knn.vote_hits(neighbours, labels, np.array([label]), 3)
        assert hits[1] == [is_hit] and hits[5] == [True]


def test_class_without_a_vote_is_no_hit():
    bank = np.float32([[1, 0], [0, 1]])
    neighbours = nearest.nearest(bank[:1], bank, k=1)
    hits = knn.vote_hits(neighbours, np.array([4, 3]), np.array([0]), 5)
    assert not hits[1][0] and not hits[5][0]


def test_left_out_image_does_not_vote_for_itself():
    got = nearest.nearest(TRAIN[0], TRAIN[0], k=5, leave_one_out=True, bank_at_once=40)
    with_itself = nearest.nearest(TRAIN[0], TRAIN[0], k=6)
    np.testing.assert_array_equal(with_itself.position[:, 0], np.arange(len(TRAIN[1])))
    np.testing.assert_array_equal(got.position, with_itself.position[:, 1:])


def test_a_second_call_compiles_nothing(monkeypatch):
    """With other features, as after more steps of a training."""
    traced, share = [], nearest._merge_share
    monkeypatch.setattr(nearest, "_merge_share", lambda *a: traced.append(1) or share(*a))
    protocol, test = NearestNeighbours(k=3), split(clusters(61, 5, k=K), K)
    for scale in (1, 2, 3):
        bank = clusters(90, 5, k=K, spread=scale)
        protocol.measure({"train": split(bank, K), "test": test})
        assert len(traced) == 1


def test_report_of_several_numbers_of_voters():
    protocol = NearestNeighbours(k=(1, 20))
    report = protocol.measure({"train": split(TRAIN, K), "test": split(TEST, K)})
    assert list(report.metrics) == protocol.metric_names()
    assert report.metrics["top1_20nn"] == found(k=20)[1].mean()
    assert report.metrics["top5_1nn"] == report.metrics["top1_1nn"] == found(k=1)[1].mean()
    low, high = report.intervals["top1_20nn"]
    assert low < report.metrics["top1_20nn"] < high
    assert NearestNeighbours().metric_names() == ["top1", "top5"]


def test_bank_is_the_training_split_unless_another_is_named():
    def splits(protocol, training_split, **changed):
        requests = protocol.requests(settings(**changed), training_split)
        return {role: request.settings.split for role, request in requests.items()}

    assert splits(NearestNeighbours(), "train[:90%]") == {"train": "train[:90%]", "test": "test"}
    assert splits(NearestNeighbours(train="a"), "b")["train"] == "a"
    with pytest.raises(InputError, match="'test' learns from training examples, but no split"):
        splits(NearestNeighbours(), None)
    with pytest.raises(InputError, match="allowed: train, e.g."):  # another source has its own
        splits(NearestNeighbours(), "train", source="digits")
    same = NearestNeighbours(train="test", leave_one_out=True)
    assert splits(same, None, source="digits") == {"train": "test", "test": "test"}


@pytest.mark.parametrize("train, leave_one_out", [("test", False), ("train", True)])
def test_images_of_one_split_must_be_left_out_and_no_others(train, leave_one_out):
    protocol = NearestNeighbours(train=train, leave_one_out=leave_one_out)
    with pytest.raises(InputError, match=f"leave_one_out is {leave_one_out}, but images of"):
        protocol.requests(settings(), "train")


@pytest.mark.parametrize(
    "given, message",
    [
        (dict(k=0), "k is 0"),
        (dict(k=()), r"k is \(\); allowed"),
        (dict(k=(3, 3)), r"k is \(3, 3\); allowed"),
        (dict(temperature=0.0), "knn.temperature is 0.0; allowed: 0.003 or more"),
    ],
)
def test_settings_out_of_range_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        NearestNeighbours(**given)


@pytest.mark.parametrize(
    "train, message",
    [
        (split(clusters(5, 6, k=K), K), "k is 20, but there are 5 neighbours"),
        (split(TRAIN, K + 1), "train has 8 classes and test others, 7; allowed: the same"),
        (split((TRAIN[0] * np.nan, TRAIN[1]), K), "features of train are not all finite"),
    ],
)
def test_what_cannot_vote_is_refused(train, message):
    with pytest.raises(InputError, match=message):
        NearestNeighbours().measure({"train": train, "test": split(TEST, K, name="test")})


@pytest.mark.parametrize(
    "changed, message",
    [
        (dict(bank=TRAIN[0].astype(float) * 1e300), "bank are not all finite"),
        (dict(queries=TEST[0][:0]), "queries has shape"),
        (dict(leave_one_out=True), "60 queries and a bank of 150; allowed: as many"),
        (dict(k=0), "k is 0"),
    ],
)
def test_what_has_no_neighbours_is_refused(changed, message):
    given = dict(queries=TEST[0].astype(float), bank=TRAIN[0].astype(float), k=1) | changed
    with pytest.raises(InputError, match=message):
        nearest.nearest(given.pop("queries"), given.pop("bank"), **given)
