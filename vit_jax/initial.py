"""What a training begins with: published weights, or another run's (`config.init`), a teacher."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from rich.console import Console

from vit_jax import sections, weights
from vit_jax.core import TrainState, Tree, Variables
from vit_jax.errors import InputError
from vit_jax.learner import Learner
from vit_jax.tasks import TASKS
from vit_jax.teacher_source import TeacherSource
from vit_jax.train import agreement, patterns
from vit_jax.workdir import Workdir, check_owner, read_json

# What the source's preprocessing decides where `config.data` does not.
PREPROCESSING = ("image_size", "mean", "std", "interpolation")

# Settings of the source's model that the data or the method of this run decides.
OF_THE_RUN = ("num_classes", "mask_token")

# What a task moves without gradients -> the part of the network, the first that there is, whose
# outputs it was gathered from.
GATHERED_FROM = {"centre": ("head",), "patch_centre": ("patch_head", "head")}


@dataclass(frozen=True, kw_only=True)
class Initial:
    """`config.init`.

    Attributes:
      source: what `weights.load` takes: a file, a folder, a run's workdir, hf:owner/name, a URL.
      architecture, part, positions, old_grid: see `weights.load`.
      new_head: begin with a new classifier, even if the stored one has the same classes; for mae
        and dino, with a new decoder or new projection heads.
      initialise: regular expressions of paths in the run's parameters that are to begin anew.
      ignore: regular expressions of names in the source that are not to be used.
    """

    source: str
    architecture: str | None = None
    part: str | None = None
    positions: str = "bicubic"
    old_grid: tuple[int, int] | None = None
    new_head: bool = False
    initialise: Sequence[str] = ()
    ignore: Sequence[str] = ()

    def __post_init__(self):
        for name in ("initialise", "ignore"):
            rules = [(pattern, True) for pattern in getattr(self, name)]
            patterns.check(rules, where=f"config.init.{name}")

    def read(self) -> weights.Source:
        return weights.read(
            weights.fetch(self.source),
            architecture=self.architecture,
            part=self.part,
            old_grid=self._old_grid,
        )

    @property
    def _old_grid(self) -> tuple[int, int] | None:
        return None if self.old_grid is None else tuple(self.old_grid)  # JSON has only lists

    def complete(
        self, config: Mapping[str, Any], task: Mapping[str, Any], preprocessing: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The config, with what it leaves open of model and preprocessing as in the source.

        Args:
          task: of the source's `config.task` `model`, and `decoder` and `head` where it has such,
            which serve where the config's task takes them.
          preprocessing: the source's, as its `to_dict`.
        """
        stored = {name: preprocessing[name] for name in PREPROCESSING if name in preprocessing}
        for name in ("mean", "std"):  # one number fits images of any number of channels
            if len(set(stored.get(name, ()))) == 1:
                stored[name] = tuple(stored[name][:1])
        own = config["task"]
        taken = {name: value for name, value in task.items() if takes(own, name)}
        sections_ = {name: {**value, **(own.get(name) or {})} for name, value in taken.items()}
        return {**config, "task": {**own, **sections_}, "data": {**stored, **config["data"]}}

    def load_into(
        self, learner: Learner, found: weights.Source
    ) -> tuple[Variables, weights.Report]:
        """The learner's variables, loaded, and what became of each."""
        info = learner.info
        model = getattr(learner.task, "model", None)
        if model is None:
            raise InputError(
                f"config.init is set, but a {type(learner.task).__name__} has no single model; "
                "allowed: a task with one."
            )
        path = learner.task.model_path
        return weights.load_into(
            model,
            found,
            image_shape=info.preprocessing.image_shape,
            network=weights.Network(path, learner.new_variables) if path else None,
            new_head=self.new_head or not found.has_head_for(info.class_names),
            new_parts=self.new_head,
            positions=self.positions,
            old_grid=self._old_grid,
            initialise=self.initialise,
            ignore=self.ignore,
            seed=learner.settings.seed,
        )


