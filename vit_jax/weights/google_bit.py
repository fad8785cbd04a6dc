"""BiT's ResNets of google-research/big_transfer (arXiv:1912.11370): .npz.

Their layout is ours but for the head, a 1x1 convolution there. The files are at gs://bit_models.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.layers.resnet import ROOT_WIDTH
from vit_jax.weights import transforms
from vit_jax.weights.google import count_units, rows_of
from vit_jax.weights.table import Rename, Rule, Table

CONV = "standardized_conv2d/kernel"
ROOT = f"resnet/root_block/{CONV}"
MARKS = (ROOT, "resnet/group_norm/gamma")  # names that every such file has
# Of pretraining, as timm has it for these weights. Files do not tell: fine-tuned ones had 128
# pixels a side for data sets of small images, 480 for others (bit_hyperrule.py there).
IMAGE_SIZE = (224, 224)
_UNIT = ("resnet/block{stage}/unit{unit:02d}", "stage{stage}/unit{unit:02d}")
_PARTS = {"a": "1", "b": "2", "c": "3"}  # theirs -> ours


def _norm(theirs: str, ours: str) -> list[Rule]:
    return [Rule(f"{theirs}/gamma", f"{ours}/scale"), Rule(f"{theirs}/beta", f"{ours}/bias")]


def _unit() -> list[Rule]:
    theirs, ours = _UNIT
    rules = [Rule(f"{theirs}/a/proj/{CONV}", f"{ours}/projection/kernel")]
    for letter, number in _PARTS.items():
        rules.append(Rule(f"{theirs}/{letter}/{CONV}", f"{ours}/conv{number}/kernel"))
        rules += _norm(f"{theirs}/{letter}/group_norm", f"{ours}/norm{number}")
    return rules


TABLE = Table(
    family="google bit",
    rules=(
        Rule(ROOT, "root/kernel"),
        *_unit(),
        *_norm("resnet/group_norm", "norm"),
        Rule("resnet/head/conv2d/kernel", "head/kernel", transforms.squeeze(2)),
        Rule("resnet/head/conv2d/bias", "head/bias"),
    ),
    renames=(
        Rename(
            r"/standardized_conv2d_\d+/",
            "/standardized_conv2d/",
            "in some files TensorFlow numbered the convolutions of one scope",
        ),
    ),
)


def settings(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of `models.resnet.build`: all of them can be read off the arrays."""
    factor = arrays[ROOT].shape[-1] / ROOT_WIDTH
    return dict(
        num_classes=rows_of(arrays, "resnet/head/conv2d/bias"),
        stages=count_units(arrays, rf"resnet/block(\d+)/unit\d+/a/{CONV}"),
        width_factor=int(factor) if factor == int(factor) else factor,
    )


def preprocessing(
    arrays: Mapping[str, np.ndarray], grid: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Of `Preprocessing`: images are stretched, bilinearly, and go from -1 to 1."""
    del grid  # a ResNet has none, it takes images of any size
    return dict(image_size=IMAGE_SIZE, channels=arrays[ROOT].shape[2])
