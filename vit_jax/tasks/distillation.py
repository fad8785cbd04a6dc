"""Classification that learns from a teacher, too (arXiv:2012.12877, arXiv:2106.05237).

    loss = (1 - w) label loss + w teacher loss          w = config.task.teacher_weight

The label loss is that of `classification`. The teacher loss is `losses.distillation`'s

    soft    T² KL(teacher || student) at temperature T; DeiT's equation 2, there w = 0.1, T = 3
    hard    cross-entropy with the teacher's choice; equation 3, there w = 1/2

of the very images that the student sees. With `soft`, w = 1 and much mixing it is the function
matching of "A good teacher is patient and consistent", for which labels count nothing.

A student with a distillation token learns by token: its class head has the labels alone, its
distillation head the teacher alone, and it predicts by the mean of both heads' logits, as DeiT.

The teacher's variables are `task_state["teacher"]`: they are saved with the student's and get no
gradient. What `config.task.teacher` leaves open is completed, and its source read, before a run
begins.

Letters: b examples; k classes.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxtyping import Array, Float

from vit_jax import sections
from vit_jax.core import Aux, Batch, Mean, TrainState, Tree
from vit_jax.errors import InputError
from vit_jax.losses import accuracy, distillation
from vit_jax.tasks import classification
from vit_jax.tasks.classification import LOSSES, Classification
from vit_jax.tasks.teacher import Teacher, TeacherSettings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Soft:
    """The teacher's probabilities are learned; the defaults are DeiT's.

    Attributes:
      teacher_weight: w.
      temperature: T.
    """

    teacher_weight: float = 0.1
    temperature: float = 3.0

    def __post_init__(self):
        _check_weight(self.teacher_weight)
        sections.check_ranges(
            "config.task", temperature=(self.temperature, sections.TINY, math.inf)
        )

    def __call__(
        self, student: Float[Array, "b k"], teacher: Float[Array, "b k"]
    ) -> Float[Array, " b"]:
        return distillation.soft(student, teacher, temperature=self.temperature)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hard:
    """The teacher's choice is learned; the default is DeiT's.

    Attributes:
      teacher_weight: w.
    """

    teacher_weight: float = 0.5

    def __post_init__(self):
        _check_weight(self.teacher_weight)

    def __call__(
        self, student: Float[Array, "b k"], teacher: Float[Array, "b k"]
    ) -> Float[Array, " b"]:
        return distillation.hard(student, teacher)


METHODS = {"soft": Soft, "hard": Hard}


class Heads(NamedTuple):
    """A student's logits; without a distillation token both are the same."""

    of_labels: Float[Array, "b k"]
    of_teacher: Float[Array, "b k"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distillation(Classification):
    """Batches are those of `Classification`."""

    teacher: Teacher
    method: Soft | Hard

    def init_task_state(self, params: Tree) -> Tree:
        """A place for the teacher's variables, without them: they are loaded."""
        del params
        return {"teacher": self.teacher.unknown()}

    def loss(
        self, params: Tree, state: TrainState, batch: Batch, rng: Array, *, train: bool
    ) -> tuple[Mean, Aux]:
        """Both losses, weighted; metrics tell each, and how often the student agrees."""
        image, target, mask = self.examples(state, batch, train=train)
        output, model_state = self.apply(params, state, image, rng, train=train)
        teacher = self.teacher.logits(state.task_state["teacher"], image)
        heads = self.heads(output)
        of_labels = LOSSES[self.loss_name](heads.of_labels, target)
        of_teacher = self.method(heads.of_teacher, teacher)
        weight = self.method.teacher_weight
        metrics = {
            "label_loss": Mean.of(of_labels, mask),
            "teacher_loss": Mean.of(of_teacher, mask),
            **accuracy.of_batch(output.logits, batch),
            "teacher_top1": accuracy.of_batch(teacher, batch)["top1"],
            "agreement": Mean.of(distillation.agree(output.logits, teacher), batch["mask"]),
        }
        loss = Mean.of((1 - weight) * of_labels + weight * of_teacher, mask)
        return loss, Aux(model_state, metrics, {})

    def heads(self, output: Any) -> Heads:
        """What learns the labels, and what the teacher."""
        if getattr(self.model, "distillation_token", False):
            return Heads(output.class_logits, output.distillation_logits)
        return Heads(output.logits, output.logits)


def build(
    *,
    model: Mapping[str, Any],
    teacher: Mapping[str, Any],
    info: Any,
    method: str = "soft",
    teacher_weight: float | None = None,
    temperature: float | None = None,
    num_classes: int | None = None,
    loss: str = "softmax",
    label_smoothing: float = 0.0,
    mixing: Mapping[str, Any] | None = None,
) -> Distillation:
    """The task that `config.task` describes.

    Args:
      model: the student's; with distillation_token=True it learns by token.
      teacher: keys of `teacher.TeacherSettings`; a run completes them from the source.
      info: the data set, as for `classification.build`.
      method: 'soft' or 'hard'.
      teacher_weight: w, the share of the teacher's loss; None is the paper's for the method.
      temperature: T of 'soft'; None is the paper's.
      num_classes, loss, label_smoothing, mixing: see `classification.build`. What the teacher says
        is not smoothed.
    """
    chosen = sections.choose(METHODS, method, where="config.task.method")
    known = sections.call(TeacherSettings, teacher, where="config.task.teacher")
    student = classification.build(
        model=model,
        info=info,
        num_classes=num_classes,
        loss=loss,
        label_smoothing=label_smoothing,
        mixing=mixing,
    )
    fields = {field.name: getattr(student, field.name) for field in dataclasses.fields(student)}
    return Distillation(
        **fields,
        teacher=known.build(info),
        method=sections.call_chosen(
            chosen,
            dict(teacher_weight=teacher_weight, temperature=temperature),
            where="config.task",
            choice=f"method {method!r}",
        ),
    )


def _check_weight(weight: float) -> None:
    if not 0 <= weight <= 1:
        raise InputError(f"config.task.teacher_weight is {weight}; allowed: 0 to 1.")
