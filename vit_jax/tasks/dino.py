"""Self-distillation with no labels (DINO, arXiv:2104.14294), and what DINOv2 adds to it.

A student learns from a teacher, which is the running average of the student itself. Both see views
of an example, the student all of them and the teacher the large ones; the student is to say of
every view what the teacher says of another one (`losses.self_distillation`). DINOv2's additions are
options: targets by Sinkhorn and Knopp (`losses.sinkhorn`), masked patches (`losses.masked_tokens`,
iBOT), representations that are spread out (`losses.koleo`), register tokens (of the model).

Letters: b examples; g global and l local views; H, W and h, w their pixels; C channels; m patches
of a global view; c width; k prototypes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax import sections
from vit_jax.core import Aux, Batch, Mean, Outputs, Task, TrainState, Tree, Variables
from vit_jax.errors import InputError
from vit_jax.losses.koleo import koleo_of_views
from vit_jax.losses.masked_tokens import masked_cross_entropy
from vit_jax.losses.self_distillation import view_cross_entropy
from vit_jax.models.dino import DinoNetwork, DinoOutput, build_backbone, build_head
from vit_jax.models.vit_network import VisionTransformer
from vit_jax.tasks import dino_monitors, pixels
from vit_jax.tasks.dino_masks import Hidden, PatchLoss
from vit_jax.tasks.dino_schedules import DinoSchedules
from vit_jax.tasks.dino_targets import Targets, sums
from vit_jax.tasks.randomness import MASKS, example_keys


class Views(NamedTuple):
    global_images: Float[Array, "b g H W C"]
    local_images: Float[Array, "b l h w C"] | None


class Part(NamedTuple):
    """One of the losses that are summed, and what comes with it."""

    loss: Float[Array, " b"]
    weight: float = 1.0
    metrics: Mapping[str, Mean] = MappingProxyType({})
    seen: Mapping[str, Mean] = MappingProxyType({})  # what moves a centre


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dino(Task):
    """Batches hold `global_images` uint8[b, g, H, W, C], `local_images` uint8[b, l, h, w, C] if
    there are such, `mask` bool[b] and `index` int32[b]. See `build` for the settings."""

    model: VisionTransformer
    network: DinoNetwork
    mean: tuple[float, ...]  # of a channel, in units of the range [0, 1]
    std: tuple[float, ...]
    schedules: DinoSchedules
    targets: Targets
    student_temperature: float = 0.1
    koleo_weight: float = 0.0
    patch_loss: PatchLoss | None = None
    model_path = ("backbone",)

    @property
    def mixes_examples(self) -> bool:
        return self.targets.mixes_examples or self.koleo_weight > 0

    def init(self, rng: Array, batch: Batch) -> Variables:
        images = self.views(batch).global_images
        # Any patch will do to make the parameters of the patches' head.
        taken = jnp.zeros((len(images), 1), jnp.int32) if self.patch_loss else None
        return self.network.init(rng, images, taken=taken)

    def init_task_state(self, params: Tree) -> Tree:
        """The teacher begins as the student, the centres at zero."""
        # A copy, since the step donates the state and may not be given one buffer twice.
        state = {"teacher": jax.tree.map(jnp.copy, params)}
        if self.targets.centring == "centre":
            state["centre"] = jnp.zeros(self.network.head.num_prototypes)
            if self.patch_loss:
                state["patch_centre"] = jnp.zeros(self.network.head.num_prototypes)
        return state

    def loss(
        self, params: Tree, state: TrainState, batch: Batch, rng: Array, *, train: bool
    ) -> tuple[Mean, Aux]:
        """The weighted sum of the losses named above; each is a metric, too."""
        views, mask = self.views(batch), batch["mask"]
        hidden = self._hidden(state, batch, views, train=train)
        student, teacher = self._outputs(params, state, views, hidden, rng, train=train)
        parts = {"view_loss": self._view_part(student, teacher, mask, state)}
        if self.koleo_weight:
            of_views = student.representation[:, : views.global_images.shape[1]]
            parts["koleo_loss"] = Part(koleo_of_views(of_views, mask), self.koleo_weight)
        if hidden:
            parts["patch_loss"] = self._patch_part(student, teacher, hidden, mask, state)
        metrics = {name: Mean.of(part.loss, mask) for name, part in parts.items()}
        seen = {}
        for part in parts.values():
            metrics |= part.metrics
            seen |= part.seen
        metrics |= self.schedules.metrics(state.step)
        total = sum(part.weight * part.loss for part in parts.values())
        moving = {name: mean for name, mean in seen.items() if name in state.task_state}
        return Mean.of(total, mask), Aux({}, metrics, moving)

    def _outputs(
        self,
        params: Tree,
        state: TrainState,
        views: Views,
        hidden: Hidden | None,
        rng: Array,
        *,
        train: bool,
    ) -> tuple[DinoOutput, DinoOutput]:
        """The student's of all views, and the teacher's of the global ones, with nothing hidden."""
        masked, taken = (hidden.masked, hidden.taken) if hidden else (None, None)
        # As in the public code nothing is dropped in the teacher. It has no gradient: `params` is
        # what is differentiated.
        teacher = self.network.apply(
            {"params": state.task_state["teacher"]}, views.global_images, taken=taken
        )
        student = self.network.apply(
            {"params": self.schedules.freeze_last_layer(params, state.step)},
            *views,
            masked=masked,
            taken=taken,
            train=train,
            rngs={"dropout": rng},
        )
        return student, teacher

    def _view_part(
        self, student: DinoOutput, teacher: DinoOutput, mask: Bool[Array, " b"], state: TrainState
    ) -> Part:
        is_view = jnp.broadcast_to(mask[:, None], teacher.logits.shape[:2])
        targets = self._targets("centre", teacher.logits, is_view, state)
        loss = view_cross_entropy(targets, student.logits, temperature=self.student_temperature)
        metrics = dino_monitors.measure(teacher.representation, targets, loss, mask)
        return Part(loss, 1.0, metrics, {"centre": sums(teacher.logits, is_view)})

    def _patch_part(
        self,
        student: DinoOutput,
        teacher: DinoOutput,
        hidden: Hidden,
        mask: Bool[Array, " b"],
        state: TrainState,
    ) -> Part:
        is_patch = (hidden.weight > 0) & mask[:, None]
        targets = self._targets("patch_centre", teacher.patch_logits, is_patch, state)
        loss = masked_cross_entropy(
            targets, student.patch_logits, hidden.weight, temperature=self.student_temperature
        )
        metrics = dino_monitors.measure_patches(targets, hidden.weight, loss, mask)
        seen = {"patch_centre": sums(teacher.patch_logits, is_patch)}
        return Part(loss, self.patch_loss.weight, metrics, seen)

    def update_task_state(self, state: TrainState, carry: dict[str, Mean]) -> Tree:
        """The teacher moves towards the new student, the centres towards the batch's means."""
        old = state.task_state
        # `state.step` counts the step that was just done, too.
        m = self.schedules.teacher_momentum(state.step - 1)
        teacher = jax.tree.map(
            lambda teacher, student: m * teacher + (1 - m) * student, old["teacher"], state.params
        )
        centres = {name: old[name] for name in carry}
        return {"teacher": teacher, **self.targets.moved(centres, carry)}

    def variables(self, state: TrainState) -> Variables:
        """The teacher's, which is the better one at any time (section 5.2 of the paper)."""
        return {"params": state.task_state["teacher"]}

    def predict(self, variables: Variables, batch: Batch, rng: Array) -> Outputs:
        """Representation f32[b, c] of images, or of the first global views."""
        image = batch["image"] if "image" in batch else batch["global_images"][:, 0]
        backbone = {"params": variables["params"]["backbone"]}
        return {"representation": self.model.apply(backbone, self.normalise(image)).representation}

    def diagnose(self, metrics: Mapping[str, float]) -> list[str]:
        return dino_monitors.diagnose(metrics, centring=self.targets.centring)

    def views(self, batch: Batch) -> Views:
        """Normalised."""
        if "global_images" not in batch:
            found = ", ".join(sorted(batch))
            raise InputError(
                f"the loss of DINO is asked for, but the examples have {found}; allowed: in "
                "training, with config.data.augment.multi_crop; for an evaluation on plain images, "
                "protocol='knn' or another one that reads representations."
            )
        local = self.normalise(batch["local_images"]) if "local_images" in batch else None
        return Views(self.normalise(batch["global_images"]), local)

    def normalise(self, image: Array) -> Float[Array, "*b h w c"]:
        return pixels.normalise(image, self.mean, self.std)

    def _hidden(
        self, state: TrainState, batch: Batch, views: Views, *, train: bool
    ) -> Hidden | None:
        if not self.patch_loss:
            return None
        keys = example_keys(state, batch["index"], purpose=MASKS, train=train)
        _, g, *image_size, _ = views.global_images.shape
        return self.patch_loss.hide(keys, g, self.model.grid(tuple(image_size)))

    def _targets(
        self, name: str, logits: Float[Array, "*b k"], counts: Bool[Array, "*b"], state: TrainState
    ) -> Float[Array, "*b k"]:
        """What the student is to predict; `name` is of the centre, if there are such."""
        centre, temperature = state.task_state.get(name), self.schedules.temperature(state.step)
        return self.targets.of(logits, counts, centre=centre, temperature=temperature)


