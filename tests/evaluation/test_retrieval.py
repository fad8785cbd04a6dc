"""Retrieval is what plain loops, torchmetrics and scikit-learn make of it; ties go by position."""

import jax
import numpy as np
import pytest
from evaluation_checks import clusters, settings, split
from references import load_torchmetrics
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score
from sklearn.neighbors import NearestNeighbors

from vit_jax.errors import InputError
from vit_jax.evaluation import retrieval
from vit_jax.evaluation.features import Examples
from vit_jax.evaluation.index import Index
from vit_jax.evaluation.retrieval import GALLERY, Retrieval

K = 5  # classes
QUERIES = Examples(*clusters(40, 6, k=K, seed=1, spread=1.5))
GALLERY_IMAGES = Examples(*clusters(70, 6, k=K, seed=2, spread=1.5))


def cosines(queries, gallery):
    unit = [x.astype(float) / np.linalg.norm(x, axis=1, keepdims=True) for x in (queries, gallery)]
    return unit[0] @ unit[1].T


def by_loops(queries, gallery, *, at, is_own):
    """Each query by itself."""
    similarity, found = cosines(queries[0], gallery[0]), []
    for i, label in enumerate(queries[1]):
        order = sorted(range(len(gallery[1])), key=lambda j: (-similarity[i, j], j))
        hits = [gallery[1][j] == label for j in order if not (is_own and i == j)]
        relevant = sum(hits)
        precisions = [sum(hits[: r + 1]) / (r + 1) for r in range(len(hits))]
        row = {f"recall_at_{k}": float(any(hits[:k])) for k in at}
        terms = [p for p, hit in zip(precisions, hits, strict=True) if hit]
        row["map"] = sum(terms) / relevant
        row["map_at_r"] = sum(
            p for p, h in list(zip(precisions, hits, strict=True))[:relevant] if h
        )
        row["map_at_r"] /= relevant
        found.append(row)
    return {name: np.mean([row[name] for row in found]) for name in found[0]}


def outputs(examples, **changed):
    return split(examples, K, **changed)


@pytest.mark.parametrize("is_own", [True, False])
def test_metrics_are_those_of_plain_loops(is_own):
    protocol = Retrieval(gallery=None if is_own else dict(split="train"), at=(1, 3, 10), sheet=0)
    gallery = QUERIES if is_own else GALLERY_IMAGES
    report = protocol.measure({"test": outputs(QUERIES), GALLERY: outputs(gallery)})
    expected = by_loops(QUERIES, gallery, at=(1, 3, 10), is_own=is_own)
    assert list(report.metrics) == protocol.metric_names() == list(expected)
    for name, value in expected.items():
        assert report.metrics[name] == pytest.approx(value, abs=1e-12), name
        low, high = report.intervals[name]
        assert 0 <= low <= value <= high <= 1
    assert report.scored == len(QUERIES[1])
    assert 0 < report.metrics["map_at_r"] < report.metrics["map"] < report.metrics["recall_at_10"]


