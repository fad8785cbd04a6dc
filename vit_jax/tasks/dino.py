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
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax import sections
from vit_jax.core import Aux, Batch, Mean, Outputs, Task, TrainState, Tree, Variables
from vit_jax.errors import InputError
from vit_jax.losses.koleo import koleo
from vit_jax.losses.masked_tokens import masked_cross_entropy
from vit_jax.losses.self_distillation import centred_targets, view_cross_entropy
from vit_jax.losses.sinkhorn import sinkhorn
from vit_jax.models.dino import DinoNetwork, build_backbone, build_head
from vit_jax.models.vit_network import VisionTransformer
from vit_jax.tasks import dino_monitors, pixels
from vit_jax.tasks.dino_masks import Hidden, PatchLoss
from vit_jax.tasks.dino_schedules import DinoSchedules
from vit_jax.tasks.randomness import MASKS, example_keys

# How targets are kept from collapsing; 'none' does not, and is there to show what then happens.
CENTRINGS = ("centre", "sinkhorn", "none")


class Views(NamedTuple):
    global_images: Float[Array, "b g H W C"]
    local_images: Float[Array, "b l h w C"] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dino(Task):
    """Batches hold `global_images` uint8[b, g, H, W, C], `local_images` uint8[b, l, h, w, C] if
    there are such, `mask` bool[b] and `index` int32[b]. See `build` for the settings."""

    model: VisionTransformer
    network: DinoNetwork
    mean: tuple[float, ...]  # of a channel, in units of the range [0, 1]
    std: tuple[float, ...]
    schedules: DinoSchedules
    centring: str = "centre"
    centre_momentum: float = 0.9
    student_temperature: float = 0.1
    koleo_weight: float = 0.0
    patch_loss: PatchLoss | None = None
    model_path = ("backbone",)

    @property
    def mixes_examples(self) -> bool:
        return self.centring == "sinkhorn" or self.koleo_weight > 0

    def init(self, rng: Array, batch: Batch) -> Variables:
        images = self.views(batch).global_images
        # Any patch will do to make the parameters of the patches' head.
        taken = jnp.zeros((*images.shape[:2], 1), jnp.int32) if self.patch_loss else None
        return self.network.init(rng, images, taken=taken)

    def init_task_state(self, params: Tree) -> Tree:
        """The teacher begins as the student, the centres at zero."""
        # A copy, since the step donates the state and may not be given one buffer twice.
        state = {"teacher": jax.tree.map(jnp.copy, params)}
        if self.centring == "centre":
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
        masked, taken = (hidden.masked, hidden.taken) if hidden else (None, None)
        # As in the public code nothing is dropped in the teacher. It has no gradient: `params` is
        # what is differentiated.
        teacher = self.network.apply(
            {"params": state.task_state["teacher"]}, views.global_images, taken=taken
        )
        student = self.network.apply(
            {"params": self._with_frozen_last_layer(params, state)},
            *views,
            masked=masked,
            taken=taken,
            train=train,
            rngs={"dropout": rng},
        )
        is_view = jnp.broadcast_to(mask[:, None], views.global_images.shape[:2])
        targets = self._targets("centre", teacher.logits, is_view, state)
        temperature = self.student_temperature
        losses = {"view_loss": view_cross_entropy(targets, student.logits, temperature=temperature)}
        seen = {"centre": (teacher.logits, is_view)}
        if self.koleo_weight:
            losses["koleo_loss"] = _koleo(student.representation[:, : is_view.shape[1]], mask)
        if hidden:
            is_patch = hidden.is_masked & is_view[..., None]
            losses["patch_loss"] = masked_cross_entropy(
                self._targets("patch_centre", teacher.patch_logits, is_patch, state),
                student.patch_logits,
                is_patch,
                temperature=temperature,
            )
            seen["patch_centre"] = (teacher.patch_logits, is_patch)
        metrics = {name: Mean.of(loss, mask) for name, loss in losses.items()}
        metrics |= dino_monitors.measure(teacher.representation, targets, losses["view_loss"], mask)
        metrics |= self._scheduled(state)
        total = sum(self._weight(name) * loss for name, loss in losses.items())
        centres = {name: _sums(*of) for name, of in seen.items() if name in state.task_state}
        return Mean.of(total, mask), Aux({}, metrics, centres)

    def update_task_state(self, state: TrainState, carry: dict[str, Mean]) -> Tree:
        """The teacher moves towards the new student, the centres towards the batch's means."""
        old, new = state.task_state, {}
        # `state.step` counts the step that was just done, too.
        m = self.schedules.teacher_momentum(state.step - 1)
        new["teacher"] = jax.tree.map(
            lambda teacher, student: m * teacher + (1 - m) * student, old["teacher"], state.params
        )
        c = self.centre_momentum
        for name, seen in carry.items():
            moved = c * old[name] + (1 - c) * seen.compute()
            new[name] = jnp.where(seen.weight > 0, moved, old[name])
        return new

    def variables(self, state: TrainState) -> Variables:
        """The teacher's, which is the better one at any time (section 5.2 of the paper)."""
        return {"params": state.task_state["teacher"]}

    def predict(self, variables: Variables, batch: Batch, rng: Array) -> Outputs:
        """Representation f32[b, c] of images, or of the first global views."""
        image = batch["image"] if "image" in batch else batch["global_images"][:, 0]
        backbone = {"params": variables["params"]["backbone"]}
        return {"representation": self.model.apply(backbone, self.normalise(image)).representation}

    def diagnose(self, metrics: Mapping[str, float]) -> list[str]:
        return dino_monitors.diagnose(metrics, centring=self.centring)

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

    def _with_frozen_last_layer(self, params: Tree, state: TrainState) -> Tree:
        """Without gradient for the prototypes, in the first epochs."""
        is_frozen = self.schedules.is_last_layer_frozen(state.step)

        def freeze(leaf: Array) -> Array:
            return jnp.where(is_frozen, jax.lax.stop_gradient(leaf), leaf)

        heads = [name for name in ("head", "patch_head") if name in params]
        frozen = {
            name: {**params[name], "last": jax.tree.map(freeze, params[name]["last"])}
            for name in heads
        }
        return {**params, **frozen}

    def _targets(
        self, name: str, logits: Float[Array, "*b k"], counts: Bool[Array, "*b"], state: TrainState
    ) -> Float[Array, "*b k"]:
        """What the student is to predict, by the `centring`; `name` is of the centre."""
        temperature = self.schedules.temperature(state.step)
        if self.centring == "sinkhorn":
            return sinkhorn(logits / temperature, counts)
        nothing = jnp.zeros(logits.shape[-1:])
        centre = state.task_state[name] if self.centring == "centre" else nothing
        return centred_targets(logits, centre, temperature)

    def _weight(self, name: str) -> float:
        """Of a loss in the sum."""
        if name == "koleo_loss":
            return self.koleo_weight
        return self.patch_loss.weight if name == "patch_loss" else 1.0

    def _scheduled(self, state: TrainState) -> dict[str, Mean]:
        momentum = self.schedules.teacher_momentum(state.step)
        temperature = self.schedules.temperature(state.step)
        return {
            "teacher_momentum": Mean.of(momentum),
            "teacher_temperature": Mean.of(temperature),
        }


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
    sections.choose(dict.fromkeys(CENTRINGS), centring, where="config.task.centring")
    above_one = 1 + 2**-52
    sections.check_ranges(
        "config.task",
        centre_momentum=(centre_momentum, 0, above_one),
        student_temperature=(student_temperature, sections.TINY, float("inf")),
        koleo_weight=(koleo_weight, 0, float("inf")),
        reference_batch_size=(reference_batch_size, 1, float("inf")),
    )
    _check_batch(info.batch)
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
        centring=centring,
        centre_momentum=centre_momentum,
        student_temperature=student_temperature,
        koleo_weight=koleo_weight,
        patch_loss=patch,
    )


def _check_batch(batch: Mapping[str, Any]) -> None:
    """Raises `InputError` where there are no views of the examples."""
    if "global_images" not in batch:
        raise InputError(
            f"the data's examples have {', '.join(sorted(batch))}; allowed for dino: with "
            "global_images, so with config.data.augment.multi_crop."
        )


def _koleo(tokens: Float[Array, "b g c"], mask: Bool[Array, " b"]) -> Float[Array, " b"]:
    """The sum over global views, as in DINOv2; views of one example are not compared."""
    return sum(koleo(tokens[:, view], mask) for view in range(tokens.shape[1]))


def _sums(x: Float[Array, "*b k"], counts: Bool[Array, "*b"]) -> Mean:
    """The mean over rows that count, f32[k] as its two sums."""
    axes = tuple(range(counts.ndim))
    return Mean(jnp.where(counts[..., None], x, 0).sum(axes), counts.sum().astype(jnp.float32))
