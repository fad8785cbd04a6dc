"""What a training begins with: published weights, or another run's (`config.init`), a teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flax import traverse_util
from rich.console import Console

from vit_jax import sections, weights
from vit_jax.core import TrainState, Variables
from vit_jax.errors import InputError
from vit_jax.learner import Learner
from vit_jax.teaching import TeacherSource
from vit_jax.train import agreement, patterns
from vit_jax.workdir import Workdir, check_owner, read_json

# What the source's preprocessing decides where `config.data` does not.
PREPROCESSING = ("image_size", "mean", "std", "interpolation")


@dataclass(frozen=True, kw_only=True)
class Initial:
    """`config.init`.

    Attributes:
      source: what `weights.load` takes: a file, a folder, a run's workdir, hf:owner/name, a URL.
      architecture, part, positions, old_grid: see `weights.load`.
      new_head: begin with a new head even if the stored one has the same classes.
      initialise: regular expressions of paths of ours that are to begin anew.
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
        self, config: Mapping[str, Any], model: Mapping[str, Any], preprocessing: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The config, with what it leaves open of model and preprocessing as in the source.

        Args:
          model: the source's `config.task.model`.
          preprocessing: the source's, as its `to_dict`.
        """
        stored = {name: preprocessing[name] for name in PREPROCESSING if name in preprocessing}
        for name in ("mean", "std"):  # one number fits images of any number of channels
            if len(set(stored.get(name, ()))) == 1:
                stored[name] = tuple(stored[name][:1])
        return {
            **config,
            "task": {**config["task"], "model": {**model, **config["task"].get("model", {})}},
            "data": {**stored, **config["data"]},
        }

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
        variables, report = weights.load_into(
            model,
            found,
            image_shape=info.preprocessing.image_shape,
            new_head=self.new_head or not found.has_head_for(info.class_names),
            positions=self.positions,
            old_grid=self._old_grid,
            initialise=self.initialise,
            ignore=self.ignore,
            seed=learner.settings.seed,
        )
        return within(learner, variables), report


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
            model = card["config"]["task"]["model"]
            config = initial.complete(config, model, card["preprocessing"])
            return config, cls(initial=initial, teacher=teacher)
        found = initial.read()
        model = {"name": found.name, **found.settings}
        del model["num_classes"]  # the data's
        config = initial.complete(config, model, found.preprocessing)
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
            variables, report = self.initial.load_into(learner, found)
        console.print(f"{self.initial.source}: {report}", highlight=False, soft_wrap=True)
        return learner.init_state(variables, task_state)


def begun(config: Mapping[str, Any], workdir: str | Path | None) -> dict[str, Any] | None:
    """The card of the run that has begun in the workdir, which is of this config; else None."""
    folder = None if workdir is None else Workdir.at(workdir)
    if folder is None or not folder.holds_training() or not folder.run.is_file():
        return None
    check_owner(folder, config)
    return read_json(folder.run)


def within(learner: Learner, variables: Variables) -> Variables:
    """A model's variables among the task's, whose other parameters are new."""
    path = learner.task.model_path
    if not path:
        return variables
    whole = learner.init_state().variables()
    params = traverse_util.flatten_dict(whole["params"])
    model = traverse_util.flatten_dict(variables["params"])
    params |= {(*path, *name): leaf for name, leaf in model.items()}
    return {**whole, **variables, "params": traverse_util.unflatten_dict(params)}
