"""Sections: attention maps, their rollout, and how far they reach.

Letters: l layers; b images; h heads; r, s rows and columns of patches.
"""

from pathlib import Path

import numpy as np

from vit_jax.analysis import attention, attention_figures
from vit_jax.analysis.attention_rows import output_maps
from vit_jax.explain.section import Column, Found, Picture, Table
from vit_jax.explain.subject import Subject
from vit_jax.models.vit import VisionTransformer

MOST_MAPPED = 4  # images, each of which is a picture of its own
READS = {
    "cls": "the class token",
    "gap": "the patches, averaged, as the head averages them",
    "cls_gap": "the class token and the patches' mean, half each",
    "map": "all tokens, each as much as the head's own attention reads of it",
}


def maps(subject: Subject, folder: Path) -> Found:
    model, shown, pictures = subject.vit, subject.shown, []
    found = subject.over_images(
        output_maps,
        size=subject.maps_at_once,
        count=MOST_MAPPED,
        axis=1,
        layers=subject.chosen_layers,
    )
    for i in range(found.shape[1]):
        target = f"attention_{i}.png"
        attention_figures.draw_attention_maps(
            shown.images[i], found[:, i], folder / target, layers=subject.layer_titles
        )
        pictures.append(Picture(target, f"Attention of every head in {shown.names[i]}."))
    strength = found.sum(axis=(-2, -1)).mean(axis=(1, 2))  # on patches, [l]
    entropy = _entropy(found).mean(axis=(1, 2))
    rows = list(zip(subject.layer_titles, strength, np.exp(entropy), strict=True))
    effective = f"patches in effect, of {found[0, 0, 0].size}"
    columns = (Column("layer"), Column("weight on patches", ".2f"), Column(effective, ".1f"))
    note = f"The maps are those of {reads(model)}."
    if len(shown.images) > found.shape[1]:
        note += f" The first {found.shape[1]} of {len(shown.images)} images are drawn."
    return Found(tuple(pictures), Table(columns, rows), note)


def reads(model: VisionTransformer) -> str:
    """`heads.output_weights` in words."""
    if model.distillation_token and model.num_classes:
        return f"{READS[model.pool]}; and as much again of the distillation token"
    return READS[model.pool]


def _entropy(maps: np.ndarray) -> np.ndarray:
    """Of each map's shares, in nats; its exponential is a number of patches."""
    weights = maps.reshape(*maps.shape[:-2], -1)
    shares = weights / np.maximum(weights.sum(axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    return -(shares * np.log(np.maximum(shares, np.finfo(np.float32).tiny))).sum(axis=-1)


def rollout(subject: Subject, folder: Path) -> Found:
    target, size = "rollout.png", subject.maps_at_once
    shares = subject.over_images(attention.output_rollout, size=size)
    attention_figures.draw_rollout(
        subject.shown.images, shares, folder / target, captions=subject.captions, columns=2
    )
    rows = [
        (name, share.max(), 1 / share.size, share.sum())
        for name, share in zip(subject.shown.names, shares, strict=True)
    ]
    names = ("largest share of a patch", "if all were alike", "all patches")
    columns = (Column("image"), *(Column(name, ".1%") for name in names))
    picture = Picture(target, "Each image, and over it the patches' shares in the output.")
    return Found((picture,), Table(columns, rows))


def distance(subject: Subject, folder: Path) -> Found:
    model, target, images = subject.vit, "distance.png", subject.shown.images
    parts = subject.over_images(_distances_of_each, size=subject.maps_at_once, axis=0)
    found = parts.mean(axis=0)
    patch_size = attention.pixels_of_patch(model)
    uniform = attention.patch_distances(subject.restored.grid, patch_size).mean()
    attention_figures.draw_attention_distances(
        {"": found}, folder / target, uniform={"": float(uniform)}
    )
    rows = [(str(i), heads.mean(), heads.min(), heads.max()) for i, heads in enumerate(found)]
    picture = Picture(target, "A dot for each head of each layer.")
    note = f"Mean over {len(images)} images, in pixels; all patches alike: {uniform:.1f}."
    names = ("mean of heads", "nearest head", "farthest head")
    columns = (Column("layer"), *(Column(name, ".1f") for name in names))
    return Found((picture,), Table(columns, rows), note)


def _distances_of_each(model, variables, images):
    """[b, l, h]: the chunk's mean for each of its images, so that unequal chunks count right."""
    found = np.asarray(attention.attention_distances(model, variables, images))
    return np.repeat(found[None], len(images), axis=0)
