"""Finished runs brought back to look inside; what was found is kept while it may be of use."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from vit_jax import restoring
from vit_jax.analysis import attention
from vit_jax.analysis.heads import images_at_once
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.workdir import existing

IMAGES = 128  # as for arXiv:2010.11929, Figure 7
KEPT = 4  # results: a table measures a run by all of its columns, one after another

Result = TypeVar("Result")


def once_a_run(function: Callable[..., Result]) -> Callable[..., Result]:
    """Keeps the last results of `function(workdir, **settings)`; refuses an unfinished run."""
    kept: dict[tuple[Path, int, str], Result] = {}

    @functools.wraps(function)
    def remembered(workdir: str | Path, **settings: Any) -> Result:
        folder = existing(workdir)
        if not folder.result.is_file():
            raise InputError(
                f"the run in {folder.path} has not finished; allowed: one with a result."
            )
        # A run's result is written last, so it tells a run from another in the same place.
        written = folder.result.stat().st_mtime_ns
        key = folder.path, written, repr(sorted(settings.items()))
        if key not in kept:
            if len(kept) == KEPT:
                del kept[next(iter(kept))]
            kept[key] = function(folder.path, **settings)
        return kept[key]

    return remembered


@once_a_run
def run_at(workdir: Path) -> restoring.Restored:
    return restoring.restore(workdir)


@once_a_run
def features_of(
    workdir: Path, *, origin: pipeline.Origin, split: str, batch_size: int
) -> restoring.Features:
    """See `restoring.represent`."""
    return restoring.represent(run_at(workdir), origin=origin, split=split, batch_size=batch_size)


@once_a_run
def distance_of(
    workdir: Path, *, split: str = "test", count: int = IMAGES
) -> Float[np.ndarray, "l h"]:
    """Mean attention distance in pixels over the first images of a split."""
    run = run_at(workdir)
    at_once = images_at_once(run.vit, run.grid)
    images, sums = run.images(split, count), 0.0
    for first in range(0, len(images), at_once):
        some = images[first : first + at_once]
        found = attention.attention_distances(run.vit, run.variables, run.normalise(some))
        sums += len(some) * np.asarray(found, np.float64)
    return sums / len(images)
