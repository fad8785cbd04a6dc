"""Where log lines go: metrics.jsonl, TensorBoard, Weights & Biases.

console.py has the terminal, warnings.py what a task finds wrong.
"""

import contextlib
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from vit_jax.errors import InputError

COUNTS = ("scored", "examples", "unreadable")  # of an evaluation, beside its metrics


@runtime_checkable
class Sink(Protocol):
    def write(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonLines:
    """metrics.jsonl: one object a line, {"step": ..., name: value, ...}; warnings.jsonl alike.

    A resumed run first drops the lines after the step it resumes from, which it is about to
    write again; the file of an interrupted run so tells the same story as that of a whole one.
    """

    def __init__(self, path: Path, *, start_step: int):
        kept = [row for row in read_metrics(path) if row["step"] <= start_step]
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept))
        temporary.replace(path)
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a last line that a kill cut short is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        with contextlib.suppress(ValueError):
            rows.append(json.loads(line))
    return rows


class TensorBoard:
    """Event files, written without TensorFlow."""

    def __init__(self, folder: Path, *, start_step: int):
        from tensorboardX import SummaryWriter  # slow to import

        self._writer = SummaryWriter(str(folder), purge_step=start_step + 1 if start_step else None)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def write_text(self, step: int, name: str, text: str) -> None:
        self._writer.add_text(name, text, step)

    def close(self) -> None:
        self._writer.close()


class WeightsAndBiases:
    """Needs the extra `wandb`; a resumed run continues the same page."""

    def __init__(self, project: str, *, folder: Path, config: Mapping[str, Any]):
        try:
            import wandb
        except ImportError as error:
            raise InputError(
                f"config.train.wandb_project is {project!r}, but wandb is not installed; "
                "allowed: None, or install the extra: pip install 'vit_jax[wandb]'."
            ) from error
        identity = folder / "wandb_id.txt"
        if not identity.is_file():
            identity.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project=project,
            id=identity.read_text(),
            resume="allow",
            dir=str(folder),
            config=dict(config),
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()
