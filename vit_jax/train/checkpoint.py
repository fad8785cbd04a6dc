"""Checkpoints: written by Orbax in the background, sealed, and never half-read.

A checkpoint is a folder named by its step that holds the `TrainState` and, as JSON, a card: the
run's (config, versions, preprocessing, class names) and the evaluation of this step. Orbax
writes it beside its final name and renames it when it is complete, so a killed save leaves
nothing that looks like a checkpoint. A complete one can still be damaged later; Orbax would load
flipped bits without a word. So the last act before the rename writes a seal, the CRC-32 of every
file, which restoring checks.
"""

import functools
import json
import logging
import math
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from vit_jax.core import TrainState
from vit_jax.errors import InputError
from vit_jax.train import agreement

SEAL = "seal.json"
ORBAX_NOTES = ("_CHECKPOINT_METADATA", "commit_success.txt")  # written at the rename itself
DAMAGED = "damaged_checkpoints"
_BLOCK = 2**24  # bytes read at a time while sealing

logger = logging.getLogger(__name__)


class DamagedCheckpoint(InputError):
    """The message says which file is damaged, and how."""


class _Manager(ocp.CheckpointManager):
    """Orbax reads all scores as it opens; here a damaged one is none, and its seal will tell."""

    def metrics(self, step: int) -> dict[str, float] | None:
        try:
            return super().metrics(step)
        except ValueError:  # no JSON
            return None


class Checkpointer:
    """Saves and restores the checkpoints of one run.

    Args:
      folder: where they are; made on the first save.
      card: plain JSON data to keep beside each state.
      every_steps: steps between saves; 0 for the last step only.
      keep_last: newest checkpoints kept.
      keep_best: name of an evaluation metric, e.g. 'validation/top1'; the checkpoint with its
        best value is kept as well: the lowest of a loss, the highest of anything else.
      read_only: never changes the folder.
      before_save: may raise, where a state must not be kept.
    """

    def __init__(
        self,
        folder: Path,
        *,
        card: Mapping[str, Any] | None = None,
        every_steps: int = 0,
        keep_last: int = 2,
        keep_best: str | None = None,
        read_only: bool = False,
        before_save: Callable[[], None] = lambda: None,
    ):
        self.folder = Path(folder).resolve()
        self.card = dict(card or {})
        self.every_steps = every_steps
        self.keep_best = keep_best
        self.read_only = read_only
        self._before_save = before_save
        self._saving: int | None = None
        self._sound: set[int] = set()  # steps whose seal was found right
        policies = [preservation_policy.LatestN(keep_last)]
        if keep_best:
            policies.append(
                preservation_policy.BestN(
                    get_metric_fn=self._score, n=1, keep_checkpoints_without_metrics=False
                )
            )
        self._manager = _Manager(
            self.folder,
            options=ocp.CheckpointManagerOptions(
                create=not read_only,
                read_only=read_only,
                best_fn=self._score if keep_best else None,
                preservation_policy=preservation_policy.AnyPreservationPolicy(policies),
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def is_due(self, step: int) -> bool:
        return bool(self.every_steps) and step % self.every_steps == 0

    def save(self, step: int, state: TrainState, metrics: Mapping[str, float]) -> None:
        """Copies the state and returns; the writing goes on in the background.

        Raises what went wrong with the previous save, if anything did.
        """
        self.wait()
        self._before_save()
        self._saving = step
        scored = {self.keep_best: metrics[self.keep_best]} if self.keep_best in metrics else None
        card = {**self.card, "evaluation": dict(metrics)}
        self._manager.save(
            step,
            args=ocp.args.Composite(state=ocp.args.PyTreeSave(state), card=ocp.args.JsonSave(card)),
            metrics=scored,
            force=True,
        )

    def wait(self) -> None:
        """Returns when everything saved is complete on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.close()

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, oldest first."""
        return sorted(self._manager.all_steps()) if self.folder.is_dir() else []

    def best_step(self) -> int:
        """The step with the best `keep_best` metric; the latest of equally good ones."""
        return agreement.from_first(self._find_best)

    def _find_best(self) -> int:
        steps = self.steps() if self.keep_best else []
        found = {step: self._manager.metrics(step) for step in steps}
        scores = {step: self._score(metrics) for step, metrics in found.items() if metrics}
        if not scores:
            raise InputError(
                f"no checkpoint in {self.folder} has a score to compare; allowed: 'last', one of "
                f"the steps {self.steps()}, or train.keep_best set in the run's config."
            )
        return max(scores, key=lambda step: (scores[step], step))

    def newest(self) -> int | None:
        """The newest step whose checkpoint is undamaged; None where there is none at all.

        Damaged ones are reported and, unless `read_only`, moved aside so that training can write
        those steps again. When all are damaged that is an error: starting over would hide a loss.
        Of several processes the first looks, and all go by what it finds.
        """
        step = agreement.from_first(self._find_newest)
        self._manager.reload()  # what was moved aside is gone for all
        return step

    def _find_newest(self) -> int | None:
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            try:
                self._verify_here(step)
            except DamagedCheckpoint as error:
                damaged[step] = str(error)
                logger.warning("checkpoint of step %d is damaged (%s)", step, error)
                continue
            if not self.read_only:
                self._move_aside(damaged)
            return step
        if damaged:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in damaged.items())
            raise InputError(
                f"all checkpoints in {self.folder} are damaged ({reasons}); allowed: at least one "
                "sound one, or another workdir to start again."
            )
        return None

    def read_card(self, step: int) -> dict[str, Any]:
        """The run's card, with the `evaluation` of this step.

        Raises:
          DamagedCheckpoint: if any file of the checkpoint is missing, truncated or changed.
        """
        return agreement.from_first(functools.partial(self._read_card, step))

    def _read_card(self, step: int) -> dict[str, Any]:
        self._verify_here(step)
        return json.loads((self.folder / str(step) / "card" / "metadata").read_text())

    def restore(self, step: int, target: TrainState) -> TrainState:
        """The state of `step`, in the shapes and shardings of `target`.

        Args:
          target: a tree of `jax.ShapeDtypeStruct` with shardings; leaves that are
            `ocp.PLACEHOLDER` are not read.

        Raises:
          DamagedCheckpoint: if a file is missing, truncated or changed.
        """
        self._verify(step)
        args = ocp.args.PyTreeRestore(
            target, restore_args=ocp.checkpoint_utils.construct_restore_args(target)
        )
        return self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]

    def read_weights(self, step: int, *paths: str) -> dict[str, Any]:
        """The trees at these paths of the state, as nested dicts on the host: path -> tree.

        For who knows neither the task nor the optimizer that the rest belongs to.

        Args:
          paths: e.g. 'params', 'task_state/teacher'. What the state has not is left out.
        """
        self._verify(step)
        reader, path = ocp.PyTreeCheckpointer(), self.folder / str(step) / "state"
        stored = reader.metadata(path).item_metadata.tree

        def wanted(place, leaf):
            name = jax.tree_util.keystr(place, simple=True, separator="/")
            return leaf if is_within(name, paths) else ocp.PLACEHOLDER

        target = jax.tree_util.tree_map_with_path(wanted, stored)
        on_host = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), stored)
        state = reader.restore(path, args=ocp.args.PyTreeRestore(target, restore_args=on_host))
        found = {name: tree_at(state, name) for name in paths}
        return {name: tree for name, tree in found.items() if tree is not None}

    def _verify(self, step: int) -> None:
        agreement.from_first(functools.partial(self._verify_here, step))

    def _verify_here(self, step: int) -> None:
        if step not in self._sound:  # reading gigabytes once is enough
            verify_seal(self.folder / str(step))
            self._sound.add(step)

    def _score(self, metrics: Mapping[str, float]) -> float:
        """The higher, the better."""
        score = metrics.get(self.keep_best, math.nan) if metrics else math.nan
        score = -score if is_loss(self.keep_best) else score
        return -math.inf if math.isnan(score) else score

    def _seal(self) -> None:
        """Called by Orbax, on process 0, when all processes have written all files of a step."""
        for folder in self.folder.glob(f"{self._saving}.*"):
            (folder / SEAL).write_text(json.dumps(dict(checksums(folder)), indent=1))

    def _move_aside(self, steps: Iterable[int]) -> None:
        for step in steps:
            target = self.folder.parent / DAMAGED / str(step)
            shutil.rmtree(target, ignore_errors=True)
            target.parent.mkdir(exist_ok=True)
            shutil.move(self.folder / str(step), target)


