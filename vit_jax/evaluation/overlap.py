"""Which examples two splits share, however they were named: 'test', 'test[:100%]', 'train+test'.

A split knows of what sources it is made, and of which ranges. Two of these are the same source if
they are as long, and their first and last examples live in the same place. Copies of images in
other places are not found.

Letters: n, m examples of the two splits.
"""

import os
from collections.abc import Iterator

import numpy as np
from jaxtyping import Int

from vit_jax.data.examples import Range, Source
from vit_jax.errors import InputError

NOBODY = -1  # a position that no example has


def places_in(one: Source, other: Source) -> Int[np.ndarray, " n"]:
    """Where in `other` each example of `one` is; `NOBODY` where it is not there.

    Raises:
      InputError: where an example of `one` is there more than once.
    """
    places, times = np.full(len(one), NOBODY), np.zeros(len(one), int)
    for mine, here in _with_positions(one):
        for its, there in _with_positions(other):
            low, high = max(mine.start, its.start), min(mine.stop, its.stop)
            if low < high and _identity(mine.base) == _identity(its.base):
                shared = slice(here + low - mine.start, here + high - mine.start)
                places[shared] = np.arange(high - low) + (there + low - its.start)
                times[shared] += 1
    if (times > 1).any():
        raise InputError(
            f"{other.name} has an example of {one.name} more than once; allowed: each once."
        )
    return places


def _with_positions(source: Source) -> Iterator[tuple[Range, int]]:
    """Each range, and where in the source it begins."""
    passed = 0
    for found in source.ranges():
        yield found, passed
        passed += found.stop - found.start


def _identity(base: Source) -> tuple[int, str, str]:
    first, last = (os.path.realpath(base.describe(i)) for i in (0, len(base) - 1))
    return len(base), first, last


def check_apart(one: Source, other: Source, *, learns: str) -> None:
    """Raises `InputError` where the splits share examples.

    Args:
      learns: who reads `one`, for the message.
    """
    shared = int((places_in(one, other) != NOBODY).sum())
    if shared:
        raise InputError(
            f"{learns} is given {one.name}, of which {shared} of {len(one)} examples are in "
            f"{other.name}, which is scored; allowed: a split without these."
        )
