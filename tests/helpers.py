"""A tiny run, shared by the tests of commands, resuming, configs and weights."""

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_jax.config_files import load_config

ROOT = Path(__file__).parent.parent
DIGITS = ROOT / "configs" / "digits.py"
NUM_STEPS = 24

TINY_MODEL = dict(width=16, depth=2, mlp_dim=32, num_heads=2)
LEFT_OUT = "(left out)"


def tiny_settings(overrides: Mapping[str, object]) -> dict[str, object]:
    """Key in the config -> value: a tiny model, `NUM_STEPS` steps, a checkpoint every six."""
    settings = {f"task.model.{name}": value for name, value in TINY_MODEL.items()}
    settings |= {
        "data.batch_size": 16,
        "data.image_size": (8, 8),
        "data.augment.padding": 1,
        "task.model.patch_size": 2,
        "optimizer.warmup_steps": 2,
        "train.num_epochs": None,
        "train.num_steps": NUM_STEPS,
        "train.log_every": 4,
        "train.checkpoint_every": 6,
        "train.ema_decay": 0.9,
        "evals.validation.every_steps": 12,
    }
    return settings | {name.replace("__", "."): value for name, value in overrides.items()}


def train_arguments(workdir: Path, **overrides: object) -> list[str]:
    """Arguments of `train`, on digits."""
    settings = tiny_settings(overrides)
    given = [f"--config.{name}={value}" for name, value in settings.items()]
    return ["train", f"--config={DIGITS}", f"--workdir={workdir}", *given]


def tiny_config(**overrides: object) -> dict[str, Any]:
    """The same as a plain config, for `experiment.run`; `LEFT_OUT` takes a key away."""
    config = load_config(str(DIGITS)).to_dict()
    for name, value in tiny_settings(overrides).items():
        *sections, key = name.split(".")
        section = functools.reduce(lambda s, part: s.setdefault(part, {}), sections, config)
        section[key] = value
        if value is LEFT_OUT:
            del section[key]
    return config


# Most of a tiny run is compiling; the processes of one test session share what they compiled.
COMPILED = tempfile.TemporaryDirectory(prefix="vit_jax_compiled")


def environment(devices: int = 1, **changed: str) -> dict[str, str]:
    return {
        **os.environ,
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": COMPILED.name,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # as a user runs it, unlike in conftest.py
        "PYTHONUNBUFFERED": "1",
        **changed,
    }


def start(
    arguments: list[str], output: Path, *, devices: int = 1, **changed: str
) -> subprocess.Popen:
    """Starts the command in a process group of its own; what it prints goes to a file.

    `changed` is what is otherwise in its environment.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "vit_jax", *arguments],
        cwd=ROOT,
        env=environment(devices, **changed),
        stdout=output.open("a"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(
    arguments: list[str], output: Path, *, devices: int = 1, **changed: str
) -> tuple[int, str]:
    """Runs the command to its end; its exit code and what it printed this time."""
    before = len(output.read_text()) if output.exists() else 0
    code = start(arguments, output, devices=devices, **changed).wait(timeout=300)
    return code, output.read_text()[before:]
