"""Measures of finished runs for the columns of tables: `Column(measure=few_shot(shots=5))`.

Each function here makes a measure, which takes a run's workdir and gives one number. Its name says
its settings, and the same settings give the same measure, so that a table knows what it has.
"""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.analysis import attention, embeddings
from vit_jax.errors import InputError
from vit_jax.evaluation.few_shot import PENALTY, few_shot_accuracy
from vit_jax.papers.looking import IMAGES, distance_of, features_of, run_at

Measure = Callable[[Path], float]


def named(measure: Measure, name: str, **others: Any) -> Measure:
    """Names a measure; of the settings beside the name those that are None are the usual ones."""
    parts = [f"{key}_{value}" for key, value in others.items() if value is not None]
    measure.__name__ = re.sub(r"\W+", "_", "_".join([name, *parts]))
    return measure


@functools.cache
def few_shot(
    *,
    shots: int = 5,
    source: str | None = None,
    data_dir: str | None = None,
    train: str | None = None,
    test: str | None = None,
    num_seeds: int = 3,
    l2: float = PENALTY,
    batch_size: int = 500,
) -> Measure:
    """Accuracy, from 0 to 1, of least squares on frozen representations: `evaluation.few_shot`.

    Args:
      shots: training images of each class.
      source, data_dir: of data of other classes than the run's; by default its own.
      train, test: splits; by default the run's training split, or 'train', and 'test'.
      num_seeds: choices of images, whose accuracies are averaged.
      l2: the penalty.
      batch_size: images represented at a time.
    """

    def measure(workdir: Path) -> float:
        run = run_at(workdir)
        origin = run.origin.changed(source=source, data_dir=data_dir)
        own = run.config["data"].get("train", "train") if source is None else "train"
        pool, scored = (
            features_of(workdir, origin=origin, split=split, batch_size=batch_size)
            for split in (train or own, test or "test")
        )
        accuracies = [
            few_shot_accuracy(*pool, *scored, shots=shots, l2=l2, seed=seed)
            for seed in range(num_seeds)
        ]
        return float(np.mean(accuracies))

    others = dict(source=source, data_dir=data_dir, train=train, test=test)
    others["seeds"] = None if num_seeds == 3 else num_seeds
    others["l2"] = None if l2 == PENALTY else l2
    return named(measure, f"few_shot_{shots}", **others)


@functools.cache
def mean_attention_distance(
    *, layer: int, split: str | None = None, images: int = IMAGES
) -> Measure:
    """Of a layer's heads, in pixels; layers count from 0, or from the end if negative."""

    def measure(workdir: Path) -> float:
        return float(heads_of(workdir, layer, split, images).mean())

    return named(
        measure,
        f"mean_attention_distance_{layer_text(layer)}",
        split=split,
        images=_unusual(images),
    )


@functools.cache
def attention_distance_trend(*, split: str | None = None, images: int = IMAGES) -> Measure:
    """Does attention reach further in deeper layers? 1: in each; see `attention.distance_trend`."""

    def measure(workdir: Path) -> float:
        return attention.distance_trend(distance_of(workdir, split=split or "test", count=images))

    return named(measure, "attention_distance_trend", split=split, images=_unusual(images))


def position_neighbour_contrast(workdir: Path) -> float:
    """See `embeddings.neighbour_contrast`."""
    return embeddings.neighbour_contrast(similarity_of(workdir))


def position_axis_contrast(workdir: Path) -> float:
    """See `embeddings.axis_contrast`."""
    return embeddings.axis_contrast(similarity_of(workdir))


def similarity_of(workdir: Path) -> np.ndarray:
    """[h, w, h, w]: similarity of the positions of each two patches."""
    run = run_at(workdir)
    positions = embeddings.position_embeddings(run.vit, run.variables, run.grid)
    return embeddings.position_similarity(positions, run.grid)


def heads_of(workdir: Path, layer: int, split: str | None, images: int) -> np.ndarray:
    """[h]: mean attention distance of each head of a layer."""
    distance = distance_of(workdir, split=split or "test", count=images)
    depth = len(distance)
    if not -depth <= layer < depth:
        raise InputError(f"layer is {layer}; allowed: {-depth} to {depth - 1}.")
    return distance[layer]


def layer_text(layer: int) -> str:
    return f"layer_{layer}" if layer >= 0 else f"layer_{-layer}_from_end"


def _unusual(images: int) -> int | None:
    return None if images == IMAGES else images
