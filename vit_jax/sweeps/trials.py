"""What a sweep tries: the helpers that a config's `sweep()` is written with, and a `Trial`.

    def sweep():
        yield from grid({"optimizer.learning_rate": (1e-3, 3e-3), "train.seed": (0, 1, 2)})
        yield named("no augmentation", {"data.augment": {}})

Overrides are a dict from a key of the config, 'section.key', to its value. The only key without a
dot is 'name', of the trial; a trial without one is named after what it changes.
"""

import copy
import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import InputError

Overrides = dict[str, Any]

SEED = "train.seed"
NEEDS = "trial:"  # a value 'trial:NAME' is the workdir of that trial, which must finish first
_FOLDER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._,=+\-]*")
_MAX_NAME = 100  # file systems allow 255 bytes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One run of a sweep.

    Attributes:
      name: of its folder.
      config: the whole config as plain data, overrides included.
      overrides: what the trial changes in the sweep's config, for reports.
      needs: names of the trials whose workdirs its config names.
    """

    name: str
    config: Mapping[str, Any]
    overrides: Mapping[str, Any]
    needs: tuple[str, ...] = ()


def make_trial(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> Trial:
    """The trial that changes these keys of the config `base`."""
    overrides = {key: plain(value, key) for key, value in overrides.items()}
    name = overrides.pop("name", None)
    config = copy.deepcopy(dict(base))
    for path, value in overrides.items():
        set_key(config, path, value)
    return Trial(
        name=name_of(overrides) if name is None else checked_name(name),
        config=config,
        overrides=overrides,
        needs=tuple(sorted(set(find_needs(config)))),
    )


def plain(value: Any, key: str) -> Any:
    """A copy in Python's own types, which is nobody else's."""
    if isinstance(value, Mapping):
        return {name: plain(inner, key) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([plain(inner, key) for inner in value])
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise InputError(
        f"a trial sets {key!r} to {value!r} of type {type(value).__name__}; allowed: numbers, "
        "text, True, False, None, and lists and dicts of them."
    )


def set_key(config: dict[str, Any], path: str, value: Any) -> None:
    """Sets 'optimizer.learning_rate' of nested dicts, making sections on the way."""
    *sections, leaf = path.split(".")
    if not sections:
        raise InputError(f"a trial sets {path!r}; allowed: 'section.key', or 'name'.")
    for section in sections:
        config = config.setdefault(section, {})
        if not isinstance(config, dict):
            raise InputError(f"a trial sets {path!r}, but {section} is a value, no section.")
    config[leaf] = copy.deepcopy(value)  # later keys may go into it


def find_needs(value: Any) -> Iterator[str]:
    """Names of the trials that a config refers to."""
    if isinstance(value, Mapping):
        for inner in value.values():
            yield from find_needs(inner)
    elif isinstance(value, str) and value.startswith(NEEDS):
        yield value.removeprefix(NEEDS)


def name_of(overrides: Mapping[str, Any]) -> str:
    """'learning_rate=0.001,seed=1', by the shortest ends of the keys that tell them apart."""
    if not overrides:
        return "base"
    values = {key: re.sub(r"[^A-Za-z0-9._+\-]+", "_", str(v)) for key, v in overrides.items()}
    short = short_keys(list(values))
    keys = {key: re.sub(r"[^A-Za-z0-9._+\-]+", "_", one) for key, one in short.items()}
    name = ",".join(f"{keys[key]}={value}" for key, value in values.items())
    is_whole = keys == short and all(_is_plain(value) for value in overrides.values())
    if len(name) <= _MAX_NAME and is_whole:
        return checked_name(name)
    # What was left out of the name still tells trials apart.
    text = json.dumps(overrides, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return checked_name(f"{name[: _MAX_NAME - 9]},{digest}")


def _is_plain(value: Any) -> bool:
    """Does the name show the value whole?"""
    return (
        value is None
        or isinstance(value, bool | int | float)
        or bool(_FOLDER.fullmatch(str(value)))
    )


def short_keys(keys: Sequence[str]) -> dict[str, str]:
    """'train.seed' -> 'seed', with as many parts before it as make it unique."""
    short = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-n:]) for n in range(1, len(parts) + 1)]
        others = [other for other in keys if other != key]
        short[key] = next(
            (e for e in ends if not any(o == e or o.endswith("." + e) for o in others)), key
        )
    return short


def checked_name(name: str) -> str:
    if not _FOLDER.fullmatch(name) or len(name) > _MAX_NAME:
        raise InputError(
            f"a trial is named {name!r}; allowed: up to {_MAX_NAME} letters, digits and . _ , = + -"
        )
    return name


def check_trials(trials: Sequence[Trial]) -> None:
    """Raises `InputError` where two trials have one name, or one needs what is not there."""
    seen: dict[str, Trial] = {}
    for trial in trials:
        if trial.name in seen:
            raise InputError(f"two trials are named {trial.name!r}; allowed: one of each name.")
        if missing := [name for name in trial.needs if name not in seen]:
            raise InputError(
                f"the trial {trial.name!r} needs {missing[0]!r}; allowed: the name of a trial "
                f"before it ({', '.join(seen) or 'there is none'})."
            )
        seen[trial.name] = trial
    if not trials:
        raise InputError("the sweep has no trials; allowed: at least one.")


# Helpers for `sweep()`. Each yields dicts of overrides.


def named(name: str, overrides: Mapping[str, Any]) -> Overrides:
    """The overrides with a name of their own: letters, digits and . _ , = + -"""
    return {"name": checked_name(name.replace(" ", "_")), **overrides}


def grid(axes: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """Every combination; the last axis changes fastest."""
    check_axes(axes)
    for values in itertools.product(*axes.values()):
        yield dict(zip(axes, values, strict=True))


def check_axes(axes: Mapping[str, Sequence[Any]]) -> None:
    for key, values in axes.items():
        if isinstance(values, str):
            raise InputError(
                f"the axis {key!r} is {values!r}; allowed: a sequence of values, ({values!r},)."
            )


def zipped(axes: Mapping[str, Sequence[Any]]) -> Iterator[Overrides]:
    """The first values of all axes, then the second ones, and so on; all of one length."""
    check_axes(axes)
    lengths = {key: len(values) for key, values in axes.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"zipped axes have lengths {lengths}; allowed: equal ones.")
    for values in zip(*axes.values(), strict=True):
        yield dict(zip(axes, values, strict=True))


def crossed(*parts: Sequence[Mapping[str, Any]]) -> Iterator[Overrides]:
    """Every combination of overrides of several lists; their names are joined by commas.

    crossed([named("a", ...), named("b", ...)], list(grid({"train.seed": (0, 1)})))
    """
    for combination in itertools.product(*map(list, parts)):
        names = [part["name"] for part in combination if "name" in part]
        rest = [{k: v for k, v in part.items() if k != "name"} for part in combination]
        merged = {key: value for part in rest for key, value in part.items()}
        unnamed = [
            part for part, whole in zip(rest, combination, strict=True) if "name" not in whole
        ]
        if names:
            ends = [name_of(part) for part in unnamed if part]
            merged = {"name": checked_name(",".join([*names, *ends])), **merged}
        yield merged


@dataclasses.dataclass(frozen=True)
class Uniform:
    low: float
    high: float

    def __post_init__(self):
        if not self.low <= self.high:
            raise InputError(f"Uniform({self.low}, {self.high}); allowed: low <= high.")

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Uniform in the logarithm, between `low` and `high`, both positive."""

    low: float
    high: float

    def __post_init__(self):
        if not 0 < self.low <= self.high:
            raise InputError(f"LogUniform({self.low}, {self.high}); allowed: 0 < low <= high.")

    def draw(self, rng: np.random.Generator) -> float:
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return float(f"{drawn:.4g}")  # as it stands in the trial's name


@dataclasses.dataclass(frozen=True)
class IntUniform:
    """Whole numbers from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self):
        if not self.low <= self.high:
            raise InputError(f"IntUniform({self.low}, {self.high}); allowed: low <= high.")

    def draw(self, rng: np.random.Generator) -> int:
        return int(rng.integers(self.low, self.high, endpoint=True))


@dataclasses.dataclass(frozen=True)
class Choice:
    values: Sequence[Any]

    def __post_init__(self):
        if not len(self.values):
            raise InputError(f"Choice({self.values!r}); allowed: at least one value.")

    def draw(self, rng: np.random.Generator) -> Any:
        return self.values[int(rng.integers(len(self.values)))]


Distribution = Uniform | LogUniform | IntUniform | Choice


def random(axes: Mapping[str, Distribution], *, num_trials: int, seed: int) -> Iterator[Overrides]:
    """So many draws from each axis, independently.

    The i-th trial is a function of the seed and i alone: a larger `num_trials` adds trials, and
    changes none.
    """
    for i in range(num_trials):
        rng = np.random.default_rng((seed, i))
        yield {key: distribution.draw(rng) for key, distribution in axes.items()}
