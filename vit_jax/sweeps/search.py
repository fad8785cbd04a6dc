"""Trials that are chosen by what the ones before them found: adaptive search by Optuna.

The study, Optuna's record of what was asked and found, is a journal in the sweep's folder, or in
any SQL database. A trial of the study is a trial of the sweep, named by its number. What decides is
the trial's folder: the study is told each end once, now or by the next command that runs the sweep,
and a trial that was under way goes on with the parameters that it has.

A sampler is made anew for each trial from the search's seed and the trial's number, so that what it
asks depends on these and on what is known by then, not on when the sweep was interrupted. With one
worker, without pruning, a search is so a function of its seed.

A pruner sees the i-th evaluation of a trial as its step i, so that its units do not depend on the
length of a training.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.sweeps import attempts, study
from vit_jax.sweeps.folder import FINAL, State, SweepFolder, TrialFolder
from vit_jax.sweeps.running import About, How, Outcome, opened, run
from vit_jax.sweeps.status import check_metric
from vit_jax.sweeps.trials import make_trial
from vit_jax.train.sinks import read_metrics
from vit_jax.workdir import replace_json

if TYPE_CHECKING:
    import optuna
    from rich.console import Console

Space = Callable[["optuna.Trial"], Mapping[str, Any]]
NAME = "name"  # of the trial's folder, among the attributes of Optuna's trial


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What a search is.

    Attributes:
      metric: what is made best, lowest if its name ends in 'loss'.
      num_trials: in all, those of earlier commands included.
      sampler, pruner: names in `SAMPLERS` and `PRUNERS`.
      storage: of SQLAlchemy, e.g. 'sqlite:///study.db'; None for a journal in the folder.
    """

    metric: str
    num_trials: int
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    storage: str | None = None

    def __post_init__(self):
        sections.positive_int(self.num_trials, "--num_trials")


def run_search(
    folder: SweepFolder,
    base: Mapping[str, Any],
    space: Space,
    settings: SearchSettings,
    *,
    how: How,
    about: About,
    console: "Console | None" = None,
) -> Outcome:
    """Searches until so many trials are final.

    Args:
      base: the config that trials change.
      space: a config file's `search_space`: from Optuna's trial to overrides.
    """
    check(base, settings)
    make_pruner = study.PRUNERS[settings.pruner]
    how = dataclasses.replace(how, workers=how.workers or 1)  # all at once would learn nothing
    told = dataclasses.asdict(settings)
    about = dataclasses.replace(about, base=base, metric=settings.metric, search=told)
    with opened(folder, about):
        found = study.open_study(
            folder, metric=settings.metric, storage=settings.storage, pruner=make_pruner()
        )
        search = Search(folder, base, space, settings, found)
        if how.retry_failed:
            search.retry_failed()
        is_stopped = not run(folder, search, how, about, console, configs=[base])
    return Outcome.of(search.folders(), is_stopped=is_stopped)


def check(base: Mapping[str, Any], settings: SearchSettings) -> None:
    """Raises `InputError` for what would come to light only after the first trial."""
    sections.choose(study.SAMPLERS, settings.sampler, where="--sampler")
    sections.choose(study.PRUNERS, settings.pruner, where="--pruner")
    check_metric(base, settings.metric)
    head = settings.metric.rpartition("/")[0]
    if settings.pruner != "none" and not base["evals"][head].get("every_steps"):
        raise InputError(
            f"--pruner is {settings.pruner!r}, but {head!r} is evaluated after the last step only; "
            f"allowed: config.evals.{head}.every_steps above 0, or --pruner=none."
        )
    study.require()


