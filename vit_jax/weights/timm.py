"""The Vision Transformers of timm: names in their files, and what an architecture's name tells.

Facebook's own files of DeiT, DeiT III, DINO, DINOv2 and MAE call their arrays the same, but for
the quirks in `RENAMES`; they are read by the same table, and saved under timm's names. What else
they hold, decoders and projections, is in `pretraining`. Of the models that timm keeps elsewhere,
DINOv3 has a table here, too; EVA-02, BEiT and others have none.

Everything that the shapes of the arrays tell is read off them. What they cannot tell (heads,
activation, epsilon) follows from the architecture's name, e.g. 'vit_base_patch16_224.mae'.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.weights import pretraining, timm_names
from vit_jax.weights import transforms as t
from vit_jax.weights.table import Rename, Rule, Table, shapes_of
from vit_jax.weights.torch_rules import BLOCK, dense, norm

Arrays = Mapping[str, Any]  # whatever has a shape
Settings = dict[str, Any]

LAYER = "blocks.{layer}"


def fused(theirs: str, ours: str, *parts: str) -> tuple[Rule, ...]:
    """Several of query, key and value in one dense layer."""
    return (
        Rule(f"{theirs}.weight", tuple(f"{ours}/{part}/kernel" for part in parts), t.fused_heads),
        Rule(f"{theirs}.bias", tuple(f"{ours}/{part}/bias" for part in parts), t.fused_heads_bias),
    )


def _fold(arrays: t.Arrays, shapes: t.Shapes) -> t.Arrays:
    registers, positions = arrays
    count = registers.shape[1]
    return [registers + positions[:, :count], positions[:, count:]]


def _unfold(arrays: t.Arrays) -> t.Arrays:
    registers, positions = arrays
    return [registers, np.concatenate([np.zeros_like(registers), positions], axis=1)]


# Registers with positions like the patches' -> registers that include them, which is the same
# function. Their sum cannot be taken apart again: saved are registers with positions of zero.
fold_positions = t.Transform(_fold, _unfold)

# A gated MLP: the gate and what it gates in one array, in this order (timm's SwiGLUPacked) ...
PACKED_GATE = tuple(
    Rule(
        f"{LAYER}.mlp.fc1.{theirs}",
        (f"{BLOCK}/mlp/gate/{ours}", f"{BLOCK}/mlp/up/{ours}"),
        t.split(part),
    )
    for theirs, ours, part in (("weight", "kernel", t.linear), ("bias", "bias", t.copy))
)
# ... or in two (timm's SwiGLU).
SPLIT_GATE = (
    *dense(f"{LAYER}.mlp.fc1_g", f"{BLOCK}/mlp/gate"),
    *dense(f"{LAYER}.mlp.fc1_x", f"{BLOCK}/mlp/up"),
)
BLOCKS = (
    *norm(f"{LAYER}.norm1", f"{BLOCK}/attention_norm"),
    *fused(f"{LAYER}.attn.qkv", f"{BLOCK}/attention", "query", "key", "value"),
    *norm(f"{LAYER}.attn.q_norm", f"{BLOCK}/attention/query_norm"),
    *norm(f"{LAYER}.attn.k_norm", f"{BLOCK}/attention/key_norm"),
    *dense(f"{LAYER}.attn.proj", f"{BLOCK}/attention/out", t.heads_out),
    Rule(f"{LAYER}.ls1.gamma", f"{BLOCK}/attention_scale"),
    *norm(f"{LAYER}.norm2", f"{BLOCK}/mlp_norm"),
    *PACKED_GATE,  # holds where our model has a gate
    *dense(f"{LAYER}.mlp.fc1", f"{BLOCK}/mlp/up"),
    *dense(f"{LAYER}.mlp.fc2", f"{BLOCK}/mlp/down"),
    Rule(f"{LAYER}.ls2.gamma", f"{BLOCK}/mlp_scale"),
)
RULES = (
    *dense("patch_embed.proj", "patch_embedding", t.conv),
    Rule("cls_token", "class_token"),
    Rule("dist_token", "distillation_token"),
    Rule("reg_token", "registers"),
    Rule("pos_embed", "position_embedding"),
    *norm("norm_pre", "embedding_norm"),
    *BLOCKS,
    *norm("norm", "encoder/norm"),
    Rule("attn_pool.latent", "pool/probe"),
    *dense("attn_pool.q", "pool/attention/query", t.heads, t.heads_bias),
    *fused("attn_pool.kv", "pool/attention", "key", "value"),
    *dense("attn_pool.proj", "pool/attention/out", t.heads_out),
    *norm("attn_pool.norm", "pool/norm"),
    *dense("attn_pool.mlp.fc1", "pool/mlp/up"),
    *dense("attn_pool.mlp.fc2", "pool/mlp/down"),
    *norm("fc_norm", "pooled_norm"),
    *dense("pre_logits.fc", "representation"),
    *dense("head", "head"),
    *dense("head_dist", "distillation_head"),
)
RENAMES = (
    Rename(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", "DINOv2 training groups its layers"),
    Rename(r"^(blocks\.\d+)\.gamma_(\d)$", r"\1.ls\2.gamma", "DeiT III (2022) has no module there"),
    Rename(r"\.mlp\.w12\.", ".mlp.fc1.", "DINOv2 g (2023)"),
    Rename(r"\.mlp\.w3\.", ".mlp.fc2.", "DINOv2 g (2023)"),
    Rename(r"^register_tokens$", "reg_token", "DINOv2 with registers (2023)"),
    *pretraining.HEAD_RENAMES,
)
# timm's own models have no mask token, and some of its readers refuse one: it is only read.
MASK_TOKEN = Rule("mask_token", "mask_token")
PARTS = {pretraining.DECODER: pretraining.facebook_decoder(BLOCKS), **pretraining.HEADS}
TIMM = Table(family="timm", rules=RULES, renames=RENAMES, parts=PARTS)
FINAL_NORMS = {"norm.weight": "tokens", "fc_norm.weight": "pooled"}
# Where files call or mean things otherwise, rules that go before those.
SPLIT = dataclasses.replace(TIMM, family="timm with split SwiGLU", rules=(*SPLIT_GATE, *RULES))
REGISTER_POSITIONS = dataclasses.replace(
    TIMM,
    family="timm with positions of registers",
    rules=(
        Rule(("reg_token", "pos_embed"), ("registers", "position_embedding"), fold_positions),
        *RULES,
    ),
)


# DINOv3 stands among timm's EVA models: other names of LayerScale, no module of its own for it,
# and biases of query and value in arrays of their own, where there are such.
DINOV3 = Table(
    family="timm DINOv3",
    rules=(
        Rule(f"{LAYER}.gamma_1", f"{BLOCK}/attention_scale"),
        Rule(f"{LAYER}.gamma_2", f"{BLOCK}/mlp_scale"),
        Rule(f"{LAYER}.attn.q_bias", f"{BLOCK}/attention/query/bias", t.heads_bias),
        Rule(f"{LAYER}.attn.v_bias", f"{BLOCK}/attention/value/bias", t.heads_bias),
        *(rule for rule in RULES if rule.theirs != f"{LAYER}.attn.qkv.bias"),
    ),
    parts=PARTS,
)
DINOV3_GATED = dataclasses.replace(DINOV3, rules=(*SPLIT_GATE, *DINOV3.rules))


def table_of(architecture: str, *, is_gated: bool) -> Table:
    """The table under whose names a model is saved."""
    if timm_names.is_rotary(architecture):
        return DINOV3_GATED if is_gated else DINOV3
    return TIMM


def table(arrays: Arrays) -> Table:
    """`TIMM`, or the variant of it that these arrays need."""
    found, ignored, rules, parts = _variant(arrays), {}, (), {}
    if "decoder_embed.weight" in arrays:  # of MAE, whose mask token is the decoder's
        part = PARTS[pretraining.DECODER]
        parts = {pretraining.DECODER: part._replace(names=rf"{part.names}|mask_token")}
    elif "mask_token" in arrays:
        rules, ignored = (MASK_TOKEN,), pretraining.MASK_TOKEN
    return dataclasses.replace(
        found,
        rules=(*found.rules, *rules),
        ignored={**found.ignored, **ignored, **pretraining.unit_magnitudes(arrays)},
        parts={**found.parts, **parts},
    )


def _variant(arrays: Arrays) -> Table:
    is_split = any(".mlp.fc1_g." in name for name in arrays)
    if "blocks.0.gamma_1" in arrays and "pos_embed" not in arrays:
        return DINOV3_GATED if is_split else DINOV3
    if is_split:
        return SPLIT
    shapes = _shapes(arrays)
    return REGISTER_POSITIONS if _registers_have_positions(shapes) else TIMM


def num_classes(arrays: Arrays) -> int:
    """Rows of the head in the file; 0 where there is none."""
    return arrays["head.weight"].shape[0] if "head.weight" in arrays else 0


def settings(architecture: str, arrays: Arrays) -> Settings:
    """Settings of `models.vit.build`, but for num_classes.

    Raises:
      InputError: for a name of no such architecture, or arrays that are no Vision Transformer's.
    """
    name, _, tag = architecture.partition(".")
    num_heads, shapes = timm_names.heads(name), _shapes(arrays)
    lacking = [n for n in ("patch_embed.proj.weight", "blocks.0.mlp.fc2.weight") if n not in shapes]
    if lacking:
        raise InputError(f"{architecture}: the file lacks {lacking[0]}, which all timm ViTs have.")
    width, _, *patch = shapes["patch_embed.proj.weight"]
    has = shapes.__contains__
    if has("attn_pool.latent") and has("reg_token"):
        raise InputError(
            f"{architecture} has registers that its attention pooling does not read; allowed: "
            "attention pooling without registers."
        )
    hidden = shapes["blocks.0.mlp.fc2.weight"][1]
    is_gated = has("blocks.0.mlp.fc1_g.weight") or (
        has("blocks.0.mlp.fc1.weight") and shapes["blocks.0.mlp.fc1.weight"][0] == 2 * hidden
    )
    representation = shapes.get("pre_logits.fc.weight")
    return dict(
        width=width,
        depth=1 + max(int(n.split(".")[1]) for n in shapes if n.startswith("blocks.")),
        mlp_dim=hidden,
        num_heads=num_heads,
        patch_size=tuple(patch),
        pool=_pool(name, shapes),
        class_token=has("cls_token"),
        distillation_token=has("dist_token"),
        num_registers=shapes["reg_token"][1] if has("reg_token") else 0,
        position_embedding=_positions(name, shapes),
        prefix_positions=_has_prefix_positions(name, shapes),
        patch_bias=has("patch_embed.proj.bias"),
        embedding_norm=has("norm_pre.weight"),
        final_norm=next((where for n, where in FINAL_NORMS.items() if has(n)), "none"),
        representation_dim=representation[0] if representation else None,
        head_bias=None if has("head.weight") and not has("head.bias") else 0.0,
        activation="swiglu" if is_gated else timm_names.activation(name, tag),
        qkv_bias=has("blocks.0.attn.qkv.bias") or has("blocks.0.attn.q_bias"),
        key_bias=not has("blocks.0.attn.q_bias"),
        qk_norm=has("blocks.0.attn.q_norm.weight"),
        layer_scale=1e-5 if has("blocks.0.ls1.gamma") else None,  # any value: it is loaded
        norm_epsilon=timm_names.norm_epsilon(name),
    )


def task_settings(arrays: Arrays) -> Settings:
    """Settings of `config.task` that the file's parts beside the model tell."""
    shapes = _shapes(arrays)
    return {**pretraining.decoder_settings(shapes), **pretraining.head_settings(arrays)}


