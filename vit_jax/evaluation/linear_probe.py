"""Linear probes: how good frozen features are for a linear classifier.

Two protocols by `solver`: 'lbfgs' is CLIP's (logistic_regression.py), 'sgd' in the manner of DINO
and MoCo, with differences that linear_sgd.py lists. Either chooses one strength on a held-out part
of the training examples, at random, and is then fitted to all of them and scored once. The part is
held out from the classifier alone: a model that was trained on these examples with labels knows
them, and its features make them look easier than others.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.analysis.probe_figures import draw_strengths
from vit_jax.errors import InputError
from vit_jax.evaluation.classification import top_k_hits
from vit_jax.evaluation.features import (
    Examples,
    OnFeatures,
    both,
    check_finite,
    intervals_of,
    shares_of,
)
from vit_jax.evaluation.linear_classifier import Probe, Solver, choose_and_fit, hold_out
from vit_jax.evaluation.linear_sgd import GradientDescent
from vit_jax.evaluation.logistic_regression import LogisticRegression
from vit_jax.evaluation.protocol import TEST, Report, SplitOutputs

SOLVERS: dict[str, type[LogisticRegression] | type[GradientDescent]] = {
    "lbfgs": LogisticRegression,
    "sgd": GradientDescent,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe(OnFeatures):
    """Accuracy of a linear classifier of frozen features.

    Attributes:
      solver: 'lbfgs' or 'sgd'.
      strengths: penalties or learning rates to choose from; one alone is taken as it is. None is
        the solver's own.
      standardise: see the solvers.
      held_out: share of the training examples that the strength is chosen on.
      seed: of which these are; with 'sgd' also of the order.
      max_iterations: of 'lbfgs' alone; None is its own, likewise
      epochs, examples_per_step: of 'sgd' alone.
    """

    solver: str = "lbfgs"
    strengths: tuple[float, ...] | None = None
    standardise: bool = False
    held_out: float = 0.1
    seed: int = 0
    max_iterations: int | None = None
    epochs: int | None = None
    examples_per_step: int | None = None

    def __post_init__(self):
        sections.check_ranges("linear_probe", seed=(self.seed, 0, math.inf))
        self.built()

    def built(self) -> Solver:
        """The solver; raises `InputError` for settings that are not its own."""
        kind = sections.choose(SOLVERS, self.solver, where="linear_probe.solver")
        check_strengths(self.strengths)
        names = ("max_iterations", "epochs", "examples_per_step")
        given: dict[str, Any] = {name: getattr(self, name) for name in names}
        fixed = dict(strengths=self.strengths, standardise=self.standardise)
        if kind is GradientDescent:
            fixed["seed"] = self.seed
        choice = f"solver {self.solver!r}"
        return sections.call_chosen(kind, given, where="linear_probe", choice=choice, **fixed)

    def metric_names(self) -> list[str]:
        return ["top1", "top5", f"chosen_{self.built().strength}"]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        train, test = both(outputs)
        probe = self.fit(train, num_classes=len(outputs[TEST].class_names))
        with np.errstate(over="ignore", invalid="ignore"):  # told in words below
            logits = probe.classifier(test.features)
        check_finite(logits, f"logits of a linear probe with {probe.strength:g}")
        hits = {f"top{k}": top_k_hits(logits, test.label, k=k) for k in (1, 5)}
        return Report(
            metrics=shares_of(hits) | {f"chosen_{self.built().strength}": probe.strength},
            intervals=intervals_of(hits),
            **shown(probe, self.built().strength),
        )

    def fit(self, train: Examples, *, num_classes: int) -> Probe:
        if self.strengths is not None and len(self.strengths) == 1:
            fitted, held_out = train, None
        else:
            fitted, held_out = hold_out(train, share=self.held_out, seed=self.seed)
        return choose_and_fit(
            self.built(), fitted, held_out, num_classes=num_classes, strengths=self.strengths
        )


def check_strengths(strengths: tuple[float, ...] | None) -> None:
    if strengths is None:
        return
    if not strengths or len(set(strengths)) < len(strengths):
        raise InputError(f"strengths are {strengths}; allowed: one, or several different ones.")
    for strength in strengths:
        sections.check_ranges("linear_probe", strengths=(strength, sections.TINY, math.inf))


def shown(probe: Probe, name: str) -> dict[str, Any]:
    """Tables and pictures of how the strength was chosen, where it was."""
    if not probe.curve:
        return {}
    curve = [{name: strength, "held_out_top1": top1} for strength, top1 in probe.curve.items()]
    is_at_edge = probe.strength in (min(probe.curve), max(probe.curve))
    draw = functools.partial(draw_strengths, probe.curve, probe.strength, name)
    return {
        "tables": {"curve": curve, "chosen_is_at_the_edge": is_at_edge},
        "pictures": {"strengths.png": draw},
    }
