"""The teacher of a distillation, read and loaded: `config.task.teacher`.

Where its weights come from; what it is and sees is in tasks/teacher.py.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from vit_jax import sections, weights
from vit_jax.core import Variables
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.learner import Learner
from vit_jax.tasks.teacher import INTERPOLATIONS, WHERE, TeacherSettings


@dataclass(frozen=True, kw_only=True)
class TeacherSource:
    """Where a teacher's weights are.

    Attributes:
      settings: `config.task.teacher`.
      found: its source; None if it is to be read when it is needed.
    """

    settings: TeacherSettings
    found: weights.Source | None = None

    @classmethod
    def read(
        cls, config: Mapping[str, Any], card: Mapping[str, Any] | None = None
    ) -> tuple[dict[str, Any], "TeacherSource | None"]:
        """The config, with what the teacher's source completes, and the source if there is one.

        Args:
          card: of the run, if it has begun: the teacher is as it was then, and not read.
        """
        section = config["task"].get("teacher")
        if section is None:
            return dict(config), None
        if not isinstance(section, Mapping):
            raise InputError(f"{WHERE} is {section!r}; allowed: a section with a source.")
        settings = sections.call(TeacherSettings, section, where=WHERE)
        found = _read(settings) if card is None else None
        stored = card["config"]["task"]["teacher"] if found is None else describe(found)
        completed = complete(section, stored)
        config = {**config, "task": {**config["task"], "teacher": completed}}
        return config, cls(settings=settings, found=found)

    def load(self, learner: Learner, console: Console) -> dict[str, Variables]:
        """The task's state: {"teacher": its variables}."""
        teacher, settings = learner.task.teacher, self.settings
        variables, report = weights.load_into(
            teacher.model,
            self.found or _read(settings),
            image_shape=teacher.image_shape,
            positions=settings.positions,
            old_grid=settings.old_grid,
        )
        line = f"teacher {settings.source}: {report}"
        console.print(line, highlight=False, soft_wrap=True)
        return {"teacher": variables}


def _read(settings: TeacherSettings) -> weights.Source:
    return weights.read(
        weights.fetch(settings.source),
        architecture=settings.architecture,
        part=settings.part,
        old_grid=settings.old_grid,
    )


def describe(found: weights.Source) -> dict[str, Any]:
    """What a source tells of `config.task.teacher`."""
    preprocessing = Preprocessing.from_dict(found.preprocessing).to_dict()
    is_ours = preprocessing["interpolation"] in INTERPOLATIONS
    return {
        "model": {"name": found.name, **found.settings},
        **{name: preprocessing[name] for name in ("image_size", "channels", "mean", "std")},
        "interpolation": preprocessing["interpolation"] if is_ours else INTERPOLATIONS[0],
        "class_names": list(found.class_names) if found.names_are_stated else None,
    }


def complete(section: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The section, with what it leaves open as stored; a model's single settings likewise."""
    given = {name: value for name, value in section.items() if value is not None}
    return {**stored, **given, "model": {**stored["model"], **given.get("model", {})}}
