"""Optuna's part of a search: its record, its samplers and its pruners.

https://optuna.readthedocs.io. TPE is Bergstra et al., NeurIPS 2011; CMA-ES Hansen and Ostermeier,
2001; successive halving in its asynchronous form Li et al., arXiv:1810.05934; Hyperband Li et al.,
arXiv:1603.06560. A resource of the last two is one evaluation.
"""

import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from vit_jax.errors import InputError
from vit_jax.sweeps.folder import SweepFolder
from vit_jax.sweeps.status import direction_of

if TYPE_CHECKING:
    import optuna

MakeSampler = Callable[[int], "optuna.samplers.BaseSampler"]
METRIC = "metric"  # among the attributes of a study
REDUCTION = 3  # of each rung's trials one goes on; Hyperband's choice


def require() -> None:
    try:
        import optuna
    except ImportError as error:
        raise InputError(
            "optuna is not installed; allowed: a sweep() instead of --num_trials, or install the "
            "extra: pip install 'vit_jax[search]'."
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def open_study(
    folder: SweepFolder, *, metric: str, storage: str | None, pruner: "optuna.pruners.BasePruner"
) -> "optuna.Study":
    """The sweep's study, which is made where there is none. The folder is this process's own.

    Raises:
      InputError: where the storage cannot be opened, or the study is of another metric.
    """
    import optuna

    try:
        study = optuna.create_study(
            study_name=str(folder.path) if storage else "sweep",
            storage=storage or journal(folder.study),
            direction=direction_of(metric),
            pruner=pruner,
            load_if_exists=True,
        )
    except Exception as error:  # of any database's driver
        if not storage:
            raise InputError(
                f"the study {folder.study} cannot be read ({' '.join(str(error).split())}); "
                "allowed: the file as the search wrote it, or another workdir."
            ) from error
        raise InputError(
            f"--storage is {storage!r}, which cannot be opened ({' '.join(str(error).split())}); "
            "allowed: the URL of a database, e.g. sqlite:///study.db."
        ) from error
    before = study.user_attrs.get(METRIC, metric)
    if before != metric:
        raise InputError(
            f"--metric is {metric!r}, but the search in {folder.path} is for {before!r}; allowed: "
            "the same, or another workdir."
        )
    study.set_user_attr(METRIC, metric)
    return study


def journal(path: Path) -> "optuna.storages.JournalStorage":
    """The study in a file, without what a killed process left: a lock, and half a line."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    for name in (".lock", "*.rename"):
        for left in path.parent.glob(path.name + name):
            left.unlink()
    if path.is_file():
        os.truncate(path, path.read_bytes().rfind(b"\n") + 1)
    return JournalStorage(JournalFileBackend(str(path)))


def in_state(study: "optuna.Study", state: str) -> list["optuna.trial.FrozenTrial"]:
    """Trials that the study has as 'RUNNING', 'WAITING' and so on."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState[state],))


def attached(study: "optuna.Study", number: int) -> "optuna.Trial":
    """A trial that perhaps another process began. Optuna has no public way to come back to one."""
    from optuna.trial import Trial

    return Trial(study, study.get_trials(deepcopy=False)[number]._trial_id)


def reported(study: "optuna.Study", number: int) -> Collection[int]:
    """Steps of which the study has a value."""
    return study.get_trials(deepcopy=False)[number].intermediate_values.keys()


def tell(study: "optuna.Study", number: int, value: float | None, *, is_pruned: bool) -> None:
    """Ends a trial: with what it found, stopped early, or without anything."""
    from optuna.trial import TrialState

    if value is not None:
        study.tell(number, value, skip_if_finished=True)
    else:
        state = TrialState.PRUNED if is_pruned else TrialState.FAIL
        study.tell(number, state=state, skip_if_finished=True)


def make_tpe(seed: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed)


def make_cmaes(seed: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import CmaEsSampler

    try:
        import cmaes
    except ImportError as error:
        raise InputError(
            "--sampler is 'cmaes', but cmaes is not installed; allowed: another sampler, or "
            "install the extra: pip install 'vit_jax[search]'."
        ) from error
    del cmaes  # Optuna would only miss it in the midst of a search
    return CmaEsSampler(seed=seed, warn_independent_sampling=False)


def make_random(seed: int) -> "optuna.samplers.BaseSampler":
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


def no_pruner() -> "optuna.pruners.BasePruner":
    from optuna.pruners import NopPruner

    return NopPruner()


def median() -> "optuna.pruners.BasePruner":
    from optuna.pruners import MedianPruner

    return MedianPruner()


def halving() -> "optuna.pruners.BasePruner":
    from optuna.pruners import SuccessiveHalvingPruner

    return SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)


def hyperband() -> "optuna.pruners.BasePruner":
    from optuna.pruners import HyperbandPruner

    return HyperbandPruner(min_resource=1, reduction_factor=REDUCTION)


SAMPLERS: dict[str, MakeSampler] = {"tpe": make_tpe, "cmaes": make_cmaes, "random": make_random}
PRUNERS: dict[str, Callable[[], "optuna.pruners.BasePruner"]] = {
    "none": no_pruner,
    "median": median,
    "halving": halving,
    "hyperband": hyperband,
}
