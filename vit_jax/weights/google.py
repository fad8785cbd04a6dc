"""ViTs and hybrids of google-research/vision_transformer (arXiv:2010.11929, 2106.10270): .npz.

Their layout is ours; only the names differ, and the layers stand one by one. The files are at
gs://vit_models/{imagenet21k,imagenet21k+imagenet2012,augreg}. Mixers are in `google_mixer`, BiT
in `google_bit`.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.errors import InputError
from vit_jax.layers.resnet import ROOT_WIDTH
from vit_jax.layers.stem import STEMS, STRIDES, ResNetStem
from vit_jax.weights import transforms
from vit_jax.weights.table import Rename, Rule, Table
from vit_jax.weights.transforms import Transform

LAYER = "Transformer/encoderblock_{layer}"
BLOCKS = "encoder/blocks"
_LAYER_NUMBER = r"Transformer/encoderblock_(\d+)/"
_POSITIONS = "Transformer/posembed_input/pos_embedding"
_QUERY = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query/kernel"  # (c, h, d)
_UP = "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"  # (c, hidden)
# Names that every such file has.
MARKS = ("embedding/kernel", "Transformer/encoder_norm/scale", _POSITIONS, _QUERY, _UP)


def pair(
    theirs: str,
    ours: str,
    leaves: tuple[str, str] = ("kernel", "bias"),
    transform: Transform = transforms.copy,
) -> list[Rule]:
    return [Rule(f"{theirs}/{leaf}", f"{ours}/{leaf}", transform) for leaf in leaves]


NORM = ("scale", "bias")
_ATTENTION = f"{LAYER}/MultiHeadDotProductAttention_1"
# Flax's group norm had (1, 1, 1, d) until 0.3.6 (its issue 1721), and so have the files; the
# original code squeezes what it reads, so it takes (d) as well.
_GROUP_NORM = transforms.squeeze_if_there(3)
_UNIT = ("block{stage}/unit{unit}", "stem/stage{stage}/unit{unit:02d}")
_UNIT_NAME = r"block(\d+)/unit\d+/conv1/kernel"
_STEM = (
    Rule("conv_root/kernel", "stem/root/kernel"),
    *pair("gn_root", "stem/root_norm", NORM, _GROUP_NORM),
    Rule(f"{_UNIT[0]}/conv{{part}}/kernel", f"{_UNIT[1]}/conv{{part}}/kernel"),
    *pair(f"{_UNIT[0]}/gn{{part}}", f"{_UNIT[1]}/norm{{part}}", NORM, _GROUP_NORM),
    Rule(f"{_UNIT[0]}/conv_proj/kernel", f"{_UNIT[1]}/projection/kernel"),
    *pair(f"{_UNIT[0]}/gn_proj", f"{_UNIT[1]}/projection_norm", NORM, _GROUP_NORM),
)
_RULES = (
    *_STEM,
    *pair("embedding", "patch_embedding"),
    Rule("cls", "class_token"),
    Rule(_POSITIONS, "position_embedding"),
    *pair(f"{LAYER}/LayerNorm_0", f"{BLOCKS}/attention_norm", NORM),
    *pair(f"{_ATTENTION}/query", f"{BLOCKS}/attention/query"),
    *pair(f"{_ATTENTION}/key", f"{BLOCKS}/attention/key"),
    *pair(f"{_ATTENTION}/value", f"{BLOCKS}/attention/value"),
    *pair(f"{_ATTENTION}/out", f"{BLOCKS}/attention/out"),
    *pair(f"{LAYER}/LayerNorm_2", f"{BLOCKS}/mlp_norm", NORM),
    *pair(f"{LAYER}/MlpBlock_3/Dense_0", f"{BLOCKS}/mlp/up"),
    *pair(f"{LAYER}/MlpBlock_3/Dense_1", f"{BLOCKS}/mlp/down"),
    *pair("Transformer/encoder_norm", "encoder/norm", NORM),
    *pair("pre_logits", "representation"),
    *pair("head", "head"),
)

_COUNTERS = "Flax numbered a block's modules together before Linen (2020), and by kind ever since"
_RENAMES = (
    Rename(r"^(Transformer/encoderblock_\d+)/LayerNorm_1/", r"\1/LayerNorm_2/", _COUNTERS),
    Rename(r"^(Transformer/encoderblock_\d+)/MlpBlock_0/", r"\1/MlpBlock_3/", _COUNTERS),
    Rename(
        r"^(Transformer/encoderblock_\d+)/MultiHeadDotProductAttention_0/",
        r"\1/MultiHeadDotProductAttention_1/",
        _COUNTERS,
    ),
)

TABLE = Table(family="google", rules=_RULES, renames=_RENAMES)


def settings(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of `models.vit.build`: all of them can be read off the arrays, named as in the table."""
    p, q, _, width = arrays["embedding/kernel"].shape
    representation = arrays.get("pre_logits/bias")
    return dict(
        num_classes=rows_of(arrays, "head/bias"),
        stem=_stem(arrays),
        patch_size=(p, q),
        width=width,
        depth=count_layers(arrays, _LAYER_NUMBER),
        mlp_dim=arrays[_UP].shape[1],
        num_heads=arrays[_QUERY].shape[1],
        pool="cls" if "cls" in arrays else "gap",
        representation_dim=None if representation is None else len(representation),
    )


