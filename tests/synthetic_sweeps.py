"""Sweeps whose files are written by hand as real runs leave them: cheap, known to the digit."""

import fcntl
import json

import numpy as np

from vit_jax.sweeps import trials
from vit_jax.sweeps.folder import State, SweepFolder

BASE = {
    "task": {"name": "classification", "model": {"name": "vit", "depth": 2, "width": 16}},
    "data": {"source": "digits", "batch_size": 16, "augment": {"crop": "shift"}},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.05},
    "train": {"num_steps": 100, "seed": 0},
}
VERSIONS = {"python": "3.11.7", "vit_jax": "0.1.0", "jax": "0.10.2", "jaxlib": "0.10.2"}
STEPS = (20, 40, 60, 80, 100)
SECONDS = 36.0  # of an attempt
BEGAN = 1.7e9


def new_sweep(path, *, metric="test/top1", **others):
    folder = SweepFolder.at(path)
    folder.trials.mkdir(parents=True)
    direction = "minimize" if metric and metric.endswith("loss") else "maximize"
    command = ["/somewhere/vit_jax/__main__.py", "sweep", "--config=configs/digits.py"]
    told = dict(metric=metric, direction=direction, command=command, versions=VERSIONS)
    folder.sweep.write_text(json.dumps(told | dict(config="configs/digits.py") | others))
    return folder


def add(
    folder, overrides, value=0.5, *, state=State.FINISHED, attempts=1, steps=STEPS, versions=None,
    devices="2 x NVIDIA H100", unreadable=0, measured=None, base=BASE,
):  # fmt: skip
    """A trial that ends at test/top1 `value`, having come near it exponentially."""
    made = trials.make_trial(base, overrides)
    trial = folder.add(made)
    path = trial.workdir
    if state == State.WAITING:
        return made.name
    ends = len(STEPS) if state == State.FINISHED else 3
    write_lines(trial.attempts, attempt_lines(attempts, is_ended=state != State.RUNNING))
    if state != State.FAILED:  # which broke before its first step
        card = {
            "config": made.config,
            "num_steps": 100,
            "command": ["/somewhere/vit_jax/__main__.py", "train"],
            "versions": versions or VERSIONS,
            "devices": devices,
        }
        path.run.write_text(json.dumps(card))
        write_lines(path.metrics, metric_lines(value, steps[:ends]))
    if state == State.FINISHED:
        metrics = {"test/loss": 1 - value, "test/top1": value, "test/top5": min(1.0, value + 0.2)}
        metrics |= {"test/scored": 360.0 - unreadable, "test/examples": 360}
        metrics["test/unreadable"] = unreadable
        told = {"step": 100, "metrics": metrics, "resumed_from_step": 0, "seconds": 30.0}
        path.result.write_text(json.dumps(told | {"unreadable_training_examples": 0}))
    for which, file in ((State.PRUNED, trial.pruned), (State.FAILED, trial.failed)):
        if state == which:
            reason = "Traceback:\n  ...\nnon-finite loss | at step 3"
            file.write_text(json.dumps({"reason": reason, "step": steps[2]}))
    if measured:
        trial.measured.write_text(json.dumps(measured))
    return made.name


def attempt_lines(count, *, is_ended):
    for i in range(count):
        began = BEGAN + 100 * i
        yield {"event": "start", "time": began, "step": 0}
        if is_ended or i < count - 1:
            yield {"event": "end", "time": began + SECONDS, "step": 0, "exit_code": 0}


def metric_lines(value, steps):
    for step in range(10, max(steps) + 1, 10):
        rate = 1 - np.exp(-step / 25)
        yield {"step": step, "train/loss": 2.3 - 2 * value * rate, "train/learning_rate": 1e-3}
        if step in steps:
            top1 = value * rate / (1 - np.exp(-4))
            yield {"step": step, "test/loss": 1 - top1, "test/top1": top1}


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def hold_lock(folder, name):
    """The lock of a trial that runs, held until the file is closed."""
    file = folder.trial(name).workdir.lock.open("a")
    fcntl.flock(file, fcntl.LOCK_EX)
    return file


# The four sweeps that pictures are looked at for


def grid_with_seeds(path, *, order=1):
    """3 learning rates × 2 decays × 3 seeds; of the last group one failed and one was killed."""
    folder, rng = new_sweep(path), np.random.default_rng(0)
    axes = {
        "optimizer.learning_rate": (1e-4, 1e-3, 1e-2),
        "optimizer.weight_decay": (0.0, 0.1),
        "train.seed": (0, 1, 2),
    }
    states = {16: State.FAILED, 17: State.INTERRUPTED}
    drawn = [
        (i, overrides, 0.6 + 0.1 * (i // 6) + 0.05 * (i // 3 % 2) + rng.normal(0, 0.02))
        for i, overrides in enumerate(trials.grid(axes))
    ]
    for i, overrides, value in drawn[::order]:
        add(folder, overrides, value, state=states.get(i, State.FINISHED), attempts=1 + (i == 3))
    return folder


def random_search(path, *, num_trials=60):
    """Five keys of several kinds, one of them only with SGD; every fourth pruned, some failed."""
    folder = new_sweep(path)
    axes = {
        "optimizer.learning_rate": trials.LogUniform(1e-5, 1e-1),
        "optimizer.weight_decay": trials.Uniform(0.0, 0.3),
        "task.model.depth": trials.IntUniform(1, 8),
        "optimizer.name": trials.Choice(("adamw", "sgd", "a_rather_long_name_of_an_optimizer")),
        "data.augment": trials.Choice(({}, {"crop": "shift"}, {"crop": "inception", "flip": True})),
    }
    for i, overrides in enumerate(trials.random(axes, num_trials=num_trials, seed=0)):
        rng = np.random.default_rng(i)
        if overrides["optimizer.name"] == "sgd":
            overrides["optimizer.momentum"] = float(rng.uniform(0.5, 0.99))
        rate = np.log10(overrides["optimizer.learning_rate"])
        value = 0.85 - 0.06 * (rate + 3) ** 2 + 0.01 * overrides["task.model.depth"]
        state = State.FINISHED
        if i % 4 == 3:
            state = State.PRUNED
        if i % 20 == 7:
            state = State.FAILED
        value = float(np.clip(value + rng.normal(0, 0.01), 0.05, 0.99))
        add(folder, {"name": f"trial-{i:04d}", **overrides}, value, state=state)
    return folder


def one_trial(path):
    folder = new_sweep(path)
    add(folder, {"optimizer.learning_rate": 0.003}, 0.8125)
    return folder


def unfinished(path):
    """One trial interrupted and one not begun; nothing is known of the metric."""
    folder = new_sweep(path, metric=None)
    add(folder, {"optimizer.learning_rate": 0.003}, 0.8, state=State.INTERRUPTED)
    add(folder, {"optimizer.learning_rate": 0.01}, state=State.WAITING)
    return folder
