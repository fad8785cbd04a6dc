"""Calibration: can the probabilities be trusted?

    confidence       the largest probability, softmax of the logits
    ece              expected calibration error (arXiv:1706.04599, equation 3): examples are sorted
                     into bins by confidence; the mean over examples of |accuracy - confidence| of
                     their bin
    nll              mean negative log-probability of the label, in nats
    brier            mean squared distance of the probabilities to the label's indicator (Brier
                     1950), summed over classes, so from 0 to 2

Temperature scaling (arXiv:1706.04599, section 4.2) divides the logits by one number, which has the
least NLL on data that the model was not trained on; predictions stay what they are.

The softmax is taken of any head, of one trained with the sigmoid loss, too, and over the classes
that may be chosen (`among`), which is all of them where it is not known that some cannot occur.
There is no interval of the temperature. Estimates of the ECE
are biased upwards, the more so the fewer examples a bin has; so is their bootstrap.

Letters: n examples; k classes; b bins.
"""

import dataclasses
import functools
import logging
import math
from collections.abc import Collection, Mapping
from typing import ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from vit_jax import sections
from vit_jax.analysis import classification_figures
from vit_jax.analysis.classification_figures import Reliability
from vit_jax.data import splits
from vit_jax.data.examples import Source
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import interval_of, interval_of_mean
from vit_jax.evaluation.logits import check_among, chosen, log_softmax
from vit_jax.evaluation.overlap import check_apart
from vit_jax.evaluation.protocol import (
    TEST,
    Interval,
    Protocol,
    Report,
    Request,
    SplitOutputs,
    check_has,
)

logger = logging.getLogger(__name__)

FIT = "fit"  # the role of the split that the temperature is fitted on
AT_ONCE = 4096  # examples whose probabilities are in memory together, in float64
TEMPERATURES = (0.01, 100.0)  # a fit ends there where no temperature is the best
PRECISION = 1e-6  # of the fitted temperature, relative


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration(Protocol):
    """Metrics: `ece`, `nll`, `brier`; with `fit` also `temperature`, and `ece_scaled`,
    `nll_scaled` and `brier_scaled` after temperature scaling.

    Attributes:
      bins: b.
      binning: 'equal_width', or 'equal_mass': bins of equally many examples.
      fit: split of the training's source that the temperature is fitted on, e.g. 'train[90%:]' of
        a model that was trained on 'train[:90%]'; None for no scaling.
      among: 'present', 'all' or None, see `logits.chosen`.
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)

    bins: int = 15
    binning: str = "equal_width"
    fit: str | None = None
    among: str | None = None

    def __post_init__(self):
        sections.positive_int(self.bins, "calibration.bins")
        sections.choose(BINNINGS, self.binning, where="calibration.binning")
        check_among(self.among, where="calibration.among")

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        found = super().requests(test, training_split)
        if self.fit is None:
            return found
        if self.fit == test.split and test.source is None:
            raise InputError(
                f"calibration.fit is {self.fit!r}, which is scored; allowed: another split."
            )
        if training_split is not None and splits.surely_overlap(self.fit, training_split):
            logger.warning(
                "calibration.fit is %r, but the model was trained on %r: of what it has seen it is "
                "too sure, and so is the temperature.", self.fit, training_split,
            )  # fmt: skip
        settings = EvalSettings(split=self.fit, batch_size=test.batch_size)
        return {**found, FIT: Request(settings=settings)}

    def check(self, role: str, found: Collection[str]) -> None:
        check_has(found, "label")

    def check_sources(self, sources: Mapping[str, Source]) -> None:
        if self.fit is not None:
            check_apart(sources[FIT], sources[TEST], learns="calibration.fit")

    def metric_names(self) -> list[str]:
        names = ["ece", "nll", "brier"]
        scaled = [] if self.fit is None else [f"{name}_scaled" for name in names]
        return names + scaled + (["temperature"] if scaled else [])

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        test = outputs[TEST]
        logits = chosen(test, self.among).logits
        found = {"": self._measured(logits, test.label)}
        fitted: dict[str, float] = {}
        if self.fit is not None:
            held_out = outputs[FIT]
            known = chosen(held_out, self.among).logits
            fitted["temperature"] = temperature = fit_temperature(known, held_out.label)
            found["_scaled"] = self._measured(logits / temperature, test.label)
        metrics = {f"{n}{e}": v for e, one in found.items() for n, v in one.metrics.items()}
        titles = {"": "as the model tells", "_scaled": "after temperature scaling"}
        panels = {titles[ending]: one.reliability for ending, one in found.items()}
        draw = classification_figures.draw_reliability
        return Report(
            metrics=metrics | fitted,
            intervals={f"{n}{e}": i for e, one in found.items() for n, i in one.intervals.items()},
            tables={f"bins{e}": one.reliability._asdict() for e, one in found.items()},
            pictures={"reliability.png": functools.partial(draw, panels)},
        )

    def _measured(
        self, logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"]
    ) -> "Measured":
        found = told(logits, label)
        edges = BINNINGS[self.binning](found.confidence, self.bins)
        place = places(found.confidence, edges)
        gap = found.is_right - found.confidence
        means = {"nll": found.nll, "brier": found.brier}
        return Measured(
            {"ece": calibration_error(place, gap)} | {n: float(v.mean()) for n, v in means.items()},
            {"ece": interval_of(calibration_error, place, gap)}
            | {name: interval_of_mean(values) for name, values in means.items()},
            reliability(found, place, edges),
        )


@dataclasses.dataclass(frozen=True)
class Measured:
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    reliability: Reliability


class Told(NamedTuple):
    """What a model tells of each example, and what of it is true.

    The means of `nll` and `brier` are scikit-learn's `log_loss`, and `brier_score_loss` with
    scale_by_half=False.
    """

    confidence: Float[np.ndarray, " n"]
    is_right: Bool[np.ndarray, " n"]
    nll: Float[np.ndarray, " n"]
    brier: Float[np.ndarray, " n"]


def told(logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"]) -> Told:
    """In float64, some rows at a time."""
    parts = [
        told_at_once(logits[i : i + AT_ONCE], label[i : i + AT_ONCE])
        for i in range(0, len(label), AT_ONCE)
    ]
    return Told(*map(np.concatenate, zip(*parts, strict=True)))


def told_at_once(logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"]) -> Told:
    log_p = log_softmax(logits)
    own, p = np.take_along_axis(log_p, label[:, None], axis=1)[:, 0], np.exp(log_p)
    return Told(
        confidence=p.max(axis=1),
        is_right=log_p.argmax(axis=1) == label,
        nll=-own,
        brier=(p**2).sum(axis=1) - 2 * np.exp(own) + 1,
    )


def equal_width(confidence: Float[np.ndarray, " n"], bins: int) -> Float[np.ndarray, " b1"]:
    del confidence
    return np.linspace(0, 1, bins + 1)


def equal_mass(confidence: Float[np.ndarray, " n"], bins: int) -> Float[np.ndarray, " b1"]:
    """Quantiles; fewer bins where many examples are equally sure."""
    inner = np.quantile(confidence, np.linspace(0, 1, bins + 1)[1:-1])
    return np.unique(np.concatenate([[0.0], inner, [1.0]]))


BINNINGS = {"equal_width": equal_width, "equal_mass": equal_mass}


def places(
    confidence: Float[np.ndarray, " n"], edges: Float[np.ndarray, " b1"]
) -> Int[np.ndarray, " n"]:
    """Each example's bin; bins are open below and closed above, as in the paper."""
    return np.clip(np.searchsorted(edges, confidence, side="left") - 1, 0, len(edges) - 2)


