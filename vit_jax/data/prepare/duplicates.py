"""Equal images among the examples of some splits.

Letters: n = examples of all splits.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import numpy as np


def find_duplicates(
    *,
    split: np.ndarray,
    position: np.ndarray,
    digest: np.ndarray,
    label: np.ndarray,
    split_names: Sequence[str],
    describe: Callable[[str, int], str],
) -> dict[str, Any]:
    """Images that occur more than once.

    Args:
      split: int[n], a position in `split_names`.
      position: int[n], of the example in its split.
      digest: S32[n]: equal for equal images alone.
      label: int[n].
      describe: tells where an example is.

    Returns:
      "within": {split: images that are more than once in it}; "across": {"a & b": images that are
      in both}; "conflicting": images with more than one label; "groups": for each such
      image [{"split", "name", "label"}, ...].
    """
    order = np.lexsort((position, split, digest))
    sorted_digests = digest[order]
    bounds = np.flatnonzero(np.r_[True, sorted_digests[1:] != sorted_digests[:-1], True])
    starts, ends = bounds[:-1], bounds[1:]
    is_group = ends - starts > 1
    within: Counter[str] = Counter()
    across: Counter[str] = Counter()
    conflicting, groups = 0, []
    for start, end in zip(starts[is_group], ends[is_group], strict=True):
        members = order[start:end]
        counts = Counter(split_names[k] for k in split[members])
        within.update(name for name, count in counts.items() if count > 1)
        across.update(f"{a} & {b}" for a, b in combinations(counts, 2))
        conflicting += len(set(label[members].tolist())) > 1
        groups.append(
            [
                {
                    "split": split_names[split[j]],
                    "name": describe(split_names[split[j]], int(position[j])),
                    "label": int(label[j]),
                }
                for j in members
            ]
        )
    return {
        "within": dict(within),
        "across": dict(across),
        "conflicting": conflicting,
        "groups": groups,
    }