def preprocessing(config: Mapping[str, Any]) -> Settings:
    """Settings of `Preprocessing` from a config.json of timm's on the hub."""
    given = config.get("pretrained_cfg", config)
    lacking = [n for n in ("input_size", "mean", "std", "interpolation") if n not in given]
    if lacking:
        raise InputError(f"config.json: pretrained_cfg lacks {', '.join(lacking)}.")
    channels, *size = given["input_size"]
    fraction = given.get("crop_pct") or 0.875  # timm's default
    modes = {"center": "crop", "squash": "stretch"}
    mode = given.get("crop_mode") or "center"
    resize = sections.choose(modes, mode, where="config.json: crop_mode")
    if resize == "stretch" and fraction != 1:
        raise InputError(
            f"config.json: crop_mode is 'squash' and crop_pct {fraction}; allowed with it: 1."
        )
    return dict(
        image_size=tuple(size),
        channels=channels,
        resize=resize,
        **(dict(crop_fraction=fraction) if resize == "crop" else {}),
        interpolation=given["interpolation"],
        mean=tuple(given["mean"]),
        std=tuple(given["std"]),
    )


def write_preprocessing(preprocessing: Preprocessing) -> Settings:
    """The inverse of `preprocessing`: a config.json's pretrained_cfg."""
    height, width = preprocessing.image_size
    cuts = preprocessing.resize == "crop"
    if not preprocessing.antialias:
        raise InputError("config.json cannot express antialias=False; allowed: True.")
    return dict(
        input_size=[preprocessing.channels, height, width],
        crop_mode="center" if cuts else "squash",
        crop_pct=preprocessing.crop_fraction if cuts else 1.0,
        interpolation=preprocessing.interpolation,
        mean=list(preprocessing.mean) * (preprocessing.channels // len(preprocessing.mean)),
        std=list(preprocessing.std) * (preprocessing.channels // len(preprocessing.std)),
    )


def guess_preprocessing(arrays: Arrays) -> Settings:
    """Of a bare file, which states none: the size that its positions are for, and timm's defaults.

    timm's ViTs are not normalised alike; where it matters, load a folder with its config.json.
    """
    shapes = _shapes(arrays)
    _, channels, p, q = shapes["patch_embed.proj.weight"]
    count = shapes["pos_embed"][1] if "pos_embed" in shapes else 0
    side = math.isqrt(count)  # class and other tokens are fewer than would make the next square
    return dict(image_size=(side * p, side * q), channels=channels, resize="crop")


def _shapes(arrays: Arrays) -> dict[str, tuple[int, ...]]:
    return shapes_of(arrays, RENAMES)


def _positions(name: str, shapes: Mapping[str, Any]) -> str:
    if timm_names.is_rotary(name):
        return "rope"
    return "learned" if "pos_embed" in shapes else "none"


def _pool(name: str, shapes: Mapping[str, Any]) -> str:
    if "attn_pool.latent" in shapes:
        return "map"
    averages = "fc_norm.weight" in shapes or "cls_token" not in shapes
    averages = averages or timm_names.is_averaging(name)
    return "gap" if averages else "cls"


def _has_prefix_positions(name: str, shapes: Mapping[str, Any]) -> bool:
    """By the number of positions where the grid is a square, else by name."""
    prefix = ("cls_token" in shapes) + ("dist_token" in shapes)
    if "pos_embed" not in shapes or not prefix:
        return True
    count = shapes["pos_embed"][1]
    if _is_square(count) != _is_square(count - prefix):
        return not _is_square(count)
    return not timm_names.is_class_unplaced(name)


def _registers_have_positions(shapes: Mapping[str, Any]) -> bool:
    if not {"reg_token", "pos_embed"} <= shapes.keys() or "cls_token" in shapes:
        return False
    count = shapes["pos_embed"][1]
    return not _is_square(count) and _is_square(count - shapes["reg_token"][1])


def _is_square(number: int) -> bool:
    return math.isqrt(number) ** 2 == number