def test_average_precision_is_that_of_scikit_learn():
    similarity = cosines(QUERIES[0], GALLERY_IMAGES[0])
    is_relevant = QUERIES[1][:, None] == GALLERY_IMAGES[1]
    found = retrieval.score(QUERIES, GALLERY_IMAGES, at=(1,)).precision
    expected = [
        average_precision_score(*rows) for rows in zip(is_relevant, similarity, strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    ranking = label_ranking_average_precision_score(is_relevant, similarity)
    assert found.mean() == pytest.approx(ranking, rel=1e-12)


@pytest.mark.reference
def test_metrics_are_those_of_torchmetrics():
    load_torchmetrics()
    import torch
    from torchmetrics import retrieval as metrics

    # It takes what has a score of 0 or less to be found never.
    similarity = torch.tensor(1 + cosines(QUERIES[0], GALLERY_IMAGES[0]))
    target = torch.tensor(QUERIES[1][:, None] == GALLERY_IMAGES[1])
    query = torch.arange(len(similarity))[:, None].expand(similarity.shape)
    found = retrieval.score(QUERIES, GALLERY_IMAGES, at=(1, 5))
    pairs = [(metrics.RetrievalMAP(), found.precision)]
    pairs += [(metrics.RetrievalHitRate(top_k=k), found.recall[k]) for k in (1, 5)]
    for reference, values in pairs:
        expected = reference(similarity.ravel(), target.ravel(), indexes=query.ravel()).item()
        assert values.mean() == pytest.approx(expected, rel=1e-6)  # of float32


@pytest.mark.parametrize("at_once", [1, 70, 71, 1000, 2**20])
def test_nothing_depends_on_how_many_queries_are_ranked_at_once(at_once):
    """Not even among images that are the same, whose order is that of the gallery."""
    features = np.concatenate([GALLERY_IMAGES[0][:35]] * 2)
    orders = [
        np.concatenate([order for _, order in retrieval.rankings(*given, **cut)])
        for given in [(QUERIES[0], features)]
        for cut in ({}, {"at_once": at_once})
    ]
    np.testing.assert_array_equal(*orders)
    assert (
        np.diff(np.argsort(orders[0], axis=1).reshape(len(orders[0]), 2, 35), axis=1) == 1
    ).all()


def test_order_is_that_of_a_stable_sort():
    rng = np.random.default_rng(0)
    similarity = rng.integers(-3, 4, size=(20, 50)).astype(np.float32) / 3
    similarity[:, ::7] *= -0.0  # zeros of either sign are the same
    similarity[0, 3] = -np.inf
    expected = np.argsort(-(similarity + np.float32(0)), axis=1, kind="stable")
    np.testing.assert_array_equal(retrieval.most_similar_first(similarity), expected)


def test_queries_with_nothing_to_find_do_not_count():
    label = QUERIES[1].copy()
    label[:7] = K  # a class that the gallery lacks
    queries, gallery = (split(x, K + 1) for x in ((QUERIES[0], label), GALLERY_IMAGES))
    protocol = Retrieval(gallery=dict(split="train"), sheet=0)
    report = protocol.measure({"test": queries, GALLERY: gallery})
    rest = by_loops((QUERIES[0][7:], label[7:]), GALLERY_IMAGES, at=(1,), is_own=False)
    assert report.metrics["map"] == pytest.approx(rest["map"], abs=1e-12)
    assert report.scored == 33
    with pytest.raises(InputError, match="no image of train has its class in train; allowed"):
        protocol.measure({"test": split((QUERIES[0], 0 * label + K), K + 1), GALLERY: gallery})


@pytest.mark.parametrize("k", [1, 4, 70])
def test_index_finds_what_scikit_learn_finds(k):
    index = Index(GALLERY_IMAGES[0])
    reference = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute")
    distance, position = reference.fit(GALLERY_IMAGES[0]).kneighbors(QUERIES[0])
    found = index.search(QUERIES[0], k)
    np.testing.assert_array_equal(found.position, position)
    np.testing.assert_allclose(1 - found.similarity, distance, atol=1e-6)  # of float32
    assert len(jax.local_devices()) == 8  # which shared the queries


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e38])
def test_length_does_not_matter_however_large_or_small(size):
    scale = size / np.abs(GALLERY_IMAGES[0]).max()
    found = Index(GALLERY_IMAGES[0] * scale).search(QUERIES[0], 3)
    expected = Index(GALLERY_IMAGES[0]).search(QUERIES[0], 3)
    np.testing.assert_array_equal(found.position, expected.position)


