"""MLP-Mixers of google-research/vision_transformer (arXiv:2105.01601): .npz.

Their layout is ours; only the names differ, and the layers stand one by one. The files are at
gs://mixer_models/{imagenet1k,imagenet21k}.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.layers import resize
from vit_jax.weights.google import NORM, count_layers, pair, rows_of
from vit_jax.weights.table import Table

LAYER = "MixerBlock_{layer}"
_TOKENS = "MixerBlock_0/token_mixing/Dense_0/kernel"  # (n, hidden)
_CHANNELS = "MixerBlock_0/channel_mixing/Dense_0/kernel"  # (c, hidden)
MARKS = ("stem/kernel", "pre_head_layer_norm/scale", _TOKENS, _CHANNELS)  # every such file has

TABLE = Table(
    family="google mixer",
    rules=(
        *pair("stem", "patch_embedding"),
        *pair(f"{LAYER}/LayerNorm_0", "blocks/token_norm", NORM),
        *pair(f"{LAYER}/token_mixing/Dense_0", "blocks/token_mlp/up"),
        *pair(f"{LAYER}/token_mixing/Dense_1", "blocks/token_mlp/down"),
        *pair(f"{LAYER}/LayerNorm_1", "blocks/channel_norm", NORM),
        *pair(f"{LAYER}/channel_mixing/Dense_0", "blocks/channel_mlp/up"),
        *pair(f"{LAYER}/channel_mixing/Dense_1", "blocks/channel_mlp/down"),
        *pair("pre_head_layer_norm", "norm", NORM),
        *pair("head", "head"),
    ),
)


def settings(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Of `models.mixer.build`: all of them can be read off the arrays."""
    p, q, _, width = arrays["stem/kernel"].shape
    return dict(
        num_classes=rows_of(arrays, "head/bias"),
        patch_size=(p, q),
        width=width,
        depth=count_layers(arrays, r"MixerBlock_(\d+)/"),
        token_mlp_dim=arrays[_TOKENS].shape[1],
        channel_mlp_dim=arrays[_CHANNELS].shape[1],
    )


def preprocessing(
    arrays: Mapping[str, np.ndarray], grid: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Of `Preprocessing`; see `google.preprocessing`."""
    p, q, channels, _ = arrays["stem/kernel"].shape
    rows, columns = grid or resize.grid_of(len(arrays[_TOKENS]))
    return dict(image_size=(rows * p, columns * q), channels=channels)
