"""Hugging Face's vision families: config.json to settings of `models.vit.build`, and back."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.models.vit import VisionTransformer
from vit_jax.weights import huggingface_tables as tables
from vit_jax.weights import pretraining
from vit_jax.weights.table import Table

Config = Mapping[str, Any]
Settings = dict[str, Any]

# Theirs -> ours.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "quick_gelu": "quick_gelu",
}
GATED_ACTIVATIONS = {"silu": "swiglu"}


def common(config: Config) -> Settings:
    """What all these configs call alike."""
    names = GATED_ACTIVATIONS if config.get("use_gated_mlp", False) else ACTIVATIONS
    activation = sections.choose(names, config["hidden_act"], where="config.json: hidden_act")
    patch = config["patch_size"]
    return dict(
        width=config["hidden_size"],
        depth=config["num_hidden_layers"],
        num_heads=config["num_attention_heads"],
        patch_size=patch if isinstance(patch, int) else tuple(patch),
        activation=activation,
        norm_epsilon=config["layer_norm_eps"],
    )


def common_config(model: VisionTransformer) -> Settings:
    """The inverse of `common`."""
    names = {**ACTIVATIONS, **GATED_ACTIVATIONS}
    theirs = next(theirs for theirs, ours in names.items() if ours == model.block.activation)
    p, q = model.patch_size
    return dict(
        hidden_size=model.width,
        num_hidden_layers=model.depth,
        num_attention_heads=model.block.num_heads,
        patch_size=p if p == q else [p, q],
        hidden_act=theirs,
        layer_norm_eps=model.block.norm_epsilon,
    )


def vit_settings(config: Config, names: frozenset[str]) -> Settings:
    has_pooler = any("pooler.dense" in name for name in names)
    width = config.get("pooler_output_size", config["hidden_size"])
    return dict(
        **common(config),
        mlp_dim=config["intermediate_size"],
        qkv_bias=config.get("qkv_bias", True),
        distillation_token=any("distillation_token" in name for name in names),
        representation_dim=width if has_pooler else None,
    )


def vit_config(model: VisionTransformer) -> Settings:
    config = common_config(model) | dict(
        intermediate_size=model.block.mlp_dim, qkv_bias=model.block.qkv_bias
    )
    if model.representation_dim is not None:
        config |= dict(pooler_output_size=model.representation_dim, pooler_act="tanh")
    return config


def dinov2_settings(config: Config, names: frozenset[str]) -> Settings:
    width = config["hidden_size"]
    hidden = int(width * config["mlp_ratio"])
    settings = common(config) | dict(
        mlp_dim=hidden,
        qkv_bias=config.get("qkv_bias", True),
        layer_scale=config["layerscale_value"],
        pool="cls_gap" if "classifier.weight" in names else "cls",
    )
    if config.get("use_swiglu_ffn", False):
        # Two thirds, so that three matrices cost what two did, in whole eights.
        settings |= dict(activation="swiglu", mlp_dim=(int(hidden * 2 / 3) + 7) // 8 * 8)
    return settings


def registers_settings(config: Config, names: frozenset[str]) -> Settings:
    return dict(**dinov2_settings(config, names), num_registers=config["num_register_tokens"])


def dinov2_config(model: VisionTransformer) -> Settings:
    is_gated = model.block.activation == "swiglu"
    ratio = model.block.mlp_dim * (1.5 if is_gated else 1) / model.width
    return common_config(model) | dict(
        hidden_act="gelu",  # of the plain MLP; the gated one's is fixed
        mlp_ratio=int(ratio) if ratio == int(ratio) else ratio,
        qkv_bias=model.block.qkv_bias,
        layerscale_value=model.block.layer_scale,
        use_swiglu_ffn=is_gated,
    )


def registers_config(model: VisionTransformer) -> Settings:
    return dict(**dinov2_config(model), num_register_tokens=model.num_registers)


def dinov3_settings(config: Config, names: frozenset[str]) -> Settings:
    del names
    biases = {part: config[f"{part}_bias"] for part in ("mlp", "proj", "query", "value")}
    if not (biases["mlp"] and biases["proj"]) or biases["query"] != biases["value"]:
        raise InputError(
            f"config.json has {biases} of biases; allowed: True for mlp and proj, and the same for "
            "query and value."
        )
    return dict(
        **common(config),
        mlp_dim=config["intermediate_size"],
        qkv_bias=config["query_bias"],
        key_bias=config["key_bias"],
        layer_scale=config["layerscale_value"],
        num_registers=config["num_register_tokens"],
        position_embedding="rope",
        rope_base=config["rope_theta"],
    )


def dinov3_config(model: VisionTransformer) -> Settings:
    block = model.block
    return dict(
        **common_config(model),
        intermediate_size=block.mlp_dim,
        use_gated_mlp=block.activation == "swiglu",
        query_bias=block.qkv_bias,
        value_bias=block.qkv_bias,
        key_bias=block.key_bias,
        proj_bias=True,
        mlp_bias=True,
        layerscale_value=block.layer_scale,
        num_register_tokens=model.num_registers,
        rope_theta=model.rope_base,
    )


def clip_settings(config: Config, names: frozenset[str]) -> Settings:
    del names
    return dict(
        **common(config),
        mlp_dim=config["intermediate_size"],
        patch_bias=False,
        embedding_norm=True,
        head_bias=None,
    )


def clip_config(model: VisionTransformer) -> Settings:
    return dict(
        **common_config(model),
        intermediate_size=model.block.mlp_dim,
        projection_dim=model.num_classes,
    )


def siglip_settings(config: Config, names: frozenset[str]) -> Settings:
    pool = "gap" if "classifier.weight" in names else "map"
    return dict(**common(config), mlp_dim=config["intermediate_size"], pool=pool)


def siglip_config(model: VisionTransformer) -> Settings:
    return dict(**common_config(model), intermediate_size=model.block.mlp_dim)


@dataclass(frozen=True, kw_only=True)
class Family:
    """A `model_type` of config.json.

    Attributes:
      settings: (config, names in the file) -> settings of `models.vit.build`.
      config: the inverse, of the keys that it reads.
      classes: transformers' classes with and without a head; None where there is no such class.
      head: the name of the weight whose rows are the classes.
      prefix: in front of all names but the heads', where the file has a head.
      task: (config) -> settings of `config.task` of the method that trained it, by section.
    """

    table: Table
    settings: Callable[[Config, frozenset[str]], Settings]
    config: Callable[[VisionTransformer], Settings]
    classes: tuple[str | None, str | None]
    head: str = "classifier.weight"
    prefix: str = ""
    task: Callable[[Config], dict[str, Settings]] = lambda config: {}


FAMILIES = {
    "vit": Family(
        table=tables.VIT,
        settings=vit_settings,
        config=vit_config,
        classes=("ViTForImageClassification", "ViTModel"),
        prefix="vit.",
    ),
    "deit": Family(
        table=tables.DEIT,
        settings=vit_settings,
        config=vit_config,
        classes=("DeiTForImageClassificationWithTeacher", "DeiTModel"),
        head="cls_classifier.weight",
        prefix="deit.",
    ),
    "vit_mae": Family(
        table=tables.VIT,
        settings=vit_settings,
        config=vit_config,
        classes=(None, "ViTMAEModel"),
        prefix="vit.",
        task=pretraining.huggingface_decoder_settings,
    ),
    "dinov2": Family(
        table=tables.DINOV2,
        settings=dinov2_settings,
        config=dinov2_config,
        classes=("Dinov2ForImageClassification", "Dinov2Model"),
        prefix="dinov2.",
    ),
    "dinov2_with_registers": Family(
        table=tables.DINOV2,
        settings=registers_settings,
        config=registers_config,
        classes=("Dinov2WithRegistersForImageClassification", "Dinov2WithRegistersModel"),
        prefix="dinov2_with_registers.",
    ),
    "dinov3_vit": Family(
        table=tables.DINOV3,
        settings=dinov3_settings,
        config=dinov3_config,
        classes=(None, "DINOv3ViTModel"),
    ),
    "clip_vision_model": Family(
        table=tables.CLIP,
        settings=clip_settings,
        config=clip_config,
        classes=("CLIPVisionModelWithProjection", None),
        head="visual_projection.weight",
        prefix="vision_model.",
    ),
    "siglip_vision_model": Family(
        table=tables.SIGLIP,
        settings=siglip_settings,
        config=siglip_config,
        classes=(None, "SiglipVisionModel"),
        prefix="vision_model.",
    ),
    # NaFlex; the other checkpoints of SigLIP 2 are of type 'siglip'. Read here on one grid, its
    # positions resized by the law 'bilinear'.
    "siglip2_vision_model": Family(
        table=tables.SIGLIP2,
        settings=siglip_settings,
        config=siglip_config,
        classes=(None, None),
        prefix="vision_model.",
    ),
}
# What files on the hub with both towers leave out of `vision_config`, as it is the default.
TWO_TOWERS = {
    "clip": dict(patch_size=32, hidden_act="quick_gelu", layer_norm_eps=1e-5),
    "siglip": dict(patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6),
    "siglip2": dict(
        patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, num_patches=256
    ),
}
BASE = dict(
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    image_size=224,
)


def find_family(config: Config) -> tuple[Family, Config]:
    """The family of a config.json, and the part of it that is the vision tower's."""
    kind = config.get("model_type")
    if kind in TWO_TOWERS:
        vision = {**BASE, **TWO_TOWERS[kind], **config.get("vision_config", {})}
        kind, config = f"{kind}_vision_model", vision
    family = sections.choose(FAMILIES, kind, where="config.json: model_type")
    if config.get("use_swiglu_ffn", False):
        family = dataclasses.replace(family, table=tables.DINOV2_GATED)
    return family, config


def num_classes(family: Family, arrays: Mapping[str, np.ndarray]) -> int:
    """Rows of the head in the file; 0 where there is none."""
    return arrays[family.head].shape[0] if family.head in arrays else 0
