"""Robustness: accuracy on corrupted images, and on other data of the same classes.

Corruptions are those of ImageNet-C (arXiv:1903.12261), made as the images are read, see
data/corruptions. The error of each is averaged over its severities, and then over corruptions:

    corrupted_error    the mean over corruptions c of E(c), E(c) the mean over severities s of
                       the error E(s, c)
    relative_error     the same of E(s, c) - E(clean)
    mce                the mean over c of E(c) / A(c), A(c) AlexNet's: "mCE" there
    relative_mce       the mean over c of (E(c) - E(clean)) / (A(c) - A(clean))

The last two only with ImageNet's thousand classes and all 15 corruptions at all severities, for
which AlexNet's errors are known. On shifts such as ImageNet-A, whose examples are of some classes
only, the largest logit among the classes that can occur counts, as in arXiv:1907.07174.

Letters: n examples; k classes.
"""

import dataclasses
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float

from vit_jax import sections
from vit_jax.analysis.shift_figures import draw_table, draw_versions
from vit_jax.data import splits
from vit_jax.data.corruptions.corrupt import COMMON, Corruption, corrupt
from vit_jax.data.corruptions.settings import SEVERITIES
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import interval_of_mean
from vit_jax.evaluation.classification import top_k_hits
from vit_jax.evaluation.protocol import TEST, Protocol, Report, Request, SplitOutputs, check_has