@dataclass(frozen=True, kw_only=True)
class Beginning:
    """What a run begins with, once it is known that it has not begun.

    Attributes:
      initial: `config.init`; None where that is empty.
      found: its source; None if it is to be read when it is needed.
      teacher: `config.task.teacher`; None where there is none.
    """

    initial: Initial | None = None
    found: weights.Source | None = None
    teacher: TeacherSource | None = None

    @classmethod
    def read(
        cls, config: Mapping[str, Any], workdir: str | Path | None = None
    ) -> tuple[dict[str, Any], "Beginning"]:
        """The config, with what its sources complete, and the beginning.

        A run that has begun in the workdir is as it was then, and its sources are not read: they
        may have gone or changed.
        """
        if not config["init"] and "teacher" not in config["task"]:
            return dict(config), cls()
        card = begun(config, workdir)
        config, teacher = TeacherSource.read(config, card)
        if not config["init"]:
            return config, cls(teacher=teacher)
        initial = sections.call(Initial, config["init"], where="config.init")
        if card is not None:
            task = {n: card["config"]["task"].get(n) or {} for n in weights.TASK_SECTIONS}
            config = initial.complete(config, task, card["preprocessing"])
            return config, cls(initial=initial, teacher=teacher)
        found = initial.read()
        model = {"name": found.name, **found.settings}
        for name in OF_THE_RUN:
            model.pop(name, None)
        config = initial.complete(config, {"model": model, **found.task}, found.preprocessing)
        return config, cls(initial=initial, found=found, teacher=teacher)

    def new_state(self, learner: Learner, console: Console) -> TrainState:
        """The state before the first step."""
        task_state = None
        if self.teacher is not None:
            with agreement.together():
                task_state = self.teacher.load(learner, console)
        if self.initial is None:
            return learner.init_state(task_state=task_state)
        with agreement.together():
            found = self.found or self.initial.read()
            begins = (
                found._replace(arrays=found.student) if self._teaches(learner, found) else found
            )
            variables, report = self.initial.load_into(learner, begins)
            console.print(f"{self.initial.source}: {report}", highlight=False, soft_wrap=True)
            if begins is not found:
                task_state = self._moved(learner, found, variables, report, console)
        return learner.init_state(variables, task_state)

    @staticmethod
    def _teaches(learner: Learner, found: weights.Source) -> bool:
        """Have task and source both a teacher that follows the student?"""
        return learner.weights_path().startswith("task_state/") and found.student is not None

    def _moved(
        self,
        learner: Learner,
        found: weights.Source,
        student: Variables,
        report: weights.Report,
        console: Console,
    ) -> Tree:
        """What the task moves without gradients: the source's teacher, and of its centres those
        whose heads are the source's, too."""
        _, name = learner.weights_path().split("/")
        teacher, of_teacher = self.initial.load_into(learner, found)
        line = f"{self.initial.source}, its {name}: {of_teacher}"
        console.print(line, highlight=False, soft_wrap=True)
        state = {**learner.task.init_task_state(student["params"]), name: teacher["params"]}
        for key, array in found.task_state.items():
            is_known = key in state and array.shape == state[key].shape
            if is_known and is_continued(key, student["params"], report):
                state[key] = jnp.asarray(array, state[key].dtype)
        return state


def is_continued(key: str, params: Tree, report: weights.Report) -> bool:
    """Is all of the network loaded that this array of a task's state was gathered from?"""
    parts = GATHERED_FROM.get(key, ())
    part = next((f"{name}/" for name in parts if name in params), "")
    return not any(leaf.name.startswith(part) for leaf in report.of("initialised"))


def begun(config: Mapping[str, Any], workdir: str | Path | None) -> dict[str, Any] | None:
    """The card of the run that has begun in the workdir, which is of this config; else None."""
    folder = None if workdir is None else Workdir.at(workdir)
    if folder is None or not folder.holds_training() or not folder.run.is_file():
        return None
    check_owner(folder, config)
    return read_json(folder.run)


def takes(task: Mapping[str, Any], name: str) -> bool:
    """Has `config.task` a section of that name?"""
    builder = sections.choose(TASKS, task.get("name"), where="config.task.name")
    return name in inspect.signature(builder).parameters
