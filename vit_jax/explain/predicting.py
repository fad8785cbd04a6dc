"""Section: what the model takes the images for."""

from pathlib import Path

from vit_jax.analysis import feature_figures
from vit_jax.evaluation.prediction import top_classes
from vit_jax.explain.section import Column, Found, LeftOut, Picture, Table
from vit_jax.explain.subject import Subject

TOP = 3  # classes of each image


def predictions(subject: Subject, folder: Path) -> Found:
    if subject.probabilities is None:
        raise LeftOut("The model has no head, so it names no classes.")
    shown, known = subject.shown, subject.examples.class_names
    labels = ["" if label is None else known[label] for label in shown.labels]
    found = [
        top_classes(Path(name), row, subject.class_names, TOP)
        for name, row in zip(shown.names, subject.probabilities, strict=True)
    ]
    bars = [dict(zip(p.classes, p.probabilities, strict=True)) for p in found]
    captions = [f"{n} {label}".rstrip() for n, label in zip(shown.names, labels, strict=True)]
    target = "predictions.png"
    feature_figures.draw_probabilities(shown.images, bars, folder / target, captions=captions)
    rows = list(zip(shown.names, (label or None for label in labels), bars, strict=True))
    table = Table((Column("image"), Column("label"), Column("prediction", ".1%")), rows)
    return Found((Picture(target, "Images and the most probable classes of each."),), table)
