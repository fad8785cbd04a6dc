"""The .npz files of google-research/big_vision: ViT, DeiT III converted, FlexiViT, SigLIP.

Their layout is ours; only the names differ. The layers stand one by one, or are stacked on a
leading axis as ours are. Files of two towers hold the image tower below 'img/'. The files are at
gs://big_vision; those of the ViT paper itself are for `weights.google`.

Letters: c width; h heads; d channels of a head.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import InputError
from vit_jax.weights.table import Rename, Rule, Table, shapes_of

DEFAULT_SIZE = 224  # pixels, where no positions tell
Arrays = Mapping[str, Any]  # whatever has a shape
Settings = dict[str, Any]

BLOCK = "encoder/blocks"
LAYER = "Transformer/encoderblock_{layer}"
STACKED = "Transformer/encoderblock"
ATTENTION = "MultiHeadDotProductAttention_0"


def _dense(theirs: str, ours: str) -> tuple[Rule, ...]:
    return tuple(Rule(f"{theirs}/{leaf}", f"{ours}/{leaf}") for leaf in ("kernel", "bias"))


def _norm(theirs: str, ours: str) -> tuple[Rule, ...]:
    return tuple(Rule(f"{theirs}/{leaf}", f"{ours}/{leaf}") for leaf in ("scale", "bias"))


def _attention(theirs: str, ours: str) -> tuple[Rule, ...]:
    parts = ("query", "key", "value", "out")
    rules = (_dense(f"{theirs}/{ATTENTION}/{part}", f"{ours}/{part}") for part in parts)
    return tuple(rule for pair in rules for rule in pair)


def _mlp(theirs: str, ours: str) -> tuple[Rule, ...]:
    return (
        *_dense(f"{theirs}/MlpBlock_0/Dense_0", f"{ours}/up"),
        *_dense(f"{theirs}/MlpBlock_0/Dense_1", f"{ours}/down"),
    )


def _table(family: str, layer: str) -> Table:
    return Table(
        family=family,
        rules=(
            *_dense("embedding", "patch_embedding"),
            Rule("pos_embedding", "position_embedding"),
            Rule("cls", "class_token"),
            *_norm(f"{layer}/LayerNorm_0", f"{BLOCK}/attention_norm"),
            *_attention(layer, f"{BLOCK}/attention"),
            *_norm(f"{layer}/LayerNorm_1", f"{BLOCK}/mlp_norm"),
            *_mlp(layer, f"{BLOCK}/mlp"),
            *_norm("Transformer/encoder_norm", "encoder/norm"),
            Rule("MAPHead_0/probe", "pool/probe"),
            *_attention("MAPHead_0", "pool/attention"),
            *_norm("MAPHead_0/LayerNorm_0", "pool/norm"),
            *_mlp("MAPHead_0", "pool/mlp"),
            *_dense("pre_logits", "representation"),
            *_dense("head", "head"),
        ),
        renames=RENAMES,
        ignored=IGNORED,
    )


RENAMES = (
    Rename(r"^params/", "", "where the file holds more than parameters"),
    Rename(r"^img/", "", "the image tower of two"),
    Rename(r"^Transformer/(posembed_input/)?pos_embedding$", "pos_embedding", "before 2022"),
    Rename(
        r"^(probe$|MlpBlock_0/|MultiHeadDotProductAttention_0/|LayerNorm_0/)",
        r"MAPHead_0/\1",
        "no module of its own while ViT-G was made (2021)",
    ),
)
IGNORED = {
    r"txt/.*": "the text tower",
    r"[tb]": "of the contrastive loss",
    r"opt/.*": "the optimizer's state",
}
BIG_VISION = _table("big_vision", LAYER)
BIG_VISION_STACKED = _table("big_vision with stacked layers", STACKED)


def table(arrays: Arrays) -> Table:
    is_stacked = any(name.startswith(f"{STACKED}/") for name in _shapes(arrays))
    return BIG_VISION_STACKED if is_stacked else BIG_VISION


def marks(arrays: Arrays) -> tuple[str, str]:
    """Names that all ViTs of this layout have in their first layer: of attention, of the MLP."""
    first = STACKED if table(arrays) is BIG_VISION_STACKED else LAYER.format(layer=0)
    return f"{first}/{ATTENTION}/query/kernel", f"{first}/MlpBlock_0/Dense_0/kernel"


def is_one(arrays: Arrays) -> bool:
    return {"embedding/kernel", *marks(arrays)} <= _shapes(arrays).keys()


def num_classes(arrays: Arrays) -> int:
    """Outputs of the head in the file; 0 where there is none."""
    kernel = _shapes(arrays).get("head/kernel")
    return kernel[1] if kernel else 0


def settings(arrays: Arrays) -> Settings:
    """Settings of `models.vit.build`, but for num_classes; all of them are read off the arrays.

    Without class token and attention pooling, averaging is assumed (their pool_type 'gap'; what
    their '0' reads, the first token, no array tells).

    Raises:
      InputError: for arrays that are no Vision Transformer's.
    """
    shapes = _shapes(arrays)
    query, hidden = marks(arrays)
    for name in ("embedding/kernel", query, hidden):
        if name not in shapes:
            raise InputError(f"The file lacks {name}, which all of big_vision's ViTs have.")
    *patch, _, width = shapes["embedding/kernel"]
    if len(patch) != 2:
        raise InputError(
            f"embedding/kernel has shape {shapes['embedding/kernel']}; allowed: a convolution's, "
            "(height, width, channels, outputs)."
        )
    representation = shapes.get("pre_logits/kernel")
    return dict(
        width=width,
        depth=shapes[query][0] if query.startswith(f"{STACKED}/") else _depth(shapes),
        mlp_dim=shapes[hidden][-1],
        num_heads=shapes[query][-2],  # [..., c, h, d]
        patch_size=tuple(patch),
        pool=_pool(shapes),
        class_token="cls" in shapes,
        position_embedding="learned" if "pos_embedding" in shapes else "sincos2d",
        prefix_positions=_has_class_position(shapes),
        representation_dim=representation[1] if representation else None,
        activation="gelu_tanh",
        norm_epsilon=1e-6,
    )


def preprocessing(arrays: Arrays) -> Settings:
    """Settings of `Preprocessing`: stretched, bilinearly, from -1 to 1."""
    shapes = _shapes(arrays)
    p, q, channels, _ = shapes["embedding/kernel"]
    count = shapes.get("pos_embedding", (1, (DEFAULT_SIZE // p) ** 2))[1]
    side = math.isqrt(count)  # one class token is fewer than would make the next square
    return dict(image_size=(side * p, side * q), channels=channels)


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return shapes_of(arrays, RENAMES)


def _depth(shapes: Mapping[str, Any]) -> int:
    layers = (re.match(r"Transformer/encoderblock_(\d+)/", name) for name in shapes)
    return 1 + max(int(match[1]) for match in layers if match)


def _pool(shapes: Mapping[str, Any]) -> str:
    if "MAPHead_0/probe" in shapes:
        return "map"
    return "cls" if "cls" in shapes else "gap"


def _has_class_position(shapes: Mapping[str, Any]) -> bool:
    """Before 2022 the class token had one: one more position than a square has patches."""
    if "pos_embedding" not in shapes or "cls" not in shapes:
        return True  # means nothing there
    count = shapes["pos_embedding"][1]
    return math.isqrt(count) ** 2 != count