def build(
    *,
    model: Mapping[str, Any],
    info: Any,
    head: Mapping[str, Any] | None = None,
    centring: str = "centre",
    centre_momentum: float = 0.9,
    student_temperature: float = 0.1,
    teacher_temperature: float = 0.04,
    warmup_teacher_temperature: float = 0.04,
    temperature_warmup_epochs: float = 0.0,
    momentum: float = 0.996,
    end_momentum: float = 1.0,
    freeze_last_layer_epochs: float = 1.0,
    koleo_weight: float = 0.0,
    patch_loss: Mapping[str, Any] | None = None,
    reference_batch_size: int | None = None,
) -> Dino:
    """The task that `config.task` describes; defaults are those of DINO's public code.

    Args:
      model: keys of the ViT's builder. `position_grid` is the global views' where positions are
        learned and it is not set, and `mask_token` goes with `patch_loss`.
      info: of the data and the run; the examples have global views.
      head: keys of `models.dino.build_head`.
      centring: 'centre', subtracts a running mean of the teacher's logits (DINO); 'sinkhorn',
        shares the batch out evenly over the prototypes (DINOv2); 'none' lets the run collapse, and
        exists to show that.
      centre_momentum: of that running mean.
      student_temperature: of the softmax over its logits.
      teacher_temperature, warmup_teacher_temperature, temperature_warmup_epochs, momentum,
        end_momentum, freeze_last_layer_epochs: see `DinoSchedules`.
      koleo_weight: of `losses.koleo`; DINOv2 has 0.1.
      patch_loss: keys of `PatchLoss`; None for none.
      reference_batch_size: what momentum and temperature were chosen for; from there they follow
        the rules in `dino_schedules`. None is the run's own, so that they are used as they stand.
    """
    sections.check_ranges(
        "config.task",
        student_temperature=(student_temperature, sections.TINY, float("inf")),
        koleo_weight=(koleo_weight, 0, float("inf")),
        reference_batch_size=(reference_batch_size, 1, float("inf")),
    )
    if "global_images" not in info.batch:
        raise InputError(
            f"the data's examples have {', '.join(sorted(info.batch))}; allowed for dino: with "
            "global_images, so with config.data.augment.multi_crop."
        )
    patch = None
    if patch_loss is not None:
        patch = sections.call(PatchLoss, patch_loss, where="config.task.patch_loss")
    image_size = info.batch["global_images"][0][1:3]
    backbone = build_backbone(model, image_size, has_mask_token=patch is not None)
    make_head = functools.partial(
        sections.call, build_head, head or {}, where="config.task.head", dtype=backbone.block.dtype
    )
    return Dino(
        model=backbone,
        network=DinoNetwork(
            backbone, make_head(), make_head() if patch and patch.own_head else None
        ),
        mean=tuple(info.preprocessing.mean),
        std=tuple(info.preprocessing.std),
        schedules=DinoSchedules(
            num_steps=info.num_steps,
            steps_per_epoch=info.num_examples / info.batch_size,
            momentum=momentum,
            end_momentum=end_momentum,
            teacher_temperature=teacher_temperature,
            warmup_teacher_temperature=warmup_teacher_temperature,
            temperature_warmup_epochs=temperature_warmup_epochs,
            freeze_last_layer_epochs=freeze_last_layer_epochs,
            batch_ratio=info.batch_size / (reference_batch_size or info.batch_size),
        ),
        targets=Targets(centring=centring, centre_momentum=centre_momentum),
        student_temperature=student_temperature,
        koleo_weight=koleo_weight,
        patch_loss=patch,
    )