class Search:
    """A `queue.Source` that asks a study."""

    def __init__(
        self,
        folder: SweepFolder,
        base: Mapping[str, Any],
        space: Space,
        settings: SearchSettings,
        opened_study: "optuna.Study",
    ):
        self._folder, self._base, self._space, self._settings = folder, base, space, settings
        self._study = opened_study
        self._numbers: dict[str, int] = {}  # of Optuna's trials, by the names of folders
        self._asks = settings.pruner != "none"
        for trial in study.in_state(opened_study, "RUNNING"):
            self._compose(trial.number)
        for one in self._known():
            self.settled(one)

    # What `queue.Source` wants.

    def unfinished(self) -> list[TrialFolder]:
        return [one for one in self._known() if one.state() not in FINAL]

    def take(self, number: int, *, without: Collection[str]) -> list[TrialFolder]:
        """Those that were interrupted first, then new ones."""
        idle = [one for one in self.unfinished() if one.name not in without]
        found = [one for one in idle if one.state() != State.RUNNING][: max(number, 0)]
        while len(found) < number and self._is_to_ask():
            found.append(self._compose(self._study.ask().number))
        return found

    def settled(self, folder: TrialFolder) -> None:
        """Tells the study of a trial that is final."""
        state = folder.state()
        if state not in FINAL:
            return
        self._report(folder, asks=False)
        value = self._value(folder) if state == State.FINISHED else None
        number = self._numbers.pop(folder.name)
        study.tell(self._study, number, value, is_pruned=state == State.PRUNED)

    def hopeless(self, running: Collection[TrialFolder]) -> list[TrialFolder]:
        ask = self._is_hopeless if self._asks else lambda _: False
        return [one for one in running if one.pruned.is_file() or ask(one)]

    def is_done(self) -> bool:
        return not self._is_to_ask() and not self._known()

    # The study.

    def folders(self) -> list[TrialFolder]:
        """Of the study's trials; the sweep's folder may hold others."""
        trials = self._study.get_trials(deepcopy=False)
        names = {trial.user_attrs[NAME] for trial in trials if NAME in trial.user_attrs}
        return [self._folder.trial(name) for name in sorted(names)]

    def _known(self) -> list[TrialFolder]:
        """Trials of which the study awaits the end."""
        return [self._folder.trial(name) for name in self._numbers]

    def _is_to_ask(self) -> bool:
        """A trial that is tried once more has a second number, and the same name."""
        trials = self._study.get_trials(deepcopy=False)
        names = {trial.user_attrs.get(NAME, trial.number) for trial in trials}
        return len(names) < self._settings.num_trials or bool(
            study.in_state(self._study, "WAITING")
        )

    def _compose(self, number: int) -> TrialFolder:
        """The trial's folder. What a kill left undone is done; parameters that are there stay."""
        make_sampler = study.SAMPLERS[self._settings.sampler]
        self._study.sampler = make_sampler(seed_of(self._settings.seed, number))
        trial = study.attached(self._study, number)
        overrides = dict(self._space(trial))
        if not overrides or "name" in overrides:
            raise InputError(
                f"search_space(trial) returned {overrides}; allowed: a dict of one or more "
                "overrides, without a name."
            )
        name = trial.user_attrs.get(NAME, f"trial-{number:04d}")
        folder = self._folder.add(make_trial(self._base, {**overrides, "name": name}))
        trial.set_user_attr(NAME, name)
        self._numbers[name] = number
        return folder

    def _report(self, folder: TrialFolder, *, asks: bool) -> tuple[int, float] | None:
        """Tells of evaluations that the study has not seen.

        Returns:
          The step and value of the one after which the pruner, if it is asked, gives the trial up.
        """
        trial = study.attached(self._study, self._numbers[folder.name])
        seen = study.reported(self._study, self._numbers[folder.name])
        for i, (step, value) in enumerate(self._evaluations(folder), start=1):
            if i not in seen:
                trial.report(value, i)
                if asks and trial.should_prune():
                    return step, value
        return None

    def _is_hopeless(self, folder: TrialFolder) -> bool:
        """Writes down what the pruner says before the trial is stopped: it says so only once."""
        if (found := self._report(folder, asks=True)) is None:
            return False
        step, value = found
        told = f"{self._settings.metric} {value:.4g} at step {step}"
        why = f"stopped by the {self._settings.pruner} pruner: {told}"
        replace_json(folder.pruned, {"step": step, "value": value, "reason": why})
        return True

    def _evaluations(self, folder: TrialFolder) -> Iterator[tuple[int, float]]:
        """(step, value) of each so far."""
        metric = self._settings.metric
        for row in read_metrics(folder.workdir.metrics):
            if metric in row:
                yield row["step"], row[metric]

    def _value(self, folder: TrialFolder) -> float | None:
        """What a finished trial found; None where that is no number."""
        found = folder.workdir.read_result()["metrics"]
        value = sections.choose(found, self._settings.metric, where="--metric")
        return value if math.isfinite(value) else None

    def retry_failed(self) -> None:
        """Asks for failed trials once more, under the names that they have."""
        trials = self._study.get_trials(deepcopy=False)
        last = {trial.user_attrs.get(NAME): trial for trial in trials}
        for name, trial in last.items():
            if name and self._folder.trial(name).state() == State.FAILED:
                self._study.enqueue_trial(trial.params, user_attrs={NAME: name})
                attempts.retry(self._folder.trial(name))


def seed_of(seed: int, number: int) -> int:
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
