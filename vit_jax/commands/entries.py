"""From the flags of `evaluate` to entries as `config.evals` has them."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vit_jax import sections
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.features import OnFeatures
from vit_jax.evaluators import KINDS, TASK


@dataclasses.dataclass(frozen=True)
class Nothing:
    """The keys of the task's own metrics: none."""


class Entry(NamedTuple):
    """What is to be measured.

    Attributes:
      name: prefix of the metrics.
      section: as in `config.evals`.
      where: it stands, for messages.
    """

    name: str
    section: Mapping[str, Any]
    where: str

    @classmethod
    def of_config(cls, name: str, section: Mapping[str, Any]) -> "Entry":
        return cls(name, section, f"config.evals.{name}")


def check_names(
    protocols: Sequence[str], settings: Mapping[str, Any], *, also: Sequence[str] = ()
) -> None:
    """Raises `InputError` for what is no protocol, and for settings of one that is not asked for.

    Args:
      also: further names that would have been allowed.
    """
    for name in protocols:
        sections.choose(KINDS | dict.fromkeys(also), name, where="--protocol")
    for name, given in settings.items():
        if name not in protocols:
            raise InputError(
                f"--{name}.{next(iter(given))} is given without --protocol={name}; "
                f"allowed: settings of {', '.join(protocols)}."
            )
        check_own(name, given)


def check_own(protocol: str, given: Mapping[str, Any]) -> None:
    """Raises `InputError` for keys of every evaluation: they would contradict the entry's name."""
    own = [field.name for field in dataclasses.fields(KINDS[protocol] or Nothing)] + ["batch_size"]
    common = [field.name for field in dataclasses.fields(EvalSettings)]
    for key in given:
        if key in common and key not in own:
            raise InputError(
                f"--{protocol}.{key} is given, but what is measured on is the same for all "
                f"protocols; allowed: --split, --source and the like, and of {protocol} "
                f"{', '.join(own)}."
            )


def with_training_split(
    protocols: Sequence[str], settings: Mapping[str, Mapping[str, Any]], split: str | None
) -> dict[str, Mapping[str, Any]]:
    """The settings, with --training_split as `train` of each protocol that learns and has none.

    So it is a split of the source that is scored. Refused where no protocol learns.
    """
    if split is None:
        return dict(settings)
    learners = [name for name in protocols if learns(name)]
    if not learners:
        allowed = ", ".join(name for name in KINDS if learns(name))
        raise InputError(
            f"--training_split is {split!r}, but {', '.join(protocols) or 'nothing'} learns from "
            f"no training examples; allowed: with {allowed}."
        )
    return dict(settings) | {name: {"train": split, **settings.get(name, {})} for name in learners}


def learns(protocol: str) -> bool:
    return isinstance(KINDS[protocol], type) and issubclass(KINDS[protocol], OnFeatures)


def entries(
    protocols: Sequence[str],
    splits: Sequence[str],
    *,
    settings: Mapping[str, Mapping[str, Any]],
    common: Mapping[str, Any],
) -> list[Entry]:
    """Each protocol on each split: 'SPLIT/PROTOCOL', or 'SPLIT' for the task's own metrics.

    One that brings its data is there once, as 'PROTOCOL'.

    Args:
      settings: of each protocol, by name.
      common: of all.
    """
    alone = [name for name in protocols if getattr(KINDS[name], "brings_data", False)]
    return [
        Entry(
            split if protocol == TASK else f"{split}/{protocol}",
            {"protocol": protocol, "split": split, **common, **settings.get(protocol, {})},
            f"--{protocol}",
        )
        for split in dict.fromkeys(splits)
        for protocol in protocols
        if protocol not in alone
    ] + [
        Entry(name, {"protocol": name, **common, **settings.get(name, {})}, f"--{name}")
        for name in alone
    ]
