"""What methods of pretraining publish beside the model: a table a method and layout.

MAE (arXiv:2111.06377): the decoder. Facebook's files mae_visualize_vit_*.pth and
mae_pretrain_vit_*_full.pth hold it, and so does facebook/vit-mae-* of Hugging Face.

DINO (arXiv:2104.14294): the projection heads of student and teacher, in Facebook's
dino_*_full_checkpoint.pth. DINOv2 and DINOv3 publish their backbones alone, which go on with new
heads; what one trains with DINOv2's own code has both of its heads, and they are read.

Paths of ours are those of `models.mae` and `models.dino`. Settings are of `config.task`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vit_jax.weights import transforms as t
from vit_jax.weights.table import Part, Rename, Rule, listed, new_name
from vit_jax.weights.torch_rules import dense, norm

DECODER, HEAD, PATCH_HEAD = "decoder", "head", "patch_head"  # in the parameters of a method
# Of `config.task`: what a source can tell.
TASK_SECTIONS = ("model", DECODER, HEAD)
MASK_TOKEN = {r"(embeddings\.)?mask_token": "iBOT's mask token serves pretraining only"}

Settings = dict[str, Any]


def facebook_decoder(block: Iterable[Rule]) -> Part:
    """Of MAE's own files, whose decoder calls the layers of a block as the encoder does."""
    return Part(
        rules=(
            *dense("decoder_embed", f"{DECODER}/embedding"),
            Rule("mask_token", f"{DECODER}/mask_token"),
            Rule("decoder_pos_embed", f"{DECODER}/position_embedding"),
            *(rule._replace(theirs=_prefixed(rule)).below(DECODER) for rule in block),
            *norm("decoder_norm", f"{DECODER}/encoder/norm"),
            *dense("decoder_pred", f"{DECODER}/prediction"),
        ),
        names=r"decoder_.*",
        reason="MAE's decoder serves pretraining only",
    )


def _prefixed(rule: Rule) -> str | tuple[str, ...]:
    names = tuple(f"decoder_{name}" for name in listed(rule.theirs))
    return names[0] if isinstance(rule.theirs, str) else names


def huggingface_decoder(block: Iterable[Rule]) -> Part:
    """Of ViTMAEForPreTraining; `block` are the rules of `decoder.decoder_layers`."""
    return Part(
        rules=(
            *dense("decoder.decoder_embed", f"{DECODER}/embedding"),
            Rule("decoder.mask_token", f"{DECODER}/mask_token"),
            Rule("decoder.decoder_pos_embed", f"{DECODER}/position_embedding"),
            *(rule.below(DECODER) for rule in block),
            *norm("decoder.decoder_norm", f"{DECODER}/encoder/norm"),
            *dense("decoder.decoder_pred", f"{DECODER}/prediction"),
        ),
        names=r"decoder\..*",
        reason="MAE's decoder serves pretraining only",
    )


def decoder_settings(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Settings]:
    """What shapes tell: all but the heads, of which the published decoders have 16."""
    if "decoder_embed.weight" not in shapes:
        return {}
    layers = (re.match(r"decoder_blocks\.(\d+)\.", name) for name in shapes)
    width = shapes["decoder_embed.weight"][0]
    hidden = shapes["decoder_blocks.0.mlp.fc1.weight"][0]
    depth = 1 + max(int(layer[1]) for layer in layers if layer)
    return {DECODER: dict(width=width, depth=depth, mlp_dim=hidden)}


def huggingface_decoder_settings(config: Mapping[str, Any]) -> dict[str, Settings]:
    theirs = dict(
        width="decoder_hidden_size",
        depth="decoder_num_hidden_layers",
        num_heads="decoder_num_attention_heads",
        mlp_dim="decoder_intermediate_size",
    )
    return {DECODER: {ours: config[name] for ours, name in theirs.items() if name in config}}


def head(ours: str, *theirs: str, layers: int) -> Part:
    """DINO's: dense layers with an activation between them, so that every second has weights."""
    rules: list[Rule] = []
    for name in theirs:
        for i in range(layers):
            rules += dense(f"{name}.mlp.{2 * i}", f"{ours}/layer_{i + 1}")
        rules += dense(f"{name}.mlp", f"{ours}/layer_1")  # where it is the only one
        rules.append(Rule(f"{name}.last_layer.weight_v", f"{ours}/last/kernel", t.linear))
        rules.append(Rule(f"{name}.last_layer.weight_g", f"{ours}/last/magnitude", t.trailing))
    return Part(
        rules=tuple(rules),
        names=rf"({'|'.join(theirs)})\.(mlp|last_layer)\..*",
        reason="a projection of DINO's pretraining",
    )


MOST_LAYERS = 9  # of a head; the papers' have 3
HEADS = {
    HEAD: head(HEAD, "head", "dino_head", layers=MOST_LAYERS),
    PATCH_HEAD: head(PATCH_HEAD, "ibot_head", layers=MOST_LAYERS),
}
# As PyTorch's newer way to normalise weights calls magnitude and direction.
HEAD_RENAMES = (
    Rename(r"last_layer\.parametrizations\.weight\.original0$", "last_layer.weight_g", "PyTorch 2"),
    Rename(r"last_layer\.parametrizations\.weight\.original1$", "last_layer.weight_v", "PyTorch 2"),
)


def unit_magnitudes(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Of heads whose prototypes keep length one: names that say nothing -> why."""
    found = (new_name(name, HEAD_RENAMES) for name, array in arrays.items() if np.all(array == 1))
    names = (name for name in found if name.endswith("last_layer.weight_g"))
    return {re.escape(name): "lengths of one, which they keep" for name in names}


def head_settings(arrays: Mapping[str, np.ndarray]) -> dict[str, Settings]:
    """What the arrays of a head tell of it."""
    arrays = {new_name(name, HEAD_RENAMES): array for name, array in arrays.items()}
    name = next((n for n in ("head", "dino_head") if f"{n}.last_layer.weight_v" in arrays), None)
    if name is None:
        return {}
    layers = [key for key in arrays if re.fullmatch(rf"{name}\.mlp\.(\d+\.)?weight", key)]
    num_prototypes, bottleneck_dim = arrays[f"{name}.last_layer.weight_v"].shape
    magnitudes = f"{name}.last_layer.weight_g"
    found = dict(
        depth=len(layers),
        bottleneck_dim=bottleneck_dim,
        num_prototypes=num_prototypes,
        normalise_last=re.escape(magnitudes) in unit_magnitudes(arrays),
    )
    if len(layers) > 1:
        found["hidden_dim"] = arrays[f"{name}.mlp.0.weight"].shape[0]
    return {HEAD: found}
