"""A run brought back from its workdir alone, to be measured and used."""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from vit_jax import sections
from vit_jax.core import Batch, TrainState, Variables
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.experiment import build_learner
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.train import agreement, hosts, sharding
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.workdir import existing, read_json


def restore(
    workdir: str | Path, *, checkpoint: str = "last", mesh: Mesh | None = None
) -> tuple[Learner, TrainState, dict[str, Any]]:
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
    learner = build_learner(
        config, mesh or sharding.make_mesh(), Info.from_dict(card), card["num_steps"]
    )
    target = learner.abstract_state()
    target = target.replace(opt_state=jax.tree.map(lambda _: ocp.PLACEHOLDER, target.opt_state))
    state = checkpointer.restore(step, target)
    checkpointer.close()
    return learner, state.replace(opt_state=()), config


def score(
    learner: Learner,
    state: TrainState,
    *,
    origin: pipeline.Origin,
    split: str,
    batch_size: int,
    max_objects: int | None = None,
    skip_bad_examples: bool = False,
) -> dict[str, float]:
    """Metrics of a restored state on any split of any source, preprocessed as in its training."""
    share, votes = hosts.share_of_batch(learner.mesh), agreement.Votes()
    with agreement.together():
        data = pipeline.EvalData(
            source=pipeline.open_alike(origin, split, learner.info.class_names),
            preprocessing=learner.info.preprocessing,
            batch_size=learner.round_up(batch_size),
            process_index=share.index,
            process_count=share.count,
            max_objects=max_objects,
            skip_bad_examples=skip_bad_examples,
        )
    return learner.evaluator(split, data, votes).run(state, stop_requested=votes)


class Features(NamedTuple):
    """What a model's head reads, of each example of a split, in the split's order."""

    representation: Float[np.ndarray, "n r"]
    label: Int[np.ndarray, " n"]


def represent(
    learner: Learner,
    state: TrainState,
    *,
    origin: pipeline.Origin,
    split: str,
    batch_size: int,
) -> Features:
    """Frozen representations of any split of any source, preprocessed as in the training.

    The source's classes need not be the training's. Examples without a single label are refused,
    and unreadable ones, too.
    """
    task = learner.task
    if not hasattr(task, "normalise"):
        raise InputError(
            f"a {type(task).__name__} has no representations of images; allowed: a classification."
        )
    share, votes = hosts.share_of_batch(learner.mesh), agreement.Votes()
    with agreement.together():
        data = pipeline.EvalData(
            source=origin.open(split, class_names=learner.info.class_names),
            preprocessing=learner.info.preprocessing,
            batch_size=learner.round_up(batch_size),
            process_index=share.index,
            process_count=share.count,
        )
        if "label" not in data.spec:
            found = ", ".join(sorted(data.spec))
            raise InputError(f"the examples have {found}; allowed: with label.")
    everywhere = sharding.replicated(learner.mesh)

    def represented(variables: Variables, batch: Batch) -> tuple[Array, Array, Array]:
        output = task.model.apply(variables, task.normalise(batch["image"]))
        found = output.representation.astype(jnp.float32), batch["label"], batch["mask"]
        return jax.lax.with_sharding_constraint(found, everywhere)

    step, variables = learner.compile(represented), state.variables(averaged=True)
    features, labels = [], []
    for batch in learner.evaluator(split, data, votes).batches():
        found, label, mask = map(np.asarray, step(variables, batch))
        features.append(found[mask])
        labels.append(label[mask])
    return Features(np.concatenate(features), np.concatenate(labels))
