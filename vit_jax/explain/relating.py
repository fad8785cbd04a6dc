"""Sections: how alike the layers of one model are, and those of two."""

from pathlib import Path

import numpy as np

from vit_jax.analysis import feature_figures, features
from vit_jax.analysis.figures import shortened
from vit_jax.analysis.similarity import FEWEST, linear_cka
from vit_jax.explain.section import Column, Found, LeftOut, Picture, Table
from vit_jax.explain.subject import Sample, Subject


def similarity(subject: Subject, folder: Path) -> Found:
    names, target = features.layer_names(subject.model), "similarity.png"
    found = _cka(subject, subject.sample, subject.sample)
    feature_figures.draw_similarity(found, folder / target, rows=names, columns=names)
    rows = [(f"{names[i]} and {names[i + 1]}", found[i, i + 1]) for i in range(len(names) - 1)]
    rows.append((f"{names[0]} and {names[-1]}", found[0, -1]))
    picture = Picture(target, "CKA of each layer with each.")
    return Found((picture,), Table((Column("layers"), Column("CKA", ".3f")), rows), _note(subject))


def comparison(subject: Subject, folder: Path) -> Found:
    other, target = subject.other_sample, "comparison.png"
    names, theirs = (features.layer_names(m) for m in (subject.model, subject.other.model))
    found = _cka(subject, subject.sample, other)
    feature_figures.draw_similarity(
        found,
        folder / target,
        rows=names,
        columns=theirs,
        row_title=f"layer of {shortened(subject.name, 40)}",
        column_title=f"layer of {shortened(subject.other_name, 40)}",
    )
    nearest = np.nan_to_num(found, nan=-np.inf).argmax(axis=1)
    rows = [(n, theirs[j], row[j]) for n, row, j in zip(names, found, nearest, strict=True)]
    nearest_name = f"most similar layer of {subject.other_name}"
    table = Table((Column("layer"), Column(nearest_name), Column("CKA", ".3f")), rows)
    picture = Picture(target, "CKA of each layer of one model with each of the other.")
    return Found((picture,), table, _note(subject))


def _cka(subject: Subject, first: Sample, second: Sample) -> np.ndarray:
    count, batch_size = len(first.representation), subject.minibatch
    if count < (fewest := batch_size or FEWEST):
        raise LeftOut(f"There are {count} images, fewer than the {fewest} that CKA needs.")
    return linear_cka(first.layers, second.layers, batch_size=batch_size)


def _note(subject: Subject) -> str:
    estimate = "all at once"
    if subject.minibatch:
        estimate = f"unbiased, in minibatches of {subject.minibatch}"
    count = len(subject.sample.representation)
    return f"Patches are averaged; {count:,} images of {subject.many.origin}, {estimate}."
