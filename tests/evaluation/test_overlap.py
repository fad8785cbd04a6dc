"""Splits that share examples are found out, whatever they are called."""

import dataclasses
from itertools import product

import numpy as np
import pytest
from evaluation_checks import clusters, settings, split

from vit_jax.data import splits
from vit_jax.data.pipeline import Origin
from vit_jax.errors import InputError
from vit_jax.evaluation import overlap
from vit_jax.evaluation.calibration import Calibration
from vit_jax.evaluation.knn import NearestNeighbours
from vit_jax.evaluation.overlap import NOBODY, places_in
from vit_jax.evaluation.retrieval import Retrieval

DIGITS = Origin(source="digits")
SPLITS = ("test", "test[:100%]", "test[:5]+train[3:40]", "train[30:]", "test[2:9]")


@pytest.mark.parametrize("one, other", list(product(SPLITS, SPLITS)))
def test_places_are_those_of_the_same_descriptions(one, other):
    one, other = (DIGITS.open(name) for name in (one, other))
    there = {other.describe(i): i for i in range(len(other))}
    expected = [there.get(one.describe(i), NOBODY) for i in range(len(one))]
    np.testing.assert_array_equal(places_in(one, other), expected)


def test_parts_of_parts_and_other_labels_are_seen_through():
    base = DIGITS.open("test[10:]")
    part = splits.select({"a": lambda: base}, "a[5:9]+a[:2]", name="n")
    order = dataclasses.replace(DIGITS, labels={"name": "numbers"})
    for other in (DIGITS.open("test"), order.open("test", class_names=tuple("0123456789"))):
        assert places_in(part, other).tolist() == [15, 16, 17, 18, 10, 11]
    with pytest.raises(InputError, match="has an example of .* more than once; allowed: each"):
        places_in(part, DIGITS.open("test+test"))


@pytest.mark.parametrize("other", ["test", "test[:100%]", "test[359:]", "train+test[:3]"])
def test_what_learns_from_what_is_scored_is_refused(other):
    sources = {"test": DIGITS.open("test"), "train": DIGITS.open(other)}
    sources["fit"] = sources["train"]
    for protocol in (NearestNeighbours(train=other), Calibration(fit=other)):
        with pytest.raises(InputError, match="examples are in .*, which is scored; allowed"):
            protocol.check_sources(sources)
        protocol.check_sources(sources | dict.fromkeys(("train", "fit"), DIGITS.open("train")))


def test_copies_do_not_vote_for_themselves():
    twice = DIGITS.open("test+test")
    with pytest.raises(InputError, match="more than once"):
        NearestNeighbours(leave_one_out=True).check_sources({"test": twice, "train": twice})


def made_of(name, rows):
    """Some of 40 images; the split `name` has those at `rows`."""
    features, label = clusters(40, 3, k=4)
    source = DIGITS.open(name)
    found = split((features[rows], label[rows]), 4, name=name, source=source)
    assert len(source) == len(rows)
    return found


def test_queries_do_not_find_themselves_in_a_gallery_of_another_name():
    protocol = Retrieval(gallery=settings().__dict__, at=(1, 3), sheet=0)
    queries = made_of("test[:30]", np.arange(30))
    alone = Retrieval(at=(1, 3), sheet=0).measure({"test": queries})
    for name in ("test[:10]+test[10:30]", "test[0:30]"):
        gallery = made_of(name, np.arange(30))
        assert protocol.measure({"test": queries, "gallery": gallery}) == alone
    # Of a gallery with some of the queries only these are left out.
    gallery = made_of("test[20:40]", np.arange(20, 40))
    found = protocol.measure({"test": queries, "gallery": gallery})
    parts = []
    for rows, others in ((np.arange(20), None), *(([i], [i]) for i in range(20, 30))):
        kept = np.setdiff1d(np.arange(20, 40), others or [])
        one = split(tuple(x[rows] for x in clusters(40, 3, k=4)), 4)
        other = split(tuple(x[kept] for x in clusters(40, 3, k=4)), 4)
        parts += [protocol.measure({"test": one, "gallery": other}).metrics["map"]] * len(rows)
    assert found.metrics["map"] == pytest.approx(np.mean(parts), abs=1e-12)


def test_sources_of_other_lengths_or_places_are_others():
    base = DIGITS.open("test")
    other = splits.Selection("other", [splits.Part(base, 0, 5)])
    other.ranges = lambda: [splits.Range(other, 0, 5)]
    assert (overlap.places_in(base, other) == NOBODY).all()
