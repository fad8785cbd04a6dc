"""Robustness: accuracy on corrupted images, and on other data of the same classes.

Corruptions are those of ImageNet-C (arXiv:1903.12261), made as the images are read, see
data/corruptions. The error of each is averaged over its severities, and then over corruptions:

    corrupted_error    the mean over corruptions c of E(c), E(c) the mean over severities s of
                       the error E(s, c)
    relative_error     the same of E(s, c) - E(clean)
    mce                the mean over c of E(c) / A(c), A(c) AlexNet's: "mCE" there
    relative_mce       the mean over c of (E(c) - E(clean)) / (A(c) - A(clean))

The last two only with ImageNet's thousand classes and all 15 corruptions at all severities, for
which AlexNet's errors are known. They are not exactly those of the published ImageNet-C: see
`GENERATED`. On shifts such as ImageNet-A, whose examples are of some classes
only, the largest logit among the classes that can occur counts, as in arXiv:1907.07174.

Every metric is a mean over images, and so each has an interval: images are drawn once for all
corruptions and severities. AlexNet's errors are taken as given.

Letters: n examples; k classes; c corruptions.
"""

import dataclasses
from collections.abc import Callable, Collection, Mapping
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
from vit_jax.evaluation.logits import chosen
from vit_jax.evaluation.protocol import (
    TEST,
    Protocol,
    Report,
    Request,
    SplitOutputs,
    check_has,
    check_named,
)

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
# What a report says, too.
GENERATED = (
    "Made as images are read: unlike the published files of ImageNet-C they are made after the "
    "model's own resize and crop, at its size, are not stored as JPEG, and frost is synthetic, "
    "without the published photographs. Errors and mCE are near published ones, not the same."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Robustness(Protocol):
    """Accuracy under corruptions and shifts.

    Attributes:
      corruptions: names, see `data.corruptions.corrupt.CORRUPTIONS`; none for shifts alone.
      severities: of 1 to 5.
      limit: how many of the first images are corrupted; None is all. With it 'clean_top1' is of
        these images, too, with which relative numbers compare, and 'top1' still of all.
      shifts: name -> keys of `EvalSettings` of other data with the model's classes.
    """

    reads: ClassVar[tuple[str, ...]] = ("logits",)

    corruptions: tuple[str, ...] = tuple(COMMON)
    severities: tuple[int, ...] = SEVERITIES
    limit: int | None = None
    shifts: Mapping[str, Any] = dataclasses.field(default_factory=dict)

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
        check_named(self.shifts, "shifts")
        if taken := set(self.shifts) & {*self.corruptions, "corrupted", "clean"}:
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
        means += ["clean_top1"] if self.corruptions and self.limit else []
        return ["top1", *means, *(f"{name}_top1" for name in (*self.corruptions, *self.shifts))]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        test = outputs[TEST]
        clean = hits(test)
        values = {"top1": clean.astype(np.float64)}
        scored, tables = None, {}
        pictures: dict[str, Callable[[Path], None]] = {}
        if self.corruptions:
            is_right = self._corrupted(outputs)
            # Of the same images, which may be fewer than those scored.
            same = clean[: is_right.shape[2]].astype(np.float64)
            values |= self._summary(is_right.mean(axis=1), same, len(test.class_names))
            table = is_right.mean(axis=2)
            tables = {"top1": self._by_severity(table), "corruptions": GENERATED}
            if self.limit is not None:
                values["clean_top1"] = same
                scored = len(same)
                tables["images"] = {"top1": len(clean), "corrupted": scored}
            pictures["accuracy.png"] = partial(self._draw_table, table, float(same.mean()))
            pictures["corruptions.png"] = partial(self._draw_images, test)
        for name in self.shifts:
            values[f"{name}_top1"] = hits(outputs[f"shift/{name}"]).astype(np.float64)
        return Report(
            metrics={name: float(value.mean()) for name, value in values.items()},
            intervals={name: interval_of_mean(value) for name, value in values.items()},
            tables=tables,
            pictures=pictures,
            scored=scored,
        )

    def _corrupted(
        self, outputs: Mapping[str, SplitOutputs]
    ) -> Bool[np.ndarray, "corruptions severities n"]:
        """Keeps of each pass no more than which examples were right."""
        return np.array(
            [
                [hits(outputs[role_of(name, severity)]) for severity in self.severities]
                for name in self.corruptions
            ]
        )

    def _summary(
        self, share: Float[np.ndarray, "c n"], clean: Float[np.ndarray, " n"], num_classes: int
    ) -> dict[str, Float[np.ndarray, " n"]]:
        """Metrics as what each image adds to them: all are means over images.

        Args:
          share: of the severities at which an image was told right, of each corruption.
          clean: 1 where it was told right without corruption, else 0.
        """
        top1 = share.mean(axis=0)
        found = {
            "corrupted_top1": top1,
            "corrupted_error": 1 - top1,
            "relative_error": clean - top1,
        }
        errors = dict(zip(self.corruptions, 1 - share, strict=True))
        is_published = set(errors) == set(ALEXNET) and set(self.severities) == set(SEVERITIES)
        if num_classes == IMAGENET_CLASSES and is_published:
            found |= {
                "mce": mean_corruption_error(errors),
                "relative_mce": mean_corruption_error(errors, clean=1 - clean),
            }
        return found | {f"{c}_top1": of_c for c, of_c in zip(self.corruptions, share, strict=True)}

    def _by_severity(
        self, table: Float[np.ndarray, "corruptions severities"]
    ) -> dict[str, dict[str, float]]:
        return {
            name: dict(zip(map(str, self.severities), row.tolist(), strict=True))
            for name, row in zip(self.corruptions, table, strict=True)
        }

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
    return top_k_hits(chosen(outputs).logits, outputs.label, k=1)


def mean_corruption_error(
    errors: Mapping[str, Any], *, clean: float | np.ndarray | None = None
) -> Any:
    """Errors of all 15 corruptions as shares of AlexNet's, averaged; 1 is AlexNet.

    Tested against the published errors themselves, and equations of arXiv:1903.12261, section 4.

    Args:
      errors: numbers, or arrays with one an image.
      clean: the error without corruption; then both are counted from there, "relative mCE".
    """
    own, alexnet = (0.0, 0.0) if clean is None else (clean, ALEXNET_CLEAN)
    return np.mean([(errors[c] - own) / (a - alexnet) for c, a in ALEXNET.items()], axis=0)


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
