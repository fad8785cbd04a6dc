"""Pictures of a finished sweep, for `PaperTable.pictures`: each draws into a folder.

Of runs that differ in the seed alone the first is drawn. Runs of models without attention, or
without positions that are added to tokens, are left out where these would be drawn.
"""

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from vit_jax.analysis import attention, attention_figures, embeddings
from vit_jax.analysis.figures import DPI, new_figure
from vit_jax.models.vit import VisionTransformer
from vit_jax.papers.looking import distance_of, run_at
from vit_jax.papers.measures import similarity_of
from vit_jax.restoring import Restored
from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.reports.labels import stem
from vit_jax.workdir import Workdir

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


def draw_progress(sweep: Path, folder: Path, *, metric: str) -> None:
    """progress.png: a metric over the steps of each run that measured it as it trained.

    Steps are shares of the run's length, since rows differ in it.
    """
    curves: dict[str, list[tuple[list[float], list[float]]]] = {}
    for one in SweepFolder.at(sweep).known():
        record = one.record()
        rows = [row for row in record.rows if metric in row]
        if one.state() == State.FINISHED and len(rows) > 1:
            steps = [row["step"] / rows[-1]["step"] for row in rows]
            curves.setdefault(stem(record.name), []).append((steps, [r[metric] for r in rows]))
    if not curves:
        return
    figure = new_figure(6, 4)
    axes = figure.subplots()
    for k, (name, runs) in enumerate(sorted(curves.items())):
        for i, (steps, values) in enumerate(runs):
            label = f"{name} ({len(runs)} seeds)" if i == 0 else None
            axes.plot(steps, values, color=f"C{k}", alpha=0.7, label=label)
    axes.set_xlabel("share of the training")
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    figure.savefig(folder / "progress.png", dpi=DPI)


def copy_reconstructions(sweep: Path, folder: Path) -> None:
    """ROW.FILE.png: the last reconstructions that a masked autoencoder drew as it trained."""
    for name, workdir in shown(sweep, lambda run: True):
        pictures = Workdir.at(workdir).evaluations.glob("*/reconstructions*.png")
        for picture in sorted(pictures, key=lambda path: path.stat().st_mtime)[-1:]:
            shutil.copy(picture, folder / f"{name}.reconstructions.png")


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
