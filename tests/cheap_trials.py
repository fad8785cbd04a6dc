"""Trials that cost nothing, and the process of a sweep of them, which can be killed.

    python cheap_trials.py train TRIAL_FOLDER       as vit_jax.sweeps.worker, but for the training
    python cheap_trials.py sweep FOLDER             twelve trials, two at once
    python cheap_trials.py search FOLDER SAMPLER    fourteen trials, one at once

A training's state is a hash of all its steps, so that one that was lost or done twice shows. It
saves every step. config.task: `x`, `num_steps`, `step_seconds`, `breaks_if`, a file that breaks it
where it is there, and `waits`: each step but the first waits until the one before has been judged,
as TRIAL_FOLDER/judged tells.
"""

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path

TRIALS = 12
SEARCHED = 14


def train(folder: Path) -> None:
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    claim(folder)
    task = json.loads((folder / "trial.json").read_text())["config"]["task"]
    if task["breaks_if"] and Path(task["breaks_if"]).exists():
        print("error: it is broken", file=sys.stderr)
        sys.exit(2)
    step, state = newest(folder)
    while step < task["num_steps"]:
        time.sleep(task["step_seconds"])
        while task["waits"] and step and judged(folder) < step and not asked:
            time.sleep(0.002)
        step, state = step + 1, hashlib.sha256(f"{state} {step} {task['x']}".encode()).hexdigest()
        save(folder, step, state, score(task["x"]) * step / task["num_steps"])
        if asked:
            time.sleep(0.3)  # saving takes its time
            leave(folder, 75)
    found = {"test/score": score(task["x"]), "test/state": int(state[:12], 16)}
    write(folder / "result.json", json.dumps({"step": step, "metrics": found}))
    leave(folder, 0)


def judged(folder: Path) -> int:
    path = folder / "judged"
    return int(path.read_text()) if path.exists() else 0


def score(x: float) -> float:
    """Highest at 0.3; between 1 and 2 where x is between 0 and 1."""
    return 2 - (x - 0.3) ** 2


def claim(folder: Path) -> None:
    """Notes it where a training finds another one alive in its folder."""
    busy = folder / "busy"
    if busy.exists() and Path(f"/proc/{busy.read_text()}").exists():
        (folder / "twice").touch()
    write(busy, str(os.getpid()))


def leave(folder: Path, code: int) -> None:
    (folder / "busy").unlink()
    sys.exit(code)


def newest(folder: Path) -> tuple[int, str]:
    steps = [int(path.name) for path in folder.glob("checkpoints/*") if path.suffix != ".tmp"]
    step = max(steps, default=0)
    return step, (folder / "checkpoints" / str(step)).read_text() if step else ""


def save(folder: Path, step: int, state: str, value: float) -> None:
    """The metrics first: what is logged twice is dropped, as by `train.sinks.JsonLines`."""
    path = folder / "metrics.jsonl"
    lines = path.read_text().splitlines()[: step - 1] if path.exists() else []
    lines.append(json.dumps({"step": step, "test/score": value}))
    write(path, "".join(f"{line}\n" for line in lines))
    (folder / "checkpoints").mkdir(exist_ok=True)
    write(folder / "checkpoints" / str(step), state)


def write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)


# What follows is of the process that runs a sweep, which takes a second to import.


def command(folder) -> list[str]:
    return [sys.executable, __file__, "train", str(folder.workdir.path)]


def config(**task) -> dict:
    task = {"x": 0.0, "num_steps": 6, "step_seconds": 0.0, "breaks_if": "", "waits": False} | task
    return {"task": task, "train": {"seed": 0}, "evals": {"test": {"every_steps": 1}}}


def sweep(folder: Path):
    from vit_jax.sweeps.folder import SweepFolder
    from vit_jax.sweeps.running import About, How, run_trials
    from vit_jax.sweeps.trials import grid, make_trial

    axes = {"task.x": [i / TRIALS for i in range(TRIALS)]}
    trials = [make_trial(config(step_seconds=0.05), found) for found in grid(axes)]
    how = How(workers=2, command=command)
    return run_trials(SweepFolder.at(folder), trials, how=how, about=About(metric="test/score"))


def search(folder: Path, sampler: str = "tpe", *, workers: int = 1, task=None, **settings):
    from vit_jax.sweeps.folder import SweepFolder
    from vit_jax.sweeps.running import About, How
    from vit_jax.sweeps.search import SearchSettings, run_search

    retries = settings.pop("retry_failed", False)
    settings = {"metric": "test/score", "num_trials": SEARCHED, "sampler": sampler} | settings
    return run_search(
        SweepFolder.at(folder),
        config(**({"num_steps": 2} if task is None else task)),
        space,
        SearchSettings(**settings),
        how=How(workers=workers, command=command, retry_failed=retries),
        about=About(),
    )


def space(trial):
    return {
        "task.x": trial.suggest_float("x", 0.0, 1.0),
        "task.y": trial.suggest_float("y", 1e-3, 1.0, log=True),
    }


if __name__ == "__main__":
    verb, folder, *rest = sys.argv[1:]
    if verb == "train":
        train(Path(folder))
    sys.exit({"sweep": sweep, "search": search}[verb](Path(folder), *rest).exit_code)
