"""What a task finds wrong with its own training, told while it trains.

At each log line the task is asked (`Task.diagnose`). Each sentence it has goes to warnings.jsonl;
on the console the same warning, other numbers aside, comes again only after `QUIET_LINES`.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from rich.console import Console

from vit_jax.train.sinks import JsonLines, TensorBoard, read_metrics

QUIET_LINES = 20
NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?")


class Warnings:
    """A sink of log lines.

    Args:
      diagnose: a log line's values -> sentences.
      path: of the file, which is there once there is a warning.
      start_step: lines of later steps are dropped, as `JsonLines` does.
      board: shows the sentences as text.
    """

    def __init__(
        self,
        diagnose: Callable[[Mapping[str, float]], list[str]],
        *,
        console: Console,
        path: Path,
        start_step: int,
        board: TensorBoard | None = None,
    ):
        self._diagnose, self._console, self._board = diagnose, console, board
        self._path, self._start_step = path, start_step
        self._file = JsonLines(path, start_step=start_step) if path.is_file() else None
        self._line, self._shown = 0, {}  # lines so far; kind -> the line that showed it

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._line += 1
        for sentence in self._found(values):
            if self._file is None:
                self._file = JsonLines(self._path, start_step=self._start_step)
            self._file.write(step, {"warning": sentence})
            shown = self._shown.get(kind(sentence))
            if shown is None or self._line - shown >= QUIET_LINES:
                self._shown[kind(sentence)] = self._line
                self._show(step, sentence)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _found(self, values: Mapping[str, float]) -> list[str]:
        try:
            return self._diagnose(values)
        except Exception as error:  # who only watches a run may not end it
            is_training = any(name.startswith("train/") for name in values)
            if isinstance(error, KeyError) and not is_training:
                return []  # an evaluation's line has other names
            return [f"the training cannot be diagnosed ({type(error).__name__}: {error})"]

    def _show(self, step: int, sentence: str) -> None:
        text = f"warning at step {step}: {sentence}"
        self._console.print(
            text, style="bold yellow", highlight=False, soft_wrap=True, markup=False
        )
        if self._board is not None:
            self._board.write_text(step, "warnings", sentence)


def kind(sentence: str) -> str:
    """What stays of a sentence when its numbers change."""
    return NUMBER.sub("#", sentence)


def count_kinds(path: Path) -> int:
    """How many different warnings a warnings.jsonl has."""
    return len({kind(row["warning"]) for row in read_metrics(path)})
