"""Weighted k-nearest-neighbour classification of frozen features, as DINO has it.

arXiv:2104.14294, and facebookresearch/dino, eval_knn.py; the votes are of arXiv:1805.01978,
equation 2. Each of the k training images that are most similar to a test image, by the cosine of
their features, votes for its class with weight exp(similarity / temperature).

Ties: of equally similar training images the first of the split is nearer, see nearest.py; of
classes with equal votes the first wins. A class without a vote is never a hit, so that top5 of
fewer than five voters is their classes; the published code leaves these to an unstable sort.

Where test and training images are the same split no image may vote for itself (`leave_one_out`).
Splits that overlap otherwise, by name or in part, are refused.

Letters: n test images; m training images; k neighbours; c classes.
"""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int

from vit_jax import sections
from vit_jax.data.examples import Source
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.classification import top_k_hits
from vit_jax.evaluation.features import TRAIN, OnFeatures, both, intervals_of, shares_of
from vit_jax.evaluation.nearest import Neighbours, nearest
from vit_jax.evaluation.overlap import check_apart, places_in
from vit_jax.evaluation.protocol import TEST, Report, Request, SplitOutputs

TEMPERATURE = 0.07
COOLEST = 0.003  # exp(-2 / this) is the least weight that float64 holds
VOTES_AT_ONCE = 2**24  # numbers, one for each test image and class
TOPS = (1, 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NearestNeighbours(OnFeatures):
    """Accuracy by the votes of the nearest training images; see the top of this file.

    Attributes:
      k: voters, or several numbers of them: the published code scores 10, 20, 100 and 200. Of
        several, metrics are 'top1_10nn', ....
      temperature: of the votes.
      leave_one_out: `train` is the scored split itself.
    """

    k: int | tuple[int, ...] = 20
    temperature: float = TEMPERATURE
    leave_one_out: bool = False

    def __post_init__(self):
        if not self.numbers or len(set(self.numbers)) < len(self.numbers):
            raise InputError(f"k is {self.k}; allowed: a number, or several different ones.")
        for k in self.numbers:
            sections.positive_int(k, "k")
        sections.check_ranges("knn", temperature=(self.temperature, COOLEST, math.inf))

    @property
    def numbers(self) -> tuple[int, ...]:
        return (self.k,) if isinstance(self.k, int) else tuple(self.k)

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        found = super().requests(test, training_split)
        is_same = found[TRAIN] == found[TEST]
        if is_same != self.leave_one_out:
            raise InputError(
                f"leave_one_out is {self.leave_one_out}, but images of "
                f"{found[TRAIN].settings.split!r} vote for those of {test.split!r}; allowed: True "
                "for a split by itself, or else False."
            )
        return found

    def check_sources(self, sources: Mapping[str, Source]) -> None:
        if self.leave_one_out:
            places_in(sources[TEST], sources[TEST])  # no image has a copy that votes for it
        else:
            check_apart(sources[TRAIN], sources[TEST], learns="knn")

    def metric_names(self) -> list[str]:
        return [self._name(top, k) for k in self.numbers for top in TOPS]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        train, test = both(outputs)
        neighbours = nearest(
            test.features,
            train.features,
            k=max(self.numbers),
            leave_one_out=self.leave_one_out,
        )
        num_classes = len(outputs[TEST].class_names)
        hits = {}
        for k in self.numbers:
            voters = Neighbours(*(rows[:, :k] for rows in neighbours))
            for top, hit in vote_hits(
                voters, train.label, test.label, num_classes, temperature=self.temperature
            ).items():
                hits[self._name(top, k)] = hit
        return Report(metrics=shares_of(hits), intervals=intervals_of(hits))

    def _name(self, top: int, k: int) -> str:
        return f"top{top}" if isinstance(self.k, int) else f"top{top}_{k}nn"


def vote_hits(
    voters: Neighbours,
    train_label: Int[np.ndarray, " m"],
    test_label: Int[np.ndarray, " n"],
    num_classes: int,
    *,
    temperature: float = TEMPERATURE,
) -> dict[int, Bool[np.ndarray, " n"]]:
    """For 1 and 5: is the label among so many classes with the most votes?"""
    rows = max(1, VOTES_AT_ONCE // num_classes)
    found = {top: [] for top in TOPS}
    for start in range(0, len(test_label), rows):
        part = Neighbours(*(values[start : start + rows] for values in voters))
        label = test_label[start : start + rows]
        votes = votes_of(part, train_label, num_classes, temperature=temperature)
        has_votes = np.take_along_axis(votes, label[:, None], axis=1)[:, 0] > 0
        for top in TOPS:
            found[top].append(has_votes & top_k_hits(votes, label, k=top))
    return {top: np.concatenate(parts) for top, parts in found.items()}


def votes_of(
    voters: Neighbours,
    train_label: Int[np.ndarray, " m"],
    num_classes: int,
    *,
    temperature: float = TEMPERATURE,
) -> Float[np.ndarray, "n c"]:
    """Each class's votes, in units of the nearest image's.

    Tested against scikit-learn's KNeighborsClassifier with these weights.
    """
    similarity = voters.similarity.astype(np.float64)
    weight = np.exp((similarity - similarity[:, :1]) / temperature)
    n = len(similarity)
    ballot = np.arange(n)[:, None] * num_classes + train_label[voters.position]
    votes = np.bincount(ballot.ravel(), weight.ravel(), minlength=n * num_classes)
    return votes.reshape(n, num_classes)
