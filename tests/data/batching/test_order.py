"""The order of examples is arithmetic: permutations, exact shares, and nothing remembered."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from vit_jax.data.batching.order import PATTERN, Order, hashed, permute
from vit_jax.errors import InputError

SIGNIFICANCE = 1e-4  # the seeds are fixed, so a test that passes once always does


def take(order, n, first=0):
    return order(np.arange(first, first + n))


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 1437, 2**12, 2**12 + 1])
def test_each_epoch_is_a_permutation(n):
    order = Order(lengths=(n,), seed=3)
    found = take(order, 5 * n).reshape(5, n)
    assert np.all(np.sort(found) == np.arange(n))


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_all_permutations_of_a_few_examples_are_equally_likely(n):
    each, number = 200, math.factorial(n)
    keys = hashed(1, 0, np.arange(each * number))
    places = np.tile(np.arange(n), each * number)
    found = permute(places, n, np.repeat(keys, n)).reshape(-1, n)
    counts = Counter(map(tuple, found.tolist()))
    assert len(counts) == number
    assert stats.chisquare(list(counts.values())).pvalue > SIGNIFICANCE


def test_large_permutations_have_no_structure():
    n = 200_000
    found = permute(np.arange(n), n, hashed(1, 0, 7))
    # Neighbours land anywhere, and so does the first tenth of the source.
    for values in (np.diff(found) % n, found[: n // 10]):
        counts, _ = np.histogram(values, bins=100, range=(0, n))
        assert stats.chisquare(counts).pvalue > SIGNIFICANCE
    fixed_points = np.sum(found == np.arange(n))  # Poisson with mean 1
    assert fixed_points < 10


def test_any_position_can_be_asked_for_alone():
    order = Order(lengths=(10**12,), seed=3)  # nothing is stored for an example
    whole = take(order, 50, first=10**13)
    alone = [int(order(np.array([p]))[0]) for p in range(10**13, 10**13 + 50)]
    assert whole.tolist() == alone and len(set(alone)) == 50
    assert min(alone) >= 0 and max(alone) < 10**12


def test_seeds_and_epochs_differ():
    orders = {
        (seed, epoch): take(Order(lengths=(1000,), seed=seed), 1000, first=1000 * epoch)
        for seed, epoch in itertools.product((0, 1, 2**32 - 1), (0, 1, 2))
    }
    for one, other in itertools.combinations(orders.values(), 2):
        assert np.mean(one == other) < 0.01


def test_without_shuffle_epochs_are_alike():
    order = Order(lengths=(5,), seed=3, shuffle=False)
    assert take(order, 12).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]


def test_repeats_follow_one_another_with_other_random_numbers():
    once, thrice = (Order(lengths=(50,), seed=3, repeats=r) for r in (1, 3))
    assert np.array_equal(take(thrice, 300), np.repeat(take(once, 100), 3))
    draws = [thrice.generator(p).random() for p in range(300)]
    assert len(set(draws)) == 300
    assert draws[7] == thrice.generator(7).random() == once.generator(7).random()
    assert draws[7] != Order(lengths=(50,), seed=4).generator(7).random()


# mixtures


def source_of(lengths, found):
    return np.searchsorted(np.cumsum(lengths), found, side="right")


@pytest.mark.parametrize("weights", [(1, 1), (3.0, 1.0), (0.2, 0.3, 0.5), (1, 1000), (7, 1, 1, 1)])
def test_shares_are_exact_and_even(weights):
    lengths = tuple(range(5, 5 + len(weights)))
    order = Order(lengths=lengths, seed=3, weights=weights)
    chosen = source_of(lengths, take(order, 3 * PATTERN))
    share = np.asarray(weights) / sum(weights)
    counts = np.array([np.cumsum(chosen == k) for k in range(len(weights))])
    assert np.all(np.abs(counts[:, -1] - 3 * PATTERN * share) <= 3)  # shares round to 1 / PATTERN
    expected = share[:, None] * np.arange(1, 3 * PATTERN + 1)
    assert np.abs(counts - expected).max() < 4  # at every moment, not just in the end


def test_each_source_runs_through_its_own_epochs():
    lengths = (10, 33)
    order = Order(lengths=lengths, seed=3, weights=(1, 3))
    found = take(order, 2 * PATTERN)
    for k, first in enumerate((0, 10)):
        own = found[source_of(lengths, found) == k] - first
        own = own[: len(own) // lengths[k] * lengths[k]].reshape(-1, lengths[k])
        assert np.all(np.sort(own) == np.arange(lengths[k]))
        alone = Order(lengths=(lengths[k],), seed=3)
        if k == 0:  # the first source's keys are those of a source alone
            assert np.array_equal(own.ravel(), take(alone, own.size))
        else:
            assert not np.array_equal(own.ravel(), take(alone, own.size))


def test_mixtures_can_be_asked_anywhere_and_keep_order_without_shuffle():
    order = Order(lengths=(4, 6), seed=0, weights=(1, 1), shuffle=False)
    assert take(order, 8).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    whole = take(order, 3 * PATTERN)
    assert [int(order(np.array([p]))[0]) for p in range(PATTERN - 3, PATTERN + 3)] == whole[
        PATTERN - 3 : PATTERN + 3
    ].tolist()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**32}, "whole number below"),
        ({"seed": 1.0}, "seed is 1.0"),
        ({"repeats": 0}, "repeats is 0"),
        ({"lengths": (3, 4)}, "2 sources need 2 weights"),
        ({"lengths": (3, 4), "weights": (1.0,)}, "allowed: 2 numbers above 0"),
        ({"lengths": (3, 4), "weights": (1.0, 0.0)}, "allowed: 2 numbers above 0"),
        ({"lengths": (3, 4), "weights": (1.0, math.inf)}, "allowed: 2 numbers above 0"),
        ({"lengths": (3, 4), "weights": (1.0, 1e9)}, "at least 1/4096"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        Order(**{"lengths": (3,), "seed": 0, **changed})