def test_a_saved_index_answers_as_before(tmp_path):
    index = Index(GALLERY_IMAGES[0], label=GALLERY_IMAGES[1], class_names=tuple("abcde"))
    for name in ("plain", "with.npz"):
        index.save(tmp_path / name)
        again = Index.load(tmp_path / name)
        assert (again.class_names, len(again)) == (index.class_names, 70)
        np.testing.assert_array_equal(again.label, index.label)
        for one, other in zip(
            index.search(QUERIES[0], 3), again.search(QUERIES[0], 3), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    Index(GALLERY_IMAGES[0]).save(tmp_path / "bare")
    assert Index.load(tmp_path / "bare").label is None


def test_the_index_of_the_gallery_is_saved_when_asked_for(tmp_path):
    """And finds what was scored."""
    protocol = Retrieval(gallery=dict(split="train"), at=(1,), sheet=0, save_index=True)
    report = protocol.measure({"test": outputs(QUERIES), GALLERY: outputs(GALLERY_IMAGES)})
    report.files["index.npz"](tmp_path / "index.npz")
    index = Index.load(tmp_path / "index.npz")
    assert index.class_names == outputs(GALLERY_IMAGES).class_names
    found = index.label[index.search(QUERIES[0], 1).position[:, 0]]
    assert (found == QUERIES[1]).mean() == report.metrics["recall_at_1"]


def test_sheet_frames_what_is_right(tmp_path):
    tiny = (QUERIES[0][:6], QUERIES[1][:6])
    asked = []

    def images(positions):
        asked.extend(positions)
        return [np.full((4, 4, 1), 40 * p, np.uint8) for p in positions]

    report = Retrieval(sheet=3).measure({"test": split(tiny, K, images=images)})
    report.pictures["neighbours.png"](tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000 and not report.files
    # Three queries, each followed by all others.
    assert [asked[i] for i in (0, 6, 12)] == [0, 2, 5]
    assert all(sorted(asked[i : i + 6]) == list(range(6)) for i in (0, 6, 12))


def test_mistakes_are_told(tmp_path):
    index = Index(GALLERY_IMAGES[0])
    with pytest.raises(InputError, match=r"at is \[0\]; allowed"):
        Retrieval(at=(0,))
    with pytest.raises(InputError, match="sheet is -1; allowed"):
        Retrieval(sheet=-1)
    with pytest.raises(InputError, match="retrieval.gallery has unknown key 'splt'"):
        Retrieval(gallery=dict(splt="train")).requests(settings(), "train")
    with pytest.raises(InputError, match="the examples have labels; allowed: with label"):
        Retrieval().check("test", {"labels"})
    with pytest.raises(InputError, match="gallery other has other classes than train; allowed"):
        gallery = split(GALLERY_IMAGES, K + 1, name="other")
        Retrieval(gallery={}).measure({"test": outputs(QUERIES), GALLERY: gallery})
    with pytest.raises(InputError, match="train has 1 example; allowed: two"):
        Retrieval().measure({"test": split((QUERIES[0][:1], QUERIES[1][:1]), K)})
    with pytest.raises(InputError, match="k is 71, but there are 70"):
        index.search(QUERIES[0], 71)
    with pytest.raises(InputError, match="k is 0; allowed: 1 to 70"):
        index.search(QUERIES[0], 0)
    with pytest.raises(InputError, match="queries have 5 channels; allowed: 6"):
        index.search(QUERIES[0][:, :5], 1)
    with pytest.raises(InputError, match="not all finite; allowed"):
        Index(np.full((2, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="no image; allowed"):
        Index(np.zeros((0, 3), np.float32))
    with pytest.raises(InputError, match="70 images and 2 labels; allowed"):
        Index(GALLERY_IMAGES[0], label=np.array([0, 1]))
    with pytest.raises(InputError, match="labels are no whole numbers"):
        Index(GALLERY_IMAGES[0], label=np.array(["a"] * 70))
    with pytest.raises(InputError, match="not all finite; allowed"):  # in single precision
        Index(np.full((2, 3), 1e39))
    with pytest.raises(InputError, match="k is True; allowed: 1 to 70"):
        index.search(QUERIES[0], True)
    with pytest.raises(InputError, match="there are no queries; allowed"):
        index.search(QUERIES[0][:0], 1)
    for rows in (QUERIES[0][0], np.array([["a"] * 6])):
        with pytest.raises(InputError, match="a row an image"):
            index.search(rows, 1)
        with pytest.raises(InputError, match="a row an image"):
            Index(rows)
    np.save(tmp_path / "array.npy", QUERIES[0])
    (tmp_path / "empty.npz").touch()
    for name in ("array.npy", "empty.npz"):
        with pytest.raises(InputError, match=f"cannot read the index .*{name}"):
            Index.load(tmp_path / name)
    (tmp_path / "bad.npz").write_text("no index")
    with pytest.raises(InputError, match="cannot read the index .*bad.npz"):
        Index.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "other.npz", x=1)
    with pytest.raises(InputError, match="holds x; allowed: features"):
        Index.load(tmp_path / "other.npz")
