"""The folder of one run, with everything a stranger needs to understand and repeat it.

config.json      the whole config
run.json         command, versions, devices, class names, preprocessing: the checkpoints' card
metrics.jsonl    one line per log line or evaluation
warnings.jsonl   what the task found wrong with the training, if it did
curves.png       the same as a picture
tensorboard/     the same as event files
evaluations/     tables and pictures of evaluations by protocols, a folder each
profile/         a trace of `train.profile_steps`
checkpoints/     one folder per kept step
slurm/           job scripts and logs, where a cluster trained it
result.json      the last evaluation; its presence says that the run is finished
non_finite.json  the step and batch that broke the run, if one did
.lock            held by the process that trains here
"""

import contextlib
import dataclasses
import fcntl
import json
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from vit_jax.errors import InputError

logger = logging.getLogger(__name__)

# Keys that change where, how fast or how visibly a run happens, but not its result; an
# interrupted run may continue under other values of these, and of no others.
FREE_KEYS = (
    "mesh",
    "evals",
    "launch",
    "data.data_dir",
    "data.num_workers",
    "data.num_threads",
    "data.prefetch",
    "train.log_every",
    "train.checkpoint_every",
    "train.keep_last",
    "train.wandb_project",
    "train.profile_steps",
)


@dataclasses.dataclass(frozen=True)
class Workdir:
    path: Path

    config = property(lambda self: self.path / "config.json")
    run = property(lambda self: self.path / "run.json")
    metrics = property(lambda self: self.path / "metrics.jsonl")
    warnings = property(lambda self: self.path / "warnings.jsonl")
    curves = property(lambda self: self.path / "curves.png")
    tensorboard = property(lambda self: self.path / "tensorboard")
    evaluations = property(lambda self: self.path / "evaluations")
    profile = property(lambda self: self.path / "profile")
    checkpoints = property(lambda self: self.path / "checkpoints")
    result = property(lambda self: self.path / "result.json")
    non_finite = property(lambda self: self.path / "non_finite.json")
    lock = property(lambda self: self.path / ".lock")

    @classmethod
    def at(cls, path: str | Path) -> "Workdir":
        return cls(Path(path).expanduser().resolve())

    def read_result(self) -> dict[str, Any] | None:
        """What result.json says of a finished run; None before."""
        return read_json(self.result) if self.result.is_file() else None

    def holds_training(self) -> bool:
        """Is there anything that another config would make worthless?"""
        return self.result.is_file() or (
            self.checkpoints.is_dir() and any(self.checkpoints.iterdir())
        )


@contextlib.contextmanager
def claim(path: str | Path, config: Mapping[str, Any]) -> Iterator[Workdir]:
    """Makes the folder this run's own for the duration of a `with` block, or refuses.

    A config that never got as far as a checkpoint binds nobody: it is replaced.

    Raises:
      InputError: if it cannot be written, is in use, or holds a run of another config; then with
        the differences.
    """
    workdir = Workdir.at(path)
    check_writable(workdir.path)
    with locked(workdir.lock):
        check_owner(workdir, config)
        if not workdir.result.is_file():  # what is finished stays as it is
            write_json(workdir.config, config)
        yield workdir


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock while inside; the system lets go of it when the process dies, however."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"another process is training in {path.parent}; allowed: to wait for it, to stop "
                "it, or another workdir."
            ) from error
        except OSError as error:  # some network file systems know no locks
            logger.warning("%s cannot be locked (%s); take care to train there once", path, error)
        yield


def check_owner(workdir: Workdir, config: Mapping[str, Any]) -> None:
    """Raises `InputError` where the folder's training belongs to another config."""
    if not workdir.holds_training():
        return
    if workdir.config.is_file():
        different = contradictions(read_json(workdir.config), config)
        if different:
            raise InputError(
                f"the workdir {workdir.path} belongs to a run with another config: "
                f"{'; '.join(different)}. Allowed: the same config, or another workdir."
            )
    else:
        raise InputError(
            f"the workdir {workdir.path} has checkpoints but no config.json, so whose they are "
            "cannot be told; allowed: an empty folder or the folder of a run."
        )


def existing(path: str | Path) -> Workdir:
    """The folder of a run that is there already; raises `InputError` otherwise."""
    workdir = Workdir.at(path)
    if not workdir.config.is_file():
        raise InputError(f"{workdir.path} is no run's workdir: there is no config.json in it.")
    return workdir


def contradictions(
    old: Mapping[str, Any], new: Mapping[str, Any], *, free: Sequence[str] = FREE_KEYS
) -> list[str]:
    """'optimizer.learning_rate: 0.001 there, 0.01 now' for each leaf that must not differ."""
    old, new = dict(leaves(old)), dict(leaves(new))
    missing = "(not set)"
    return [
        f"{key}: {old.get(key, missing)!r} there, {new.get(key, missing)!r} now"
        for key in sorted(old.keys() | new.keys())
        if old.get(key, missing) != new.get(key, missing)
        and not any(key == name or key.startswith(name + ".") for name in free)
    ]


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """('optimizer.learning_rate', 0.001) and so on, in JSON's types."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.loads(json.dumps(value))


def check_writable(folder: Path) -> None:
    """Makes the folder and proves that files can be written there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Of a name of its own: several processes may ask at the same time.
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".write_test_"):
            pass
    except OSError as error:
        raise InputError(
            f"the folder {folder} cannot be written ({error.strerror}); allowed: a folder with "
            "write permission."
        ) from error


def read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error


def write_json(path: Path, value: Any) -> None:
    """Replaces the file at once, so that a kill leaves the old one or the new one.

    Of several processes only the first writes; their folder is the same.
    """
    if jax.process_index() == 0:
        replace_json(path, value)


def replace_json(path: Path, value: Any) -> None:
    """`write_json` of a process that is alone, and opens no device for it."""
    replace_text(path, json.dumps(value, indent=2) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Writes the file at once: a reader sees the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