IMAGENET_CLASSES = 1_000
# AlexNet's error averaged over severities (hendrycks/robustness, ImageNet-C/test.py and README),
# and on clean images (arXiv:1903.12261, Table 1).
ALEXNET = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN = 0.435


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness(Protocol):
    """Accuracy under corruptions and shifts.

    Attributes:
      corruptions: names, see `data.corruptions.corrupt.CORRUPTIONS`; none for shifts alone.
      severities: of 1 to 5.
      limit: how many of the first images are corrupted; None is all.
      shifts: name -> keys of `EvalSettings` of other data with the model's classes.
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)

    corruptions: tuple[str, ...] = tuple(COMMON)
    severities: tuple[int, ...] = SEVERITIES
    limit: int | None = None
    shifts: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name, values in (("corruptions", self.corruptions), ("severities", self.severities)):
            if len(set(values)) < len(values):
                raise InputError(f"{name} is {list(values)}; allowed: different ones.")
        if not self.severities or not (self.corruptions or self.shifts):
            raise InputError("there is nothing to score; allowed: corruptions or shifts.")
        for name in self.corruptions:
            for severity in self.severities:
                Corruption(name, severity)
        if self.limit is not None:
            sections.positive_int(self.limit, "limit")
        if taken := set(self.shifts) & {*self.corruptions, "corrupted"}:
            raise InputError(f"a shift is called {min(taken)!r}, as a corruption is; allowed: not.")

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        del training_split
        found = {TEST: Request(settings=test)}
        settings = dataclasses.replace(test, split=first_of(test.split, self.limit))
        for name in self.corruptions:
            for severity in self.severities:
                found[role_of(name, severity)] = Request(
                    settings=settings, transform=Corruption(name, severity), is_kept=False
                )
        for name, given in self.shifts.items():
            settings = sections.call(
                EvalSettings,
                {"batch_size": test.batch_size, **given},
                where=f"robustness.shifts.{name}",
            )
            found[f"shift/{name}"] = Request(settings=settings)
        return found

    def check(self, role: str, found: Collection[str]) -> None:
        check_has(found, "label")

    def metric_names(self) -> list[str]:
        means = ["corrupted_top1", "corrupted_error", "relative_error"] if self.corruptions else []
        return ["top1", *means, *(f"{name}_top1" for name in (*self.corruptions, *self.shifts))]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        clean = hits(outputs[TEST])
        found = Report({"top1": float(clean.mean())}, {"top1": interval_of_mean(clean)}, {}, {})
        if self.corruptions:
            self._add_corrupted(found, outputs)
        for name in self.shifts:
            hit = hits(outputs[f"shift/{name}"])
            found.metrics[f"{name}_top1"] = float(hit.mean())
            found.intervals[f"{name}_top1"] = interval_of_mean(hit)
        return found

    def _add_corrupted(self, report: Report, outputs: Mapping[str, SplitOutputs]) -> None:
        """Keeps of each pass no more than which examples were right."""
        test = outputs[TEST]
        table = np.zeros((len(self.corruptions), len(self.severities)))
        everything = 0.0
        for row, name in zip(table, self.corruptions, strict=True):
            by_severity = [hits(outputs[role_of(name, s)]) for s in self.severities]
            row[:] = [hit.mean() for hit in by_severity]
            share = np.mean(by_severity, axis=0)  # of the severities at which an example was right
            report.metrics[f"{name}_top1"] = float(share.mean())
            report.intervals[f"{name}_top1"] = interval_of_mean(share)
            everything = everything + share / len(self.corruptions)
        # Of the same images, which may be fewer than those scored.
        clean = float(hits(test)[: len(everything)].mean())
        report.metrics.update(self._summary(table, clean, len(test.class_names)))
        report.intervals["corrupted_top1"] = interval_of_mean(everything)
        report.tables["top1"] = {
            name: dict(zip(map(str, self.severities), row.tolist(), strict=True))
            for name, row in zip(self.corruptions, table, strict=True)
        }
        report.pictures["accuracy.png"] = partial(self._draw_table, table, clean)
        report.pictures["corruptions.png"] = partial(self._draw_images, test)

    def _summary(
        self, table: Float[np.ndarray, "corruptions severities"], clean: float, num_classes: int
    ) -> dict[str, float]:
        errors = dict(zip(self.corruptions, 1 - table.mean(axis=1), strict=True))
        mean = float(np.mean(list(errors.values())))
        found = {
            "corrupted_top1": 1 - mean,
            "corrupted_error": mean,
            "relative_error": mean - (1 - clean),
        }
        is_published = set(errors) == set(ALEXNET) and set(self.severities) == set(SEVERITIES)
        if num_classes == IMAGENET_CLASSES and is_published:
            found |= {
                "mce": mean_corruption_error(errors),
                "relative_mce": mean_corruption_error(errors, clean=1 - clean),
            }
        return found

    def _draw_table(self, table: np.ndarray, clean: float, target: Path) -> None:
        title = f"top-1 accuracy by severity; clean {100 * clean:.1f} %"
        draw_table(table, self.corruptions, [str(s) for s in self.severities], target, title=title)

    def _draw_images(self, test: SplitOutputs, target: Path) -> None:
        (image,) = test.images(test.index[:1].tolist())
        versions = {
            name: [image, *(corrupt(image, name, severity=s) for s in self.severities)]
            for name in self.corruptions
        }
        draw_versions(versions, ["clean", *map(str, self.severities)], target)


def hits(outputs: SplitOutputs) -> Bool[np.ndarray, " n"]:
    """Is the label the first among the classes that can occur?

    Tested against scikit-learn's `accuracy_score`.
    """
    logits = outputs.logits
    if outputs.present is not None:
        can_occur = np.isin(np.arange(logits.shape[1]), outputs.present)
        logits = np.where(can_occur, logits, np.float32(-np.inf))
    return top_k_hits(logits, outputs.label, k=1)


def mean_corruption_error(errors: Mapping[str, float], *, clean: float | None = None) -> float:
    """Errors of all 15 corruptions as shares of AlexNet's, averaged; 1 is AlexNet.

    Tested against the published errors themselves, and equations of arXiv:1903.12261, section 4.

    Args:
      clean: the error without corruption; then both are counted from there, "relative mCE".
    """
    own, alexnet = (0.0, 0.0) if clean is None else (clean, ALEXNET_CLEAN)
    return float(np.mean([(errors[c] - own) / (a - alexnet) for c, a in ALEXNET.items()]))


def role_of(name: str, severity: int) -> str:
    return f"{name}/{severity}"


def first_of(split: str, limit: int | None) -> str:
    """'test' -> 'test[:limit]'."""
    if limit is None:
        return split
    terms = splits.parse(split)
    if len(terms) > 1 or terms[0].start or terms[0].stop:
        raise InputError(
            f"limit is {limit}, but the split is {split!r}; allowed: a split that is a name, or a "
            "range of it and no limit."
        )
    return f"{terms[0].name}[:{limit}]"
