"""Transfer to many small tasks at once, on frozen features: VTAB-1k's data sets and any others.

arXiv:1910.04867 fine-tunes all weights on each of 19 tasks with 1,000 images, and takes the mean
accuracy. This is the frozen variant: a linear classifier of features learns each task. The two are
no substitutes for each other; fine-tuning one of these tasks is a run of its own, e.g.
`train --config=configs/finetune.py:B16,vtab:dtd`.

vtab.py lists the tasks; `entries` adds others, or stands in for a listed one of the same name.
Metrics are top-1 accuracies: 'dtd_top1' of a task, 'natural_top1' of a group (a mean over its
tasks), 'mean_of_tasks_top1', 'mean_of_groups_top1', and 'vtab', the mean over tasks, only where
these are the nineteen of VTAB. Intervals are over test images, drawn for each task by itself; two
tasks that share their images, as smallNORB's do, are taken for independent in those of means.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool

from vit_jax import sections
from vit_jax.data.pipeline import EvalSettings, Origin
from vit_jax.errors import InputError
from vit_jax.evaluation import few_shot, vtab
from vit_jax.evaluation.bootstrap import interval, means_of_samples
from vit_jax.evaluation.classification import top_k_hits
from vit_jax.evaluation.features import (
    Examples,
    check_same_classes,
    examples_of,
    shares_of,
)
from vit_jax.evaluation.linear_classifier import choose_and_fit, hold_out
from vit_jax.evaluation.logistic_regression import LogisticRegression
from vit_jax.evaluation.protocol import TEST, Protocol, Report, Request, SplitOutputs, check_has
from vit_jax.evaluation.vtab import TransferTask

ROLES = ("train", "validation", TEST)
MEANS = ("mean_of_tasks", "mean_of_groups")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transfer(Protocol):
    """Accuracy on each task of a suite, and means; see the top of this file.

    Attributes:
      tasks: of `vtab.READABLE`; None is all of them.
      entries: further tasks, with the keys of `vtab.TransferTask`.
      solver: 'lbfgs' chooses its penalty on the validation images, see logistic_regression.py;
        'ridge' is the least squares of few_shot.py, with its fixed penalty.
      num_examples: training images of a task, of which more are thinned out at random; None takes
        all. VTAB-1k's are 800, and 200 that validate, as they are.
      held_out: share of the training images that validates where a task has no such split.
      seed: of these choices.
      standardise: features, for 'lbfgs'.
      skip_missing: leave out tasks whose data cannot be opened, and say so in the report.
    """

    reads: ClassVar[tuple[str, ...]] = ("representation",)
    brings_data: ClassVar[bool] = True

    tasks: tuple[str, ...] | None = None
    entries: Sequence[Mapping[str, Any]] = ()
    solver: str = "lbfgs"
    num_examples: int | None = 1_000
    held_out: float = 0.2
    seed: int = 0
    standardise: bool = False
    skip_missing: bool = False

    def __post_init__(self):
        sections.choose(SOLVERS, self.solver, where="transfer.solver")
        if self.num_examples is not None:
            sections.positive_int(self.num_examples, "num_examples")
        held_out, seed = (self.held_out, sections.TINY, 1), (self.seed, 0, math.inf)
        sections.check_ranges("transfer", held_out=held_out, seed=seed)
        self.suite()

    def suite(self) -> dict[str, TransferTask]:
        """Name -> task, in the order of `vtab.TASKS`, others behind."""
        names = tuple(vtab.READABLE) if self.tasks is None else self.tasks
        own = [
            sections.call(TransferTask, entry, where=f"transfer.entries[{i}]")
            for i, entry in enumerate(self.entries)
        ]
        given = {task.name: task for task in own}
        for name in names:
            if name in vtab.UNREADABLE and name not in given:
                raise InputError(
                    f"{name} cannot be read: {vtab.UNREADABLE[name]}; allowed: an entry of that "
                    "name, with a source that was prepared so."
                )
        listed = {n: sections.choose(vtab.READABLE | given, n, where="tasks") for n in names}
        found = {**listed, **given}
        check_names(own, found)
        return found

    def metric_names(self) -> list[str]:
        means = [f"{name}_top1" for name in MEANS]
        if self.skip_missing:  # which will be there is known only when they were opened
            return means
        suite = self.suite()
        groups = dict.fromkeys(task.group for task in suite.values())
        names = [f"{name}_top1" for name in (*suite, *groups)]
        return names + means + (["vtab"] if set(suite) == set(vtab.NAMES) else [])

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        del training_split
        found, missing = {}, {}
        for name, task in self.suite().items():
            needed = {role: settings_of(task, role, test) for role in ROLES if getattr(task, role)}
            try:
                for settings in needed.values():
                    settings.origin(Origin(source=task.source)).open(settings.split)
            except InputError as error:
                missing[name] = str(error)
                continue
            for role, settings in needed.items():
                found[f"{role} {name}"] = Request(
                    settings=settings, own_classes=True, is_kept=False
                )
        if missing and (not self.skip_missing or not found):
            raise InputError(missing_text(missing, len(self.suite())))
        return found

    def check(self, role: str, found: Collection[str]) -> None:
        check_has(found, "label")

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        roles, suite = set(outputs), self.suite()
        tasks = [task for name, task in suite.items() if f"{TEST} {name}" in roles]
        hits, strengths = {}, {}
        for task in tasks:
            hits[task.name], strengths[task.name] = self._learn(task, outputs, roles)
        is_vtab = set(hits) == set(vtab.NAMES)
        groups = {task.name: task.group for task in tasks}
        top1 = with_means(shares_of(hits), groups, is_vtab=is_vtab)
        # Seeds of their own: tasks of as many images would otherwise draw the same places.
        drawn = {name: means_of_samples(hit, seed=i) for i, (name, hit) in enumerate(hits.items())}
        drawn = with_means(drawn, groups, is_vtab=is_vtab)
        tables = {
            "of": "VTAB-1k, frozen features" if is_vtab else "a suite of tasks that is not VTAB",
            "left_out": [name for name in suite if name not in hits],
            "chosen_l2": strengths,
            "groups": groups,
        }
        return Report(
            metrics={name: float(value) for name, value in top1.items()},
            intervals={name: interval(values) for name, values in drawn.items()},
            tables=tables,
        )

    def _learn(
        self, task: TransferTask, outputs: Mapping[str, SplitOutputs], roles: set[str]
    ) -> tuple[Bool[np.ndarray, " n"], float]:
        """Which test images are told right, and with what penalty."""
        train = outputs[f"train {task.name}"]
        examples = self._thinned(examples_of(train))
        held_out = None
        if f"validation {task.name}" in roles:
            held_out = examples_of(outputs[f"validation {task.name}"])
        else:
            examples, held_out = hold_out(examples, share=self.held_out, seed=self.seed)
        num_classes = len(train.class_names)
        logits_of, strength = SOLVERS[self.solver](
            examples, held_out, num_classes, standardise=self.standardise
        )
        test = outputs[f"{TEST} {task.name}"]
        check_same_classes(train, test)
        points = examples_of(test)
        return top_k_hits(logits_of(points.features), points.label, k=1), strength

    def _thinned(self, examples: Examples) -> Examples:
        n = len(examples.label)
        if self.num_examples is None or n <= self.num_examples:
            return examples
        chosen = np.random.default_rng(self.seed).permutation(n)[: self.num_examples]
        return examples.at(np.sort(chosen))


LogitsOf = Callable[[np.ndarray], np.ndarray]


def by_regression(
    train: Examples, held_out: Examples, num_classes: int, *, standardise: bool
) -> tuple[LogitsOf, float]:
    """Learns from both, with the penalty that is best on the latter after the former alone."""
    solver = LogisticRegression(standardise=standardise)
    found = choose_and_fit(solver, train, held_out, num_classes=num_classes, strengths=None)
    return found.classifier, found.strength


def by_ridge(
    train: Examples, held_out: Examples, num_classes: int, *, standardise: bool
) -> tuple[LogitsOf, float]:
    """Learns from both; always standardised."""
    del standardise
    whole = (np.concatenate(parts) for parts in zip(train, held_out, strict=True))
    penalty = few_shot.PENALTY
    return few_shot.fit(*whole, num_classes=num_classes, l2=penalty), penalty


SOLVERS = {"lbfgs": by_regression, "ridge": by_ridge}


def settings_of(task: TransferTask, role: str, test: EvalSettings) -> EvalSettings:
    """A split of a task, with the evaluation's batch size."""
    data_dir = task.data_dir or (test.data_dir if task.source.startswith("tfds:") else None)
    return EvalSettings(
        split=getattr(task, role),
        batch_size=test.batch_size,
        source=task.source,
        data_dir=data_dir,
        label_key=task.label_key,
    )