def is_within(name: str, paths: Iterable[str]) -> bool:
    """Is it one of these paths, or below one?"""
    return any(name == path or name.startswith(f"{path}/") for path in paths)


def tree_at(tree: Any, path: str) -> Any:
    """What is at 'a/b' of nested dicts; None where nothing is."""
    for key in path.split("/"):
        if not isinstance(tree, Mapping) or key not in tree:
            return None
        tree = tree[key]
    return tree


def is_loss(metric: str) -> bool:
    """Is a lower value of 'name/metric' the better one?"""
    return metric.rpartition("/")[2] == "loss"


def checksums(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """(file below `folder`, [bytes, CRC-32]) for every file but the seal and Orbax's own notes."""
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and path.name not in (SEAL, *ORBAX_NOTES):
            yield name, [path.stat().st_size, _crc32(path)]


def verify_seal(folder: Path) -> None:
    """Raises `DamagedCheckpoint` for the first file that is not as it was sealed."""
    try:
        seal = json.loads((folder / SEAL).read_text())
    except FileNotFoundError as error:
        raise DamagedCheckpoint(f"{folder / SEAL} is missing") from error
    except ValueError as error:
        raise DamagedCheckpoint(f"{folder / SEAL} is no JSON") from error
    for name, (size, crc) in seal.items():
        path = folder / name
        if not path.is_file():
            raise DamagedCheckpoint(f"{path} is missing")
        if path.stat().st_size != size:
            raise DamagedCheckpoint(f"{path} has {path.stat().st_size} of {size} bytes")
        if _crc32(path) != crc:
            raise DamagedCheckpoint(f"{path} has changed since it was written")


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value
