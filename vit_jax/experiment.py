"""The composition root: from a config to a run.

Each section of the config goes to one builder; what the builders make is put together here and
nowhere else. `restoring.py` brings a run back to be measured and used.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict
from rich.console import Console

from vit_jax import evaluators, one_run, reporting, sections
from vit_jax.analysis import figures
from vit_jax.core import TrainState
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.initial import Beginning
from vit_jax.launch.settings import LaunchSettings
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.tasks import TASKS
from vit_jax.train import agreement, hosts, loop, optimizer, sharding
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.console import evaluation_text
from vit_jax.train.logger import NonFinite
from vit_jax.train.preemption import on_sigterm
from vit_jax.workdir import Workdir, write_json

SECTIONS = ("task", "data", "optimizer", "train", "mesh", "evals", "init", "launch")


def run(
    config: ConfigDict | Mapping[str, Any],
    workdir: str | Path,
    *,
    console: Console | None = None,
) -> dict[str, float]:
    """Trains what the config describes and returns the last evaluation's metrics.

    Continues from the newest checkpoint in the workdir; does nothing where the run is finished.

    Raises:
      InputError: for a mistake in the config, the data or the workdir, with one sentence.
      reporting.Diverged: for NaN or infinity in the loss, the gradient or the parameters.
      Preempted: after SIGTERM; everything is saved and the same call continues.
    """
    console = (console or Console()) if hosts.is_first() else Console(quiet=True)
    with on_sigterm() as stop_requested:
        votes = agreement.Votes(stop_requested)
        given = one_run.agreed(lambda: plain(config), workdir)
        with agreement.together():  # a mistake that one process finds ends all of them
            sections.call(LaunchSettings, given["launch"], where="config.launch")
            config, beginning = Beginning.read(given, workdir)
            mesh = sections.call(sharding.make_mesh, config["mesh"], where="config.mesh")
            settings = sections.call(TrainSettings, config["train"], where="config.train")
            share = hosts.share_of_batch(mesh)
            data = build_data(config["data"], seed=settings.seed, share=share)
            check_batch_size(data, mesh, settings)
            num_steps = settings.steps(
                num_examples=data.train.num_examples, batch_size=data.train.batch_size
            )
            learner = build_learner(config, mesh, Info.of(data), num_steps)
            measured = evaluators.of_run(config["evals"], learner, data, votes, workdir)
            learner.check(data.train.batch_size, measured)

        with one_run.claimed(workdir, given):
            folder = Workdir.at(workdir)
            if (result := agreement.from_first(folder.read_result)) is not None:
                return _already_finished(folder, result, console)
            return _train(learner, data, measured, folder, config, console, votes, beginning)


def _already_finished(
    folder: Workdir, result: dict[str, Any], console: Console
) -> dict[str, float]:
    console.print(f"the run in {folder.path} is finished (step {result['step']}):", style="b")
    console.print(evaluation_text(result["metrics"]), highlight=False, soft_wrap=True)
    return result["metrics"]


def _train(
    learner: Learner,
    data: pipeline.DataSet,
    measured: list[evaluators.AnyEvaluator],
    folder: Workdir,
    config: dict[str, Any],
    console: Console,
    votes: agreement.Votes,
    beginning: Beginning,
) -> dict[str, float]:
    settings, began = learner.settings, time.perf_counter()
    card = reporting.make_card(learner, config)
    checkpointer = Checkpointer(
        folder.checkpoints,
        card=card,
        every_steps=settings.checkpoint_every,
        keep_last=settings.keep_last,
        keep_best=settings.keep_best,
        before_save=votes.settle,
    )
    state, start, evaluated = _start(learner, checkpointer, beginning, console)
    console.print(reporting.summary(learner, data, folder, start), highlight=False, soft_wrap=True)
    step = learner.compile_step(data.train.batch_size)
    console.print(reporting.compiled(step), highlight=False, soft_wrap=True)
    with agreement.together():
        write_json(folder.run, card)
        logger = reporting.make_logger(learner, data, folder, config, console, start, step)

    def batches(first_step: int):
        rows = votes.guard(data.train.iterate(first_step), data.train.padding())
        return sharding.to_devices(rows, learner.mesh)

    try:
        with hosts.contact():
            state, metrics = loop.fit(
                step.call,
                state,
                batches,
                evaluators=measured,
                checkpointer=checkpointer,
                logger=logger,
                num_steps=learner.num_steps,
                evaluated=evaluated,
                stop_requested=votes,
            )
    except NonFinite as error:
        raise reporting.diverged(error, folder, checkpointer) from error
    finally:
        logger.close()
        checkpointer.close()
        if hosts.is_first():
            figures.draw_curves(folder.metrics, folder.curves)
    reporting.finish(learner, data, folder, console, metrics, start, began)
    return metrics


def _start(
    learner: Learner, checkpointer: Checkpointer, beginning: Beginning, console: Console
) -> tuple[TrainState, int, dict[str, float]]:
    """The state to begin with, its step, and what its evaluation found if it had one."""
    start = checkpointer.newest()
    if start is None:
        return beginning.new_state(learner, console), 0, {}
    card = checkpointer.read_card(start)
    with agreement.together():
        check_same_data(card, checkpointer.card)
    return checkpointer.restore(start, learner.abstract_state()), start, card["evaluation"]


def plain(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
    """The config as plain nested dicts with all sections; unknown ones are refused."""
    config = config.to_dict() if isinstance(config, ConfigDict) else dict(config)
    no_sections = [name for name, value in config.items() if not isinstance(value, Mapping)]
    if no_sections:
        raise InputError(
            f"config.{no_sections[0]} is {config[no_sections[0]]!r}; allowed: a section, that is a "
            "dict of keys and values."
        )
    missing = [name for name in ("task", "data", "optimizer", "train") if name not in config]
    if missing:
        raise InputError(f"the config lacks {', '.join(missing)}; sections: {', '.join(SECTIONS)}.")
    unknown = [name for name in config if name not in SECTIONS]
    if unknown:
        raise InputError(
            f"the config has unknown section {', '.join(unknown)}; allowed: {', '.join(SECTIONS)}."
        )
    return {"mesh": {}, "evals": {}, "init": {}, "launch": {}, **config}


def check_batch_size(data: pipeline.DataSet, mesh: Mesh, settings: TrainSettings) -> None:
    sharding.check_batch_size(
        data.train.batch_size,
        mesh,
        accum_steps=settings.accum_steps,
        where="config.data.batch_size",
    )


def check_same_data(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raises `InputError` where the data is no longer what the checkpoint was trained on."""
    then, now = dict(then), json.loads(json.dumps(now))
    for name in ("num_examples", "class_names", "preprocessing", "batch", "num_steps"):
        if then[name] != now[name]:
            raise InputError(
                f"the data has changed since the checkpoint: {name} was {then[name]}, and is "
                f"{now[name]}; allowed: the same data, or another workdir."
            )


def build_data(
    section: Mapping[str, Any], *, seed: int, share: hosts.Share = hosts.WHOLE
) -> pipeline.DataSet:
    return sections.call(
        pipeline.build,
        section,
        where="config.data",
        seed=seed,
        process_index=share.index,
        process_count=share.count,
    )


def build_learner(
    config: Mapping[str, Any], mesh: Mesh | AbstractMesh, info: Info, num_steps: int
) -> Learner:
    task = dict(config["task"])
    builder = sections.choose(TASKS, task.pop("name", None), where="config.task.name")
    info = dataclasses.replace(info, num_steps=num_steps)
    sizes = dict(num_steps=num_steps, batch_size=info.batch_size, num_examples=info.num_examples)
    return Learner(
        info=info,
        mesh=mesh,
        task=sections.call(builder, task, where="config.task", info=info),
        optimizer=sections.call(
            optimizer.build, config["optimizer"], where="config.optimizer", **sizes
        ),
        settings=sections.call(TrainSettings, config["train"], where="config.train"),
        rules=sharding.read_rules(config["mesh"].get("rules", ())),
    )
