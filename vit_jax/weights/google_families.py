"""Google's families of .npz files, as one table: what a file is, and how to write a model."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import numpy as np

from vit_jax.models.mixer import Mixer
from vit_jax.models.resnet import ResNet
from vit_jax.models.vit import VisionTransformer
from vit_jax.weights import google, google_bit, google_mixer
from vit_jax.weights.table import Table, rename

Arrays = Mapping[str, np.ndarray]


class Family(NamedTuple):
    """What is in these files.

    Attributes:
      marks: names that all of its files have, and no other family's.
      settings: arrays -> settings of the model's builder.
      preprocessing: (arrays, grid or None) -> settings of `Preprocessing`.
    """

    model: type[nn.Module]
    marks: tuple[str, ...]
    table: Table
    settings: Callable[[Arrays], dict[str, Any]]
    preprocessing: Callable[[Arrays, tuple[int, int] | None], dict[str, Any]]


def _family(model: type[nn.Module], module: Any) -> Family:
    return Family(model, module.MARKS, module.TABLE, module.settings, module.preprocessing)


# Name in `models.MODELS` -> family.
FAMILIES = {
    "vit": _family(VisionTransformer, google),
    "mixer": _family(Mixer, google_mixer),
    "resnet": _family(ResNet, google_bit),
}


class Found(NamedTuple):
    name: str  # in `FAMILIES`
    family: Family
    arrays: Arrays  # under the names of the family's table


def find(arrays: Arrays) -> Found | None:
    """The family of these arrays; None where they are of none."""
    for name, family in FAMILIES.items():
        renamed = rename(family.table, arrays)
        if all(mark in renamed for mark in family.marks):
            return Found(name, family, renamed)
    return None
