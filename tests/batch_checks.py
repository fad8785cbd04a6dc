"""Batches taken, put together and compared."""

import itertools

import numpy as np

LABELLED = {"image", "label", "mask", "index"}  # what a batch of labelled images holds


def take(iterator, n):
    taken = list(itertools.islice(iterator, n))
    iterator.close()
    return taken


def joined(parts):
    """The rows of several batches as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def assert_same(found, expected, *, fields=LABELLED):
    """Bit for bit, and of these fields; None takes those that are expected."""
    assert found.keys() == expected.keys() == (expected.keys() if fields is None else fields)
    for name in expected:
        assert found[name].dtype == expected[name].dtype
        assert np.array_equal(found[name], expected[name]), name
