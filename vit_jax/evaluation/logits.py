"""What protocols do with logits before they score: sums, probabilities, and classes left out.

Letters: n examples; k classes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vit_jax import sections
from vit_jax.evaluation.protocol import SplitOutputs

AMONG = ("present", "all")


class Chosen(NamedTuple):
    """Logits with minus infinity for classes that may not be chosen; and how many may."""

    logits: Float[np.ndarray, "n k"]
    number: int


def check_among(among: str | None, *, where: str) -> None:
    if among is not None:
        sections.choose(dict.fromkeys(AMONG), among, where=where)


def chosen(outputs: SplitOutputs, among: str | None = None) -> Chosen:
    """Of all protocols that let a model choose a class.

    Args:
      among: 'present' chooses among the classes that can occur, 'all' among the model's; None is
        'present' where these are known, but for several labels an example, as ReaL is published.
    """
    default = "all" if outputs.label is None else "present"
    if outputs.present is None or (among or default) == "all":
        return Chosen(outputs.logits, outputs.logits.shape[1])
    return Chosen(only(outputs.logits, outputs.present), len(outputs.present))


def only(logits: Float[np.ndarray, "n k"], present: Sequence[int]) -> Float[np.ndarray, "n k"]:
    """Only these classes can be predicted."""
    is_present = np.isin(np.arange(logits.shape[1]), present)
    return np.where(is_present, logits, np.float32(-np.inf))


def log_sum_exp(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " n"]:
    """In float64; tested against SciPy's `logsumexp`."""
    logits = np.asarray(logits, np.float64)
    largest = logits.max(axis=1)
    return largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1))


def log_softmax(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    """In float64; tested against SciPy's `log_softmax`."""
    return np.asarray(logits, np.float64) - log_sum_exp(logits)[:, None]
