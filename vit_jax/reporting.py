"""What a run says of itself: its card, its first line, its log, and why it broke."""

import importlib.metadata
import platform
import sys
import time
from typing import Any

import jax
from rich.console import Console

from vit_jax.analysis import cost, tables
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.layers.attention_choice import recorded_choices
from vit_jax.learner import Learner
from vit_jax.train import agreement, hosts, placement, sinks, warnings
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.train.compiling import CompiledStep
from vit_jax.train.console import ConsoleSink
from vit_jax.train.logger import NonFinite, RunLogger
from vit_jax.train.profiling import StepTrace
from vit_jax.workdir import Workdir, write_json

PACKAGES = ("vit_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class Diverged(InputError):
    """Loss, gradient or parameters became NaN or infinite; metrics are the same on every host."""

    on_every_host = True


def make_card(learner: Learner, config: dict[str, Any]) -> dict[str, Any]:
    """What is kept beside every checkpoint."""
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    devices = jax.devices()
    return {
        "config": config,
        "num_steps": learner.num_steps,
        **learner.info.to_dict(),
        "parameters": cost.count_parameters(learner.abstract_state().params),
        **exported(learner),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), **versions},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }


def exported(learner: Learner) -> dict[str, Any]:
    """`model`: what `weights` makes of a checkpoint without knowing the task.

    'weights' is where in the state the parameters are that are measured, 'path' where in those the
    model is, and 'num_classes' what its head has.
    """
    model = getattr(learner.task, "model", None)
    if model is None:
        return {}
    return {
        "model": {
            "weights": learner.weights_path(),
            "path": list(learner.task.model_path),
            "num_classes": model.num_classes,
        }
    }


def summary(learner: Learner, data: pipeline.DataSet, folder: Workdir, start: int) -> str:
    parameters = cost.count_parameters(learner.abstract_state().params)
    with recorded_choices() as kernels:
        flops = learner.forward_flops_per_example()
    mesh = " × ".join(f"{axis} {size}" for axis, size in learner.mesh.shape.items())
    begin = f"resuming after step {start}" if start else "starting"
    whole = placement.notes(learner.abstract_state().params, learner.mesh, learner.rules)
    return (
        f"{begin}: {learner.num_steps:,} steps of {data.train.batch_size} examples from "
        f"{len(data.train.source):,} | {parameters:,} parameters, {flops / 1e9:.3g} GFLOPs forward "
        f"an example | {jax.device_count()} {jax.devices()[0].device_kind} ({mesh}) | {folder.path}"
        + "".join(f"\nattention: {kernel}" for kernel in kernels)
        + "".join(f"\nnote: {note}" for note in whole)
    )


def compiled(step: CompiledStep) -> str:
    text = f"compiled the step in {step.seconds:.1f} s"
    if not step.memory:
        return text
    size = {name: tables.format_bytes(count) for name, count in step.memory.items()}
    return (
        f"{text}; on each device it needs {size['total']}: {size['arguments']} of state and batch, "
        f"{size['temporary']} within the step"
    )


def make_logger(
    learner: Learner,
    data: pipeline.DataSet,
    folder: Workdir,
    config: dict[str, Any],
    console: Console,
    start: int,
    step: CompiledStep,
) -> RunLogger:
    batch_size, utilisation = data.train.batch_size, None
    peak = cost.peak_flops(jax.devices()[0])
    if peak is not None:
        scale = learner.flops_per_example() / (peak * jax.device_count())
        utilisation = lambda images_per_second: images_per_second * scale  # noqa: E731
    outputs = []
    if hosts.is_first():
        board = sinks.TensorBoard(folder.tensorboard, start_step=start)
        outputs = [
            ConsoleSink(
                console, num_steps=learner.num_steps, start_step=start, batch_size=batch_size
            ),
            sinks.JsonLines(folder.metrics, start_step=start),
            board,
            warnings.Warnings(
                learner.task.diagnose,
                console=console,
                path=folder.warnings,
                start_step=start,
                board=board,
            ),
        ]
        if learner.settings.wandb_project:
            project = learner.settings.wandb_project
            outputs.append(sinks.WeightsAndBiases(project, folder=folder.path, config=config))
    once = {"speed/compile_seconds": step.seconds}
    if step.memory:
        once["memory/step_bytes"] = step.memory["total"]
    return RunLogger(
        outputs,
        start_step=start,
        every_steps=learner.settings.log_every,
        batch_size=batch_size,
        learning_rate=learner.optimizer.learning_rate,
        utilisation=utilisation,
        once=once,
        trace=make_trace(learner, folder, console, start),
    )


def make_trace(learner: Learner, folder: Workdir, console: Console, start: int) -> StepTrace | None:
    if learner.settings.profile_steps is None or not hosts.is_first():
        return None
    first, last = learner.settings.profile_steps
    where = f"the trace of steps {first} to {last}"
    if last <= start:  # no mistake: the same command continues an interrupted run
        console.print(f"{where} was due before the steps that this run resumes with")
        return None
    console.print(f"{where} will be in {folder.profile}", highlight=False, soft_wrap=True)
    return StepTrace(folder.profile, first=first, last=last)


def diverged(error: NonFinite, folder: Workdir, checkpointer: Checkpointer) -> Diverged:
    """Keeps what is known of the batch and turns the error into advice."""
    checkpointer.wait()
    steps = checkpointer.steps()  # all of them are finite: what is not is never saved
    good = f"step {steps[-1]}" if steps else "none"
    write_json(
        folder.non_finite,
        {
            "step": error.step,
            "values": {name: str(value) for name, value in error.values.items()},
            "example_indices": error.examples,
            "last_good_checkpoint": steps[-1] if steps else None,
        },
    )
    return Diverged(
        f"the training broke at {error} (last good checkpoint: {good}; the batch's examples are in "
        f"{folder.non_finite}). Try a lower learning_rate, more warmup_steps, "
        "optimizer.clip_norm=1.0, or dtype float32, in a new workdir."
    )


def finish(
    learner: Learner,
    data: pipeline.DataSet,
    folder: Workdir,
    console: Console,
    metrics: dict[str, float],
    start: int,
    began: float,
) -> None:
    """Writes the result, whose presence says that the run is finished, and the last line."""
    seconds = round(time.perf_counter() - began, 1)
    own = data.train.bad_examples
    bad = agreement.total(len(own), share=data.train.process_index)
    result = {
        "step": learner.num_steps,
        "metrics": metrics,
        # What follows is of this process alone, from the step it resumed from.
        "resumed_from_step": start,
        "seconds": seconds,
        "unreadable_training_examples": bad,
    }
    write_json(folder.result, result)
    if bad:
        here = "" if len(own) == bad else f" {len(own)} of them by process 0:"
        console.print(f"{bad} unreadable training examples were skipped:{here} {own}")
    kinds = warnings.count_kinds(folder.warnings)
    ending = f" with {kinds} kind{'s' * (kinds > 1)} of warnings, in {folder.warnings.name}"
    console.print(
        f"finished in {seconds:.0f} s: {folder.path}{ending if kinds else ''}",
        highlight=False,
        soft_wrap=True,
    )
