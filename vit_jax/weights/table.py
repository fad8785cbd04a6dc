"""A family of published weights as a table: which of their arrays make which of ours.

Names are templates. `{layer}` in their names only: ours stacks the layers on a leading axis,
whose length says how many there are. A placeholder in both: a number that both spell out, each
in its own way where it has a format: `{unit:02d}` is 01, 02 and so on.

    Rule("blocks.{layer}.attn.proj.weight", "encoder/blocks/attention/out/kernel", heads_out)
    Rule("block{stage}/unit{unit}/conv1/kernel", "stage{stage}/unit{unit:02d}/conv1/kernel")

A rule holds where our model has its paths, so what a model may or may not have (a class token,
a head) needs no setting. Where several rules make the same path, the first whose arrays are all
there wins when loading, and the first of the table when saving.
"""

import dataclasses
import itertools
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import InputError
from vit_jax.weights import transforms
from vit_jax.weights.transforms import Transform

Names = tuple[str, ...]
_PLACEHOLDER = re.compile(r"\{(\w+)(?::(\w+))?\}")  # {name} or {name:format}


class Rule(NamedTuple):
    """Arrays of theirs and what they are in ours; one template or several on each side."""

    theirs: str | Names
    ours: str | Names
    transform: Transform = transforms.copy

    @property
    def is_stacked(self) -> bool:
        return any("{layer}" in name for name in listed(self.theirs))

    def below(self, path: str) -> "Rule":
        """The same with ours at another place in the tree; '' leaves it where it is."""
        ours = tuple(f"{path}/{name}" if path else name for name in listed(self.ours))
        return self._replace(ours=ours[0] if isinstance(self.ours, str) else ours)


class Rename(NamedTuple):
    """A quirk of some of a family's files: names that match become the table's own."""

    pattern: str  # regular expression, replaced wherever it is found
    replacement: str
    reason: str


class Part(NamedTuple):
    """What a method of pretraining trains beside the model: a decoder, a projection.

    Attributes:
      rules: their paths of ours are those in the parameters of the method.
      names: regular expression of its whole names in their files.
      reason: why it has no place where the model stands alone.
    """

    rules: tuple[Rule, ...]
    names: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Table:
    """A family of weights.

    Attributes:
      family: its name, for messages.
      rules: see above.
      renames: applied to every name in turn, before anything else.
      ignored: regular expression of whole names of theirs -> why ours has no place for them.
      parts: by their names in the parameters of a method.
    """

    family: str
    rules: tuple[Rule, ...]
    renames: tuple[Rename, ...] = ()
    ignored: Mapping[str, str] = field(default_factory=dict)
    parts: Mapping[str, Part] = field(default_factory=dict)

    @property
    def unused(self) -> dict[str, str]:
        """As `ignored`, with the names of the parts."""
        return {**self.ignored, **{part.names: part.reason for part in self.parts.values()}}

    def of_network(self, path: Names, wanted: Collection[str]) -> "Table":
        """The table of a method's parameters: the model at `path`, and the parts `wanted`."""
        rules = [rule.below("/".join(path)) for rule in self.rules]
        rules += [rule for name in wanted for rule in self.parts[name].rules]
        others = {name: part for name, part in self.parts.items() if name not in wanted}
        return dataclasses.replace(self, rules=tuple(rules), parts=others)

    def has(self, arrays: Iterable[str], ours: str) -> bool:
        """Is there an array of these names of theirs for what a rule calls so in ours?"""
        names = {new_name(name, self.renames) for name in arrays}
        return any(names & {*listed(r.theirs)} for r in self.rules if ours in listed(r.ours))

    def parts_in(self, arrays: Iterable[str]) -> tuple[str, ...]:
        """Those of which some array is among these names of theirs."""
        names = [new_name(name, self.renames) for name in arrays]
        return tuple(
            key
            for key, part in self.parts.items()
            if any(re.fullmatch(part.names, name) for name in names)
        )


class Match(NamedTuple):
    """A rule with its placeholders filled in."""

    rule: Rule
    ours: Names
    theirs: tuple[Names, ...]  # for each layer; one where ours is not stacked


def rename(table: Table, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Their arrays under the names that the table's rules use."""
    renamed: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        new = new_name(name, table.renames)
        if new in renamed:
            raise InputError(f"Two arrays of the {table.family!r} weights are named {new!r}.")
        renamed[new] = array
    return renamed


def new_name(name: str, renames: Iterable[Rename]) -> str:
    for pattern, replacement, _ in renames:
        name = re.sub(pattern, replacement, name)
    return name


def shapes_of(arrays: Mapping[str, Any], renames: Iterable[Rename]) -> dict[str, tuple[int, ...]]:
    """Shapes by the names that a table's rules use; for files that may be of another family."""
    return {new_name(name, renames): tuple(array.shape) for name, array in arrays.items()}


def listed(names: str | Names) -> Names:
    return (names,) if isinstance(names, str) else names


def matches(table: Table, targets: Mapping[str, Any]) -> Iterator[Match]:
    """The rules that hold for a model with these paths (path -> what has its shape)."""
    for rule in table.rules:
        for binding in _bindings(listed(rule.ours)[0], targets):
            ours = tuple(_fill(name, binding) for name in listed(rule.ours))
            lacking = [path for path in ours if path not in targets]
            if lacking:
                raise InputError(f"The model has {ours[0]}, but lacks {', '.join(lacking)}.")
            depth = targets[ours[0]].shape[0] if rule.is_stacked else 1
            theirs = tuple(
                tuple(_fill(name, {**binding, "layer": i}) for name in listed(rule.theirs))
                for i in range(depth)
            )
            yield Match(rule, ours, theirs)


def _bindings(template: str, paths: Mapping[str, Any]) -> Iterator[dict[str, int]]:
    """The numbers for a template's placeholders under which there is a path."""
    texts = [re.escape(text) for text in _PLACEHOLDER.split(template)[::3]]
    groups = [f"(?P<{match[1]}>\\d+)" for match in _PLACEHOLDER.finditer(template)]
    pattern = re.compile("".join(map("".join, itertools.zip_longest(texts, groups, fillvalue=""))))
    for path in paths:
        if match := pattern.fullmatch(path):
            binding = {name: int(digits) for name, digits in match.groupdict().items()}
            if _fill(template, binding) == path:  # 1 is no 01
                yield binding


def _fill(template: str, binding: Mapping[str, int]) -> str:
    return _PLACEHOLDER.sub(lambda match: format(binding[match[1]], match[2] or ""), template)
