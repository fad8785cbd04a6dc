"""The model and the images that a page shows, and what several sections need to know of them.

Letters: b images that are shown; n examples of the sample; h, w, c pixels and channels; k classes;
r channels of the representation.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from vit_jax.analysis import features
from vit_jax.analysis.figures import shortened
from vit_jax.analysis.heads import images_at_once
from vit_jax.errors import InputError
from vit_jax.explain.examples import Example, Examples
from vit_jax.explain.section import LeftOut
from vit_jax.models.vit import VisionTransformer
from vit_jax.restoring import Restored

FEWEST = 10  # images of which a map or a similarity says something
MOST_LAYERS = 6  # that are shown by default, at even steps
CAPTION = 20  # letters of a line
THUMBNAIL = 32  # pixels of the longer side


class Shown(NamedTuple):
    """The images that are looked at one by one."""

    names: list[str]
    images: UInt8[np.ndarray, "b h w c"]
    labels: list[int | None]


class Sample(NamedTuple):
    """What a model makes of many images.

    Attributes:
      layers: a vector an image behind each layer, of different widths.
      representation: what the head reads.
      labels: positions in the examples' classes; None where there are none.
      thumbnails: the images, made small.
    """

    layers: list[Float[np.ndarray, "n _"]]
    representation: Float[np.ndarray, "n r"]
    labels: Int[np.ndarray, " n"] | None
    thumbnails: list[UInt8[np.ndarray, "_ _ c"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
    """What a page is about.

    Attributes:
      restored: the model.
      name: of the model, e.g. its workdir.
      examples: those that are shown one by one.
      many: those of the maps and similarities; None where there are too few.
      other: a second model to compare with, and its name.
      layers: that are shown, negative ones from the end; None for `MOST_LAYERS` at even steps.
      target: the class that is explained; None for each image's predicted one.
      batch_size: images at a time.
      minibatch: of unbiased CKA; None for the biased estimate of all examples at once.
      seed: of t-SNE, UMAP and the random orders of deletion.
    """

    restored: Restored
    name: str
    examples: Examples
    many: Examples | None = None
    other: Restored | None = None
    other_name: str = ""
    layers: tuple[int, ...] | None = None
    target: int | None = None
    batch_size: int = 32
    minibatch: int | None = None
    seed: int = 0

    @property
    def model(self) -> nn.Module:
        return self.restored.model

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.restored.learner.info.class_names

    @functools.cached_property
    def shown(self) -> Shown:
        found = list(self.examples.read(self.restored.learner.info.preprocessing))
        if not found:
            raise InputError(f"none of {self.examples.origin} can be read; allowed: at least one.")
        names, images, labels = zip(*found, strict=True)
        return Shown(list(names), np.stack(images), list(labels))

    @functools.cached_property
    def probabilities(self) -> Float[np.ndarray, "b k"] | None:
        """Of the shown images; None of a model without a head."""
        if not getattr(self.model, "num_classes", len(self.class_names)):
            return None
        images = enumerate(self.shown.images)
        rows = self.restored.learner.probabilities(self.restored.state, images, self.batch_size)
        return np.stack([found for _, _, found in rows])

    @functools.cached_property
    def targets(self) -> Int[np.ndarray, " b"] | None:
        """The explained class of each shown image; None of a model without a head."""
        if self.probabilities is None:
            return None
        if self.target is None:
            return self.probabilities.argmax(axis=-1)
        return np.full(len(self.shown.images), self.target)

    @functools.cached_property
    def captions(self) -> list[str]:
        """Of the shown images: the name, and below it the class that is explained."""
        names = [shortened(name, CAPTION) for name in self.shown.names]
        if self.targets is None:
            return names
        classes = (shortened(self.class_names[i], CAPTION) for i in self.targets)
        return [f"{name}\n{of}" for name, of in zip(names, classes, strict=True)]

    @functools.cached_property
    def chosen_layers(self) -> tuple[int, ...]:
        every = features.choose_layers(self.model, None)
        if self.layers is not None:
            return _all_different(features.choose_layers(self.model, self.layers))
        steps = np.linspace(0, len(every) - 1, min(MOST_LAYERS, len(every)))
        return tuple(steps.round().astype(int).tolist())

    @functools.cached_property
    def layer_titles(self) -> list[str]:
        names = features.layer_names(self.model)
        return [names[i] for i in self.chosen_layers]

    @property
    def vit(self) -> VisionTransformer:
        if not isinstance(self.model, VisionTransformer):
            raise LeftOut(f"A {type(self.model).__name__} has no attention between tokens.")
        return self.model

    @property
    def maps_at_once(self) -> int:
        """See `heads.images_at_once`; `batch_size` at most."""
        return min(self.batch_size, images_at_once(self.vit, self.restored.grid))

    def over_images(
        self,
        function: Callable[..., Any],
        *,
        size: int | None = None,
        count: int | None = None,
        axis: int = 0,
        each: Mapping[str, np.ndarray | None] = MappingProxyType({}),
        **given: Any,
    ) -> Any:
        """`function(model, variables, images, **each, **given)` of the shown images, in chunks.

        Args:
          size: images at a time.
          count: of images, the first ones; all by default.
          axis: of the images in what is returned, an array or a tree of such.
          each: arguments that have an entry for each image, or are None.
        """
        run, images, size = self.restored, self.shown.images[:count], size or self.batch_size
        parts = []
        for i in range(0, len(images), size):
            own = {name: x if x is None else x[i : i + size] for name, x in each.items()}
            some = run.normalise(images[i : i + size])
            found = function(run.model, run.variables, some, **own, **given)
            parts.append(jax.tree.map(np.asarray, found))
        return jax.tree.map(lambda *arrays: np.concatenate(arrays, axis=axis), *parts)

    @functools.cached_property
    def sample(self) -> Sample:
        """Of this model."""
        return sample_of(self.restored, self._many(), batch_size=self.batch_size)

    @functools.cached_property
    def other_sample(self) -> Sample:
        """Of the second model, of the same images."""
        if self.other is None:
            raise LeftOut("No second model is given; --compare=WORKDIR or WEIGHTS names one.")
        return sample_of(self.other, self._many(), batch_size=self.batch_size)

    def _many(self) -> Examples:
        if self.many is None:
            raise LeftOut("There are too few images; name more, or a data set by --source.")
        return self.many


def _all_different(layers: tuple[int, ...]) -> tuple[int, ...]:
    if twice := [i for i in layers if layers.count(i) > 1]:
        raise InputError(f"layers names layer {twice[0]} more than once; allowed: each once.")
    return layers


def sample_of(restored: Restored, examples: Examples, *, batch_size: int) -> Sample:
    """Reads the examples and pools their features, `batch_size` at a time."""
    model, layers, representations = restored.model, [], []
    labels: list[int | None] = []
    thumbnails = []
    rows = examples.read(restored.learner.info.preprocessing)
    for some in in_chunks(rows, batch_size):
        images = np.stack([example.image for example in some])
        found = features.pooled_layers(model, restored.variables, restored.normalise(images))
        layers.append([np.asarray(x) for x in found.layers])
        representations.append(np.asarray(found.representation))
        labels += [example.label for example in some]
        thumbnails += [small(example.image) for example in some]
    if not layers:
        raise InputError(f"none of {examples.origin} can be read; allowed: at least one.")
    is_labelled = None not in labels
    return Sample(
        [np.concatenate(parts) for parts in zip(*layers, strict=True)],
        np.concatenate(representations),
        np.array(labels) if is_labelled else None,
        thumbnails,
    )


def in_chunks(rows: Iterator[Example], size: int) -> Iterator[Sequence[Example]]:
    while some := list(itertools.islice(rows, size)):
        yield some


def small(image: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "_ _ c"]:
    """Pixels at even steps, up to `THUMBNAIL` along the longer side."""
    step = -(-max(image.shape[:2]) // THUMBNAIL)
    return image[::step, ::step]