def calibration_error(place: Int[np.ndarray, " n"], gap: Float[np.ndarray, " n"]) -> float:
    """torchmetrics' `calibration_error` with norm='l1', for bins of equal width.

    The two differ where a confidence is an edge to the last bit: there it counts to the bin above.

    Args:
      place: each example's bin.
      gap: 1 where the prediction is right, else 0, less the confidence.
    """
    return float(np.abs(np.bincount(place, weights=gap)).sum() / len(place))


def reliability(
    found: Told, place: Int[np.ndarray, " n"], edges: Float[np.ndarray, " b1"]
) -> Reliability:
    bins = len(edges) - 1
    count = np.bincount(place, minlength=bins)
    sums = (
        np.bincount(place, weights=values, minlength=bins)
        for values in (found.confidence, found.is_right)
    )
    return Reliability(
        edges, *(np.where(count, s / np.maximum(count, 1), np.nan) for s in sums), count
    )


def fit_temperature(logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"]) -> float:
    """The temperature of the least NLL, between `TEMPERATURES`.

    The NLL is convex in 1 / temperature. Its derivative there, the mean logit under the model less
    that of the label, only grows: its root is found by halving, on a logarithmic scale. The code of
    arXiv:1706.04599 (gpleiss/temperature_scaling) seeks the same minimum by L-BFGS.
    """
    low, high = (math.log(1 / temperature) for temperature in reversed(TEMPERATURES))
    while high - low > PRECISION:
        middle = (low + high) / 2
        is_too_sure = slope(logits, label, math.exp(middle)) > 0
        low, high = (low, middle) if is_too_sure else (middle, high)
    return math.exp(-(low + high) / 2)


def slope(logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"], scale: float) -> float:
    """Of the summed NLL of scale · logits, over the scale."""
    total = 0.0
    for i in range(0, len(label), AT_ONCE):
        rows = np.asarray(logits[i : i + AT_ONCE], np.float64)
        own = np.take_along_axis(rows, label[i : i + AT_ONCE, None], axis=1)
        p = np.exp(log_softmax(scale * rows))
        # Minus infinity, of a class that may not be chosen, times nothing is nothing.
        total += np.multiply(p, rows - own, where=p > 0, out=np.zeros_like(p)).sum()
    return float(total)
