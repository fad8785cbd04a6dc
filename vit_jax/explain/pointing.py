"""Sections: which parts of an image the output rests on, and how far such pictures can be trusted.

Letters: b images; r, s rows and columns of cells.
"""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from vit_jax.analysis import attention, relevance_figures
from vit_jax.analysis.faithfulness import faithfulness
from vit_jax.analysis.occlusion import occlusion
from vit_jax.analysis.relevance import METHODS
from vit_jax.explain.section import Column, Found, Picture, Table
from vit_jax.explain.subject import Subject
from vit_jax.models.vit import VisionTransformer

CELLS = 8  # along the shorter side, of a model whose patches say nothing of places
OCCLUSION = "occlusion"


def relevance(subject: Subject, folder: Path) -> Found:
    shown, captions = subject.shown, subject.captions
    classes = {"classes": subject.targets}  # of each image its own
    found = {
        name: subject.over_images(method, size=subject.maps_at_once, each=classes)
        for name, method in METHODS.items()
    }
    relevance_figures.draw_relevances(
        shown.images, found, folder / "relevance.png", captions=captions
    )
    measured = faithfulness(
        subject.model,
        subject.restored.variables,
        subject.restored.normalise(shown.images),
        {**found, OCCLUSION: _occluded(subject)},
        classes=subject.targets,
        score=_score(subject),
        batch_size=subject.batch_size,
    )
    relevance_figures.draw_faithfulness(measured, folder / "faithfulness.png")
    rows = [
        (name, m.deletion, m.deletion_gain, m.insertion, m.insertion_gain)
        for name, m in measured.items()
    ]
    names = ("deletion", "gain by deletion", "insertion", "gain by insertion")
    columns = (Column("method"), *(Column(name, ".3f") for name in names))
    pictures = (
        Picture("relevance.png", "Each image, and over it what each method points at."),
        Picture(
            "faithfulness.png", "The output while patches are taken away, and while they come."
        ),
    )
    note = (
        "Areas of deletion should be small, of insertion large; a gain of 0 is a random order's, "
        "1 is perfect; gains are no published measure. Mean ± standard error over "
        f"{len(shown.images)} images."
    )
    return Found(pictures, Table(columns, rows), note)


def occluded(subject: Subject, folder: Path) -> Found:
    drops, target = _occluded(subject), "occlusion.png"
    relevance_figures.draw_drops(
        subject.shown.images, drops, folder / target, captions=subject.captions
    )
    rows = [
        (name, drop.max(), drop.min(), np.abs(drop).mean())
        for name, drop in zip(subject.shown.names, drops, strict=True)
    ]
    forms = {"largest drop": "+.3f", "least drop": "+.3f", "mean change": ".3f"}
    columns = (Column("image"), *(Column(*form) for form in forms.items()))
    picture = Picture(target, "Each image, and over it the drop where a window hides a place.")
    height, width = _window(subject)
    lost = "the class's probability"
    if subject.targets is None:
        lost = "the features' similarity to those of the whole image"
    note = f"A window of {height}×{width} pixels of the image's mean colour; the drop is of {lost}."
    return Found((picture,), Table(columns, rows), note)


def _occluded(subject: Subject) -> Float[np.ndarray, "b r s"]:
    return subject.over_images(
        occlusion,
        each={"classes": subject.targets},
        window=_window(subject),
        score=_score(subject),
        batch_size=subject.batch_size,
    )


def _window(subject: Subject) -> tuple[int, int]:
    """A patch, or of other models an eighth of the shorter side."""
    if isinstance(subject.model, VisionTransformer):
        return attention.pixels_of_patch(subject.model)
    side = max(1, min(subject.shown.images.shape[1:3]) // CELLS)
    return side, side


def _score(subject: Subject) -> str | None:
    """As the model was trained; the library's own choice for one without a head."""
    if subject.targets is None:
        return None
    is_sigmoid = getattr(subject.restored.learner.task, "loss_name", "softmax") == "sigmoid"
    return "sigmoid" if is_sigmoid else "probability"
