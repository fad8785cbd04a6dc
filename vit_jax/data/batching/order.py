"""Which example comes when: from a position in the endless stream of training to an example.

Position p counts the rows of all global batches: row r of batch k is position k * B + r. What is
there follows from (seed, p) by arithmetic alone, so any step can be asked for at once, by any
host or worker; nothing is stored, whatever the number of examples.

An epoch is a permutation of the examples, computed place by place with a "swap-or-not" shuffle
(Hoang, Morris and Rogaway 2012, arXiv:1208.1176). A Feistel network would need fewer rounds, but
its permutations of a few examples were found to be far from equally likely.

Letters: B = examples of a global batch; n = examples of a source; p = position.
"""

import functools
import operator
from dataclasses import dataclass

import numpy as np

from vit_jax import sections
from vit_jax.errors import InputError

ROUNDS = 48  # twelve already pass the tests of tests/data/batching/test_order.py
PATTERN = 4096  # positions after which the mixture of sources repeats
# Multipliers of splitmix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom generators").
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True, kw_only=True)
class Order:
    """The endless order of training examples.

    Attributes:
      lengths: n of each source; their examples are numbered one source after the other.
      seed: 0 to 2**32 - 1.
      shuffle: False keeps the order of each source in every epoch.
      weights: each source's share of the positions, in any unit; None where there is one source.
        Shares are rounded to 1 / PATTERN, and each source runs through its own epochs.
      repeats: times that an example is seen in a row, each time augmented anew (repeated
        augmentation, arXiv:1902.05509).
    """

    lengths: tuple[int, ...]
    seed: int
    shuffle: bool = True
    weights: tuple[float, ...] | None = None
    repeats: int = 1

    def __post_init__(self):
        check_seed(self.seed)
        sections.positive_int(self.repeats, "data.repeats")
        if self.weights is None and len(self.lengths) != 1:
            raise InputError(f"{len(self.lengths)} sources need {len(self.lengths)} weights.")
        if self.weights is not None:
            self._pattern  # noqa: B018 (its checks)

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """int64[m] positions -> int64[m] numbers of examples."""
        place = np.asarray(positions, np.int64) // self.repeats
        if self.weights is None:
            return self._within(0, place)
        pattern, ranks, counts = self._pattern
        period, slot = np.divmod(place, PATTERN)
        chosen = pattern[slot]
        rank = period * counts[chosen] + ranks[slot]
        found = np.empty_like(place)
        for k, first in enumerate(np.cumsum((0, *self.lengths[:-1]))):
            rows = chosen == k
            found[rows] = first + self._within(k, rank[rows])
        return found

    def generator(self, position: int) -> np.random.Generator:
        """The random numbers of the example at a position: a stream of its own."""
        return np.random.Generator(np.random.Philox(key=(self.seed, position)))

    def _within(self, source: int, rank: np.ndarray) -> np.ndarray:
        """The example at each rank of one source's own endless order."""
        n = self.lengths[source]
        epoch, place = np.divmod(rank, n)
        return permute(place, n, hashed(self.seed, source, epoch)) if self.shuffle else place

    @functools.cached_property
    def _pattern(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """PATTERN sources, the rank of each among its own source's, and how often each occurs."""
        counts = _shares(self.weights, self.lengths)
        # Source k takes turns at (i + 1/2) / counts[k]: as evenly as can be.
        turns = [(np.arange(count) + 0.5) / count for count in counts]
        chosen = np.repeat(np.arange(len(counts)), counts)
        ranks = np.concatenate([np.arange(count) for count in counts])
        order = np.argsort(np.concatenate(turns), kind="stable")
        return chosen[order], ranks[order], counts


def permute(place: np.ndarray, n: int, key: np.ndarray) -> np.ndarray:
    """A permutation of 0 ... n - 1 for each key: int64[m], uint64[m] or uint64[1] -> int64[m].

    A round pairs each place with (pivot - place) mod n and swaps a random half of the pairs.
    """
    size, place = np.uint64(n), place.astype(np.uint64)
    round_keys = np.arange(ROUNDS, dtype=np.uint64) * _MIX_1
    for k in range(ROUNDS):
        # Counted rather than chained, so that no key's rounds begin within another's.
        pivot = _mix(key + round_keys[k])
        partner = (pivot % size + size - place) % size
        # Both members of a pair must draw the same bit.
        is_swapped = _mix(pivot ^ (np.maximum(place, partner) * _GOLDEN)) >> np.uint64(63)
        place = np.where(is_swapped, partner, place)
    return place.astype(np.int64)


def hashed(seed: int, *numbers: int | np.ndarray) -> np.ndarray:
    """uint64[1] that depends on all of these, or uint64[m] where some are arrays of m."""
    value = np.array([seed], np.uint64)  # arrays wrap around in silence, NumPy's scalars warn
    for number in numbers:
        number = np.atleast_1d(number).astype(np.uint64)
        value = _mix(value + _GOLDEN * (number + np.uint64(1)))
    return value


def _mix(value: np.ndarray) -> np.ndarray:
    """The finaliser of splitmix64: every bit of the result depends on every bit given."""
    value = (value ^ (value >> np.uint64(30))) * _MIX_1
    value = (value ^ (value >> np.uint64(27))) * _MIX_2
    return value ^ (value >> np.uint64(31))


def _shares(weights: tuple[float, ...], lengths: tuple[int, ...]) -> np.ndarray:
    """How often each source occurs in a pattern: int64, at least one, PATTERN in all."""
    share = np.asarray(weights, float)
    if len(share) != len(lengths) or not np.all(np.isfinite(share)) or np.any(share <= 0):
        raise InputError(
            f"the weights of the sources are {list(weights)}; allowed: {len(lengths)} numbers "
            "above 0."
        )
    share = share / share.sum() * PATTERN
    counts = np.floor(share).astype(np.int64)
    counts[np.argsort(counts - share, kind="stable")[: PATTERN - counts.sum()]] += 1
    if counts.min() < 1:
        raise InputError(
            f"the weights of the sources are {list(weights)}; allowed: shares of at least "
            f"1/{PATTERN} each."
        )
    return counts


def check_seed(seed: int) -> None:
    try:
        in_range = 0 <= operator.index(seed) < 2**32
    except TypeError:
        in_range = False
    if not in_range:
        raise InputError(f"seed is {seed!r}; it must be a whole number below 2**32.")
