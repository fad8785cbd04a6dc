"""How often a trial was begun, how that ended, and when it is given up.

A process that a signal ended, or that was asked to leave by somebody else, is begun again: it
continues from its last checkpoint. After `MAX_DEATHS` such ends at one and the same checkpoint it
would go on like that for ever. Every other end without a result is a failure, which would only
repeat itself. An end that the sweep itself asked for is neither.
"""

import json
import time
from pathlib import Path
from typing import Any

from vit_jax.sweeps.folder import FINAL, State, TrialFolder, read_lines
from vit_jax.train.preemption import EXIT_PREEMPTED
from vit_jax.workdir import replace_json

MAX_DEATHS = 3
SIGNALLED = 128  # and the signal's number, in an exit code as a shell has it
LAST_LINES = 5  # of a log, that say why


def note(folder: TrialFolder, event: str, **what: Any) -> None:
    """Adds a line to attempts.jsonl."""
    line = {"event": event, "time": time.time(), "step": saved_step(folder), **what}
    with folder.attempts.open("a") as file:
        file.write(json.dumps(line) + "\n")


def saved_step(folder: TrialFolder) -> int:
    """The newest checkpoint's step, from which the next attempt continues; 0 without one."""
    kept = folder.workdir.checkpoints
    names = [path.name for path in kept.iterdir()] if kept.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0)


def settle(folder: TrialFolder, exit_code: int, *, asked: bool = False) -> State:
    """Notes the end of an attempt, gives the trial up where that is due, and tells its state.

    Args:
      exit_code: as a shell has it.
      asked: the sweep itself asked the process to leave.
    """
    note(folder, "end", exit_code=exit_code, asked=asked)
    if folder.state() not in FINAL and not asked:
        if not is_death(exit_code):
            give_up(folder, reason(folder, exit_code), exit_code=exit_code)
        elif (count := deaths(folder)) >= MAX_DEATHS:
            text = f"ended {count} times at step {saved_step(folder)} (exit code {exit_code})"
            give_up(folder, text, exit_code=exit_code)
    return folder.state()


def is_death(exit_code: int) -> bool:
    return exit_code >= SIGNALLED or exit_code == EXIT_PREEMPTED


def deaths(folder: TrialFolder) -> int:
    """Ends by signals since the last checkpoint, or since the trial was last given another try."""
    count, furthest = 0, -1
    for line in read_lines(folder.attempts):
        if line["event"] == "retry":
            count = 0
        if line["event"] != "end" or line["asked"] or not is_death(line["exit_code"]):
            continue
        count = count + 1 if line["step"] <= furthest else 1
        furthest = max(furthest, line["step"])
    return count


def starts(folder: TrialFolder) -> int:
    return sum(line["event"] == "start" for line in read_lines(folder.attempts))


def give_up(folder: TrialFolder, why: str, **what: Any) -> None:
    replace_json(folder.failed, {"reason": why, "time": time.time(), **what})


def reason(folder: TrialFolder, exit_code: int) -> str:
    """The sentence that the command ended with, or else the last lines that it printed."""
    log = log_of(folder)
    text = log.read_text(errors="replace")[-4000:] if log.is_file() else ""
    lines = [line for line in text.splitlines() if line.strip()][-LAST_LINES:]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if exit_code == 0:
        return "it ended without a result"
    return errors[-1] if errors else "\n".join([f"exit code {exit_code}", *lines])


def log_of(folder: TrialFolder) -> Path:
    """What the last attempt printed; a job of a cluster has a log of its own."""
    begun = [line for line in read_lines(folder.attempts) if line["event"] == "start"]
    return Path(begun[-1].get("log", folder.log)) if begun else folder.log


def retry(folder: TrialFolder) -> None:
    """Takes away that the trial is given up."""
    note(folder, "retry")
    folder.failed.unlink(missing_ok=True)
