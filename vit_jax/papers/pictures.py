"""Pictures of a finished sweep, for `PaperTable.pictures`: each draws into a folder.

Of runs that differ in the seed alone the first is drawn. Runs of models without attention, or
without positions that are added to tokens, are left out where these would be drawn.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vit_jax.analysis import attention, attention_figures, embeddings
from vit_jax.models.vit import VisionTransformer
from vit_jax.papers.looking import distance_of, run_at
from vit_jax.papers.measures import similarity_of
from vit_jax.restoring import Restored
from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.reports.labels import stem

ROLLED_OUT = 12  # images


def draw_rollouts(sweep: Path, folder: Path) -> None:
    """ROW.rollout.png: attention rolled out to the first test images (Figure 6)."""
    for name, workdir in shown(sweep, has_attention):
        run = run_at(workdir)
        images = run.images("test", ROLLED_OUT)
        shares = attention.output_rollout(run.vit, run.variables, run.normalise(images))
        target = folder / f"{name}.rollout.png"
        attention_figures.draw_rollout(images, np.asarray(shares), target, title=name)


def draw_attention_distances(sweep: Path, folder: Path) -> None:
    """attention_distance.png: how far each head attends, a panel for each row (Figures 7, 11)."""
    distances, uniform = {}, {}
    for name, workdir in shown(sweep, has_attention):
        distances[name] = distance_of(workdir)
        run = run_at(workdir)
        patch_size = attention.pixels_of_patch(run.vit)
        uniform[name] = attention.patch_distances(run.grid, patch_size).mean()
    if distances:
        target = folder / "attention_distance.png"
        attention_figures.draw_attention_distances(distances, target, uniform=uniform)


def draw_patch_filters(sweep: Path, folder: Path) -> None:
    """ROW.filters.png: principal components of the patch embedding (Figure 7, left)."""
    for name, workdir in shown(sweep, has_filters):
        filters = embeddings.patch_filters(run_at(workdir).variables)
        attention_figures.draw_patch_filters(filters, folder / f"{name}.filters.png", title=name)


def draw_position_similarities(sweep: Path, folder: Path) -> None:
    """ROW.positions.png: similarity of the patches' position embeddings (Figures 7, 10)."""
    for name, workdir in shown(sweep, has_positions):
        target = folder / f"{name}.positions.png"
        attention_figures.draw_position_similarity(similarity_of(workdir), target, title=name)


def shown(sweep: Path, is_shown: Callable[[Restored], bool]) -> Iterator[tuple[str, Path]]:
    """(name without the seed, workdir) of the finished runs to be drawn, by name."""
    first: dict[str, tuple[int, Path]] = {}
    for folder in SweepFolder.at(sweep).known():
        if folder.state() != State.FINISHED:
            continue
        record = folder.record()
        name = stem(record.name)
        if name not in first or record.seed < first[name][0]:
            first[name] = record.seed, record.workdir.path
    for name, (_, workdir) in sorted(first.items()):
        if is_shown(run_at(workdir)):
            yield name, workdir


def has_attention(run: Restored) -> bool:
    return isinstance(run.learner.task.model, VisionTransformer)


def has_filters(run: Restored) -> bool:
    """Is there a patch embedding whose filters are pictures? Behind a stem they read features."""
    model = run.learner.task.model
    embedding = run.variables["params"].get("patch_embedding")
    has_stem = getattr(model, "stem", None) is not None
    return embedding is not None and not has_stem and math.prod(embedding["kernel"].shape[:2]) > 1


def has_positions(run: Restored) -> bool:
    return has_attention(run) and run.vit.position_embedding in embeddings.KINDS
