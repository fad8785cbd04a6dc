"""Sections: features as colours, norms of tokens, and maps of many images."""

from pathlib import Path

import numpy as np

from vit_jax.analysis import feature_figures, features, token_figures, token_norms
from vit_jax.explain.section import Column, Found, LeftOut, Picture, Table
from vit_jax.explain.subject import FEWEST, Subject

THUMBNAILS = 40  # on it


def colours(subject: Subject, folder: Path) -> Found:
    target, names = "colours.png", subject.layer_titles
    tokens = subject.over_images(features.layer_tokens, layers=subject.chosen_layers)
    found, rows = {}, []
    for name, layer in zip(names, tokens, strict=True):
        patches = layer.patches.astype(np.float64)
        found[name] = features.feature_colours(patches)
        flat = patches.reshape(-1, patches.shape[-1])
        shares = features.principal_components(flat, min(3, *flat.shape)).explained
        rows.append((name, *shares))
    feature_figures.draw_feature_colours(subject.shown.images, found, folder / target)
    picture = Picture(target, "Images, and beside each its features behind some layers as colours.")
    names = ("red", "green", "blue")[: len(rows[0]) - 1]
    columns = (Column("layer"), *(Column(name, ".0%") for name in names))
    return Found((picture,), Table(columns, rows), "Numbers are shares of the features' variance.")


def norms(subject: Subject, folder: Path) -> Found:
    prefix, target = subject.vit.num_prefix, "norms.png"
    found = subject.over_images(token_norms.token_norms, axis=1)
    patches, last = found[..., prefix:], found[-1, :, prefix:]
    outliers = token_norms.find_outliers(last)
    token_figures.draw_token_norms(patches, folder / target, cut=outliers.cut)
    rows = [("patches", np.median(last), last.max(), outliers.share)]
    if prefix:
        front = found[-1, :, :prefix]
        rows.append(("tokens in front", np.median(front), front.max(), None))
    outlying = f"above {outliers.cut:.3g}, far from the others"
    forms = {"median norm": ".3g", "largest norm": ".3g", outlying: ".1%"}
    columns = (Column("tokens"), *(Column(*form) for form in forms.items()))
    picture = Picture(target, "A histogram of the patches' norms, and norms by layer.")
    note = f"Behind the last layer, of {last.size:,} patches of all images shown."
    return Found((picture,), Table(columns, rows), note)


def tsne(subject: Subject, folder: Path) -> Found:
    return _map(subject, folder, "tsne")


def umap(subject: Subject, folder: Path) -> Found:
    features.check_umap()  # before the features are made
    return _map(subject, folder, "umap")


def _map(subject: Subject, folder: Path, method: str) -> Found:
    sample, target = subject.sample, f"{method}.png"
    if (count := len(sample.representation)) < FEWEST:
        raise LeftOut(f"There are {count} images, and a map of fewer than {FEWEST} says nothing.")
    places = features.project(sample.representation, method, seed=subject.seed)
    feature_figures.draw_projection(
        places,
        folder / target,
        labels=sample.labels,
        class_names=subject.many.class_names,
        thumbnails=[
            (i, sample.thumbnails[i]) for i in feature_figures.spread_out(places, THUMBNAILS)
        ],
    )
    coloured = "" if sample.labels is None else ", coloured by their labels"
    note = f"{count:,} images of {subject.many.origin}{coloured}; seed {subject.seed}."
    return Found(
        (Picture(target, "A dot for each image, and some images at their places."),), None, note
    )