def with_means(
    top1: Mapping[str, Any], group_of: Mapping[str, str], *, is_vtab: bool = False
) -> dict[str, Any]:
    """Metrics: of each task, of each group, over all tasks, and over the groups' means.

    Args:
      top1: task -> its accuracy, or an array of accuracies.
    """
    groups = {
        group: np.mean([top1[name] for name in top1 if group_of[name] == group], axis=0)
        for group in dict.fromkeys(group_of.values())
    }
    means = [np.mean(list(values.values()), axis=0) for values in (top1, groups)]
    found = {**top1, **groups, **dict(zip(MEANS, means, strict=True))}
    found = {f"{name}_top1": value for name, value in found.items()}
    return found | ({"vtab": means[0]} if is_vtab else {})


def check_names(entries: Sequence[TransferTask], suite: Mapping[str, TransferTask]) -> None:
    """All metrics of a suite need names of their own."""
    if not suite:
        raise InputError("a transfer has no task; allowed: tasks or entries.")
    names = [task.name for task in entries]
    taken = {task.group for task in suite.values()} | {*MEANS, "vtab"}
    for name in names:
        if names.count(name) > 1 or name in taken:
            raise InputError(
                f"an entry of the transfer has the name {name!r}, which another entry, a group or "
                "a mean has; allowed: names of their own."
            )


def missing_text(missing: Mapping[str, str], num_tasks: int) -> str:
    first = next(iter(missing.values())).rstrip(".")
    return (
        f"{len(missing)} of {num_tasks} tasks have no data that can be opened: "
        f"{', '.join(missing)} (the first: {first}); allowed: prepared data sets, or "
        "skip_missing=True, which leaves these tasks out, as long as one is there."
    )
