"""Sections: what the first layer has learned, which no image changes."""

import math
from pathlib import Path

from vit_jax.analysis import attention_figures, embeddings
from vit_jax.errors import InputError
from vit_jax.explain.section import Column, Found, LeftOut, Picture, Table
from vit_jax.explain.subject import Subject

FILTERS = 28  # as many as in arXiv:2010.11929, Figure 7


def filters(subject: Subject, folder: Path) -> Found:
    model, variables = subject.model, subject.restored.variables
    if getattr(model, "stem", None) is not None:
        raise LeftOut("The patches are cut from a stem's feature map, so their filters see none.")
    if "patch_embedding" not in variables["params"]:
        raise LeftOut(f"A {type(model).__name__} has no patch embedding.")
    if math.prod(variables["params"]["patch_embedding"]["kernel"].shape[:2]) == 1:
        raise LeftOut("A patch is one pixel, so filters are no pictures.")
    found, target = embeddings.patch_filters(variables, FILTERS), "filters.png"
    attention_figures.draw_patch_filters(found, folder / target)
    caption = f"The first {len(found)} principal components of the patch filters."
    return Found((Picture(target, caption),))


def positions(subject: Subject, folder: Path) -> Found:
    model, restored, target = subject.vit, subject.restored, "positions.png"
    grid = restored.grid
    added = embeddings.position_embeddings(model, restored.variables, grid)
    similarity = embeddings.position_similarity(added, grid)
    attention_figures.draw_position_similarity(similarity, folder / target)
    picture = Picture(target, "A picture for each patch of how similar its position is to others'.")
    rows = []
    for name, measure in (
        ("near less far", embeddings.neighbour_contrast),
        ("same row or column less others", embeddings.axis_contrast),
    ):
        try:
            rows.append((name, measure(similarity)))
        except InputError:  # of a grid too small to have such patches
            rows.append((name, "not defined on this grid"))
    kind = "learned" if model.position_embedding.startswith("learned") else "fixed"
    note = f"The positions are {kind} ({model.position_embedding})."
    columns = (Column("mean cosine similarity"), Column("difference", "+.3f"))
    return Found((picture,), Table(columns, rows), note)
