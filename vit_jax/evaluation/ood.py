"""Out-of-distribution detection: can examples of other kinds be told from the model's own?

A score says of each example how much it is like the training's; the larger, the more. It is
measured by how well it parts the scored split (in) from examples of other sources (out): ranks
alone count, and no threshold is chosen. ood_scores.py has the scores, separation.py the
measures.

Letters: n examples; r channels; k classes.
"""

import dataclasses
import logging
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from vit_jax import sections
from vit_jax.analysis.shift_figures import draw_scores
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation import ood_scores as scores
from vit_jax.evaluation import separation
from vit_jax.evaluation.features import TRAIN, OnFeatures, examples_of
from vit_jax.evaluation.index import Index
from vit_jax.evaluation.protocol import TEST, Report, Request, SplitOutputs, check_named

logger = logging.getLogger(__name__)

Score = Callable[[SplitOutputs], Float[np.ndarray, " n"]]

BY_LOGITS = ("msp", "max_logit", "energy")
BY_FEATURES = ("mahalanobis", "relative_mahalanobis", "knn")  # which learn from training examples


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutOfDistribution(OnFeatures):
    """AUROC, AUPR and FPR at 95 % TPR of several scores, for each source and on average.

    Intervals are over the scored examples and those of each source; what learns from training
    examples is fitted once.

    Attributes:
      out: name -> keys of `EvalSettings` of examples that are not of the model's kind; their
        classes do not matter.
      scores: of `BY_LOGITS` and `BY_FEATURES`.
      temperature: of the energy.
      neighbours: the k of k-NN.
    """

    out: Mapping[str, Any]
    scores: tuple[str, ...] = ("msp", "max_logit", "energy", "mahalanobis", "knn")
    temperature: float = 1.0
    neighbours: int = 50

    def __post_init__(self):
        if not self.out:
            raise InputError("out is empty; allowed: name -> the keys of one source or more.")
        check_named(self.out, "out")
        if not self.scores:
            raise InputError("scores is empty; allowed: one or more.")
        for name in self.scores:
            known = dict.fromkeys(BY_LOGITS + BY_FEATURES)
            sections.choose(known, name, where="scores")
        sections.positive_int(self.neighbours, "neighbours")
        if not self.temperature > 0:
            raise InputError(f"temperature is {self.temperature}; allowed: above 0.")

    @property
    def reads(self) -> tuple[str, ...]:
        """A model without a head can be measured by its representations alone."""
        wanted = {"logits": BY_LOGITS, "representation": BY_FEATURES}
        return tuple(n for n, group in wanted.items() if not set(group).isdisjoint(self.scores))

    @property
    def learns(self) -> bool:
        return "representation" in self.reads

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        found = {TEST: Request(settings=test, own_classes=True)}
        if self.learns:
            found = super().requests(test, training_split)
        for name, given in self.out.items():
            settings = sections.call(
                EvalSettings, {"batch_size": test.batch_size, **given}, where=f"ood.out.{name}"
            )
            found[f"out/{name}"] = Request(settings=settings, own_classes=True)
        return found

    def check(self, role: str, found: Collection[str]) -> None:
        if role == TRAIN:
            super().check(role, found)

    def metric_names(self) -> list[str]:
        """'energy_auroc' on average, 'digits_energy_auroc' of one source."""
        sources = ["", *(f"{name}_" for name in self.out)]
        names = [f"{score}_{measure}" for score in self.scores for measure in separation.MEASURES]
        return [source + name for source in sources for name in names]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        rules = self._rules(outputs)
        inside = {name: rule(outputs[TEST]) for name, rule in rules.items()}
        metrics, intervals = {}, {}
        shown = {name: {"in": values} for name, values in inside.items()}
        drawn = {name: [] for name in rules}
        for number, source in enumerate(self.out):
            examples = outputs[f"out/{source}"]
            for name, rule in rules.items():
                shown[name][source] = values = rule(examples)
                found = separation.measure(inside[name], values)
                key = f"{source}_{name}"
                metrics |= {f"{key}_{measure}": value for measure, value in found.items()}
                drawn[name].append(separation.samples(inside[name], values, source=number))
                told = separation.intervals(drawn[name][-1])
                intervals |= {f"{key}_{measure}": ends for measure, ends in told.items()}
        titles = {name: f"{name}: AUROC" for name in rules}
        for name in rules:
            for measure in separation.MEASURES:
                values = [metrics[f"{source}_{name}_{measure}"] for source in self.out]
                metrics[f"{name}_{measure}"] = float(np.mean(values))
            told = separation.intervals(np.mean(drawn[name], axis=0))
            intervals |= {f"{name}_{measure}": ends for measure, ends in told.items()}
            titles[name] += f" {metrics[f'{name}_auroc']:.3f}"
        picture = partial(draw_scores, shown, titles=titles)
        return Report(
            metrics=metrics,
            intervals=intervals,
            tables=self._notes(outputs),
            pictures={"scores.png": picture},
        )

    def _notes(self, outputs: Mapping[str, SplitOutputs]) -> dict[str, str]:
        """What the scores lack; told once more where a person looks."""
        if not any(name.endswith("mahalanobis") for name in self.scores):
            return {}
        train = outputs[TRAIN]
        note = scores.lack_of_examples(train.label, train.representation.shape[1])
        if note is None:
            return {}
        logger.warning("ood: %s.", note)
        return {"mahalanobis": note}

    def _rules(self, outputs: Mapping[str, SplitOutputs]) -> dict[str, Score]:
        """What gives each score; fitted where it has to be."""
        rules: dict[str, Score] = {
            "msp": lambda x: scores.max_probability(x.logits),
            "max_logit": lambda x: scores.max_logit(x.logits),
            "energy": lambda x: scores.energy(x.logits, temperature=self.temperature),
        }
        if self.learns:
            train = examples_of(outputs[TRAIN])
            fitted = scores.fit_gaussians(train.features, train.label)
            index = Index(train.features)
            rules |= {
                "mahalanobis": lambda x: fitted.score(x.representation),
                "relative_mahalanobis": lambda x: fitted.relative_score(x.representation),
                "knn": lambda x: scores.nearness(index, x.representation, k=self.neighbours),
            }
        return {name: rules[name] for name in self.scores}