def preprocessing(
    arrays: Mapping[str, np.ndarray], grid: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Of `Preprocessing`: images are stretched, bilinearly, and go from -1 to 1.

    Args:
      grid: rows and columns of the positions; None for a square, the file does not tell.
    """
    stem, first = _stem(arrays), "embedding/kernel"
    p, q, *_ = arrays[first].shape
    stride = STRIDES[stem] if stem else 1
    positions = arrays[_POSITIONS].shape[1]
    side = math.isqrt(positions - ("cls" in arrays))  # what is no square is told with the positions
    rows, columns = grid or (side, side)
    channels = arrays["conv_root/kernel" if stem else first].shape[2]
    return dict(image_size=(rows * stride * p, columns * stride * q), channels=channels)


def rows_of(arrays: Mapping[str, np.ndarray], bias: str) -> int:
    """Classes of the head with this bias; 0 where there is none."""
    return len(arrays[bias]) if bias in arrays else 0


def count_layers(arrays: Mapping[str, np.ndarray], pattern: str) -> int:
    """Different numbers that the pattern's one group finds at the start of the names."""
    return len({match[1] for name in arrays if (match := re.match(pattern, name))})


def count_units(arrays: Mapping[str, np.ndarray], pattern: str) -> tuple[int, ...]:
    """Units of each stage; the pattern matches one whole name a unit, its group is the stage."""
    found = Counter(int(match[1]) for name in arrays if (match := re.fullmatch(pattern, name)))
    return tuple(found[stage] for stage in range(1, len(found) + 1))


def _stem(arrays: Mapping[str, np.ndarray]) -> str | None:
    """The name of the ResNet that makes the feature map; None where patches are of pixels."""
    if "conv_root/kernel" not in arrays:
        return None
    width, stages = arrays["conv_root/kernel"].shape[-1], count_units(arrays, _UNIT_NAME)
    names = {
        _shape_of(stem.keywords): name for name, stem in STEMS.items() if stem.func is ResNetStem
    }
    if (width, stages) not in names:
        raise InputError(
            f"The file holds a ResNet with {width} channels after the root and {stages} units; "
            f"allowed: {', '.join(f'{width} and {stages}' for width, stages in names)}."
        )
    return names[width, stages]


def _shape_of(keywords: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Channels after the root, and units of each stage."""
    return int(ROOT_WIDTH * keywords.get("width_factor", 1)), keywords["stages"]
