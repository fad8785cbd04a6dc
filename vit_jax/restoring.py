"""A run brought back from its workdir alone, or published weights, to be measured and used."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from vit_jax import sections, weights
from vit_jax.analysis.heads import check_has_attention
from vit_jax.core import TrainState, Variables
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.evaluation.protocol import Request
from vit_jax.evaluators import Builder
from vit_jax.experiment import build_learner
from vit_jax.layers.attention_choice import runnable
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.models.vit import VisionTransformer
from vit_jax.train import agreement, hosts, sharding
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.workdir import existing, read_json


class Restored(NamedTuple):
    """A trained model, without what would train it on.

    Attributes:
      learner: the task with its model, the preprocessing and class names, and the mesh.
      state: without optimizer.
      config: of the run; of published weights its `task` alone tells something.
    """

    learner: Learner
    state: TrainState
    config: dict[str, Any]

    @property
    def model(self) -> nn.Module:
        return self.learner.task.model

    @property
    def variables(self) -> Variables:
        """The model's: the averaged ones where the run keeps them, or what else the task says."""
        return self.learner.model_variables(self.state)

    @property
    def vit(self) -> VisionTransformer:
        """Refuses a model without attention."""
        return check_has_attention(self.model)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches."""
        return self.vit.grid(self.learner.info.preprocessing.image_size)

    @property
    def origin(self) -> pipeline.Origin | None:
        """Of the training's examples; None of published weights."""
        data = self.config["data"]
        return pipeline.Origin.of(data) if "source" in data else None

    @property
    def training_split(self) -> str | None:
        return self.config["data"].get("train", "train") if self.origin else None

    def normalise(self, images: UInt8[np.ndarray, "b h w c"]) -> Float[Array, "b h w c"]:
        """As the model takes them."""
        return self.learner.task.normalise(jnp.asarray(images))

    def images(self, split: str, count: int) -> UInt8[np.ndarray, "b h w c"]:
        """The first ones of a split of the training's source, or all where there are fewer."""
        info = self.learner.info
        source = pipeline.open_alike(self.origin, split, info.class_names)
        size = min(count, len(source))
        data = pipeline.EvalData(
            source=source, preprocessing=info.preprocessing, batch_size=size, num_workers=0
        )
        return next(iter(data))["image"]


def restore(workdir: str | Path, *, checkpoint: str = "last", mesh: Mesh | None = None) -> Restored:
    """A run's learner, its state without optimizer, and its config, from the workdir alone.

    Args:
      workdir: of a run.
      checkpoint: 'last', 'best' (by `train.keep_best`) or a step.
      mesh: where to put the state; by default all devices hold a copy.
    """
    with agreement.together():
        folder = existing(workdir)
        train = read_json(folder.config)["train"]
        settings = sections.call(TrainSettings, train, where="config.train")
    checkpointer = Checkpointer(folder.checkpoints, keep_best=settings.keep_best, read_only=True)
    with agreement.together():
        steps = checkpointer.steps()
        if not steps:
            raise InputError(f"there is no checkpoint in {folder.checkpoints}.")
        which = {"last": checkpointer.newest, "best": checkpointer.best_step}
        which |= {str(step): functools.partial(int, step) for step in steps}
        find = sections.choose(which, checkpoint, where="checkpoint")
    step = find()
    card = checkpointer.read_card(step)
    config = card["config"]
    mesh, info = mesh or sharding.make_mesh(), Info.from_dict(card)
    # A run trained on a GPU is used on a CPU, too; the config is told as it was.
    here = {**config, "task": runnable(config["task"])}
    learner = build_learner(here, mesh, info, card["num_steps"])
    target = learner.abstract_state()
    target = target.replace(opt_state=jax.tree.map(lambda _: ocp.PLACEHOLDER, target.opt_state))
    state = checkpointer.restore(step, target)
    checkpointer.close()
    return Restored(learner, state.replace(opt_state=()), config)


def load(source: str | Path, *, mesh: Mesh | None = None, **settings: Any) -> Restored:
    """Published weights, or a run's, as a classification by their own head, where they have one.

    Args:
      source: see `weights.load`.
      mesh: where to put them; by default all devices hold a copy.
      **settings: further ones of `weights.load`, e.g. image_size=384.
    """
    with agreement.together():
        found = weights.load(source, **settings)
        preprocessing = found.preprocessing
        rows = {"image": (preprocessing.image_shape, "uint8"), "label": ((), "int32")}
        model = {key: value for key, value in found.settings.items() if key != "num_classes"}
        task = {"name": "classification", "model": model, "num_classes": len(found.class_names)}
        config = {
            "task": task,
            "data": {},
            # Nothing is learned, but a learner says how it would.
            "optimizer": {"name": "sgd", "learning_rate": 0.0},
            "train": {"num_steps": 1},
            "mesh": {},
        }
        info = Info(
            class_names=found.class_names,
            preprocessing=preprocessing,
            num_examples=0,
            batch=rows,
        )
        learner = build_learner(config, mesh or sharding.make_mesh(), info, 1)
    state = learner.init_state(found.variables)
    return Restored(learner, state.replace(opt_state=()), config)


def splits(
    restored: Restored,
    *,
    origin: pipeline.Origin | None = None,
    training_split: str | None = None,
    **reading: Any,
) -> pipeline.Splits:
    """What a restored model can be evaluated on, as the share of this process.

    Args:
      origin: in place of the training's.
      training_split: of that origin, in place of the training's.
      **reading: settings of `pipeline.EvalData`.
    """
    share, info = hosts.share_of_batch(restored.learner.mesh), restored.learner.info
    is_own = origin in (None, restored.origin)
    return pipeline.Splits(
        origin=origin or restored.origin,
        training_split=training_split or (restored.training_split if is_own else None),
        preprocessing=info.preprocessing,
        class_names=info.class_names,
        reading=dict(process_index=share.index, process_count=share.count, **reading),
    )


class Features(NamedTuple):
    """What a model's head reads, of each example of a split, in the split's order."""

    representation: Float[np.ndarray, "n r"]
    label: Int[np.ndarray, " n"]


def represent(
    restored: Restored,
    *,
    origin: pipeline.Origin | None = None,
    split: str,
    batch_size: int,
) -> Features:
    """Frozen representations of any split of any source, preprocessed as in the training.

    The source's classes need not be the training's. Examples without a single label are refused,
    and unreadable ones, too.
    """
    votes, reads = agreement.Votes(), ("representation",)
    with agreement.together():
        builder = Builder(
            restored.learner, splits(restored, origin=origin), votes, batch_size=batch_size
        )
        request = Request(settings=pipeline.EvalSettings(split=split), own_classes=True)
        spec = builder.passes.expect(request, reads).spec
        if "label" not in spec:
            raise InputError(f"the examples have {', '.join(sorted(spec))}; allowed: with label.")
    found = builder.passes.outputs(restored.state, request, stop_requested=votes)
    return Features(found.representation, found.label)
