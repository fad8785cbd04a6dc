"""The Vision Transformer's published sizes, and the settings that its descendants chose."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.layers.activations import ACTIVATIONS
from vit_jax.layers.block import BlockSettings
from vit_jax.layers.head import HEAD_NORMS
from vit_jax.layers.position_tables import INITIAL_POSITIONS
from vit_jax.layers.products import PRODUCTS
from vit_jax.layers.stem import STEMS
from vit_jax.models.vit_network import VisionTransformer, ViTOutput

__all__ = ["POOLS", "POSITIONS", "SIZES", "ViTOutput", "VisionTransformer", "build"]


class Size(NamedTuple):
    width: int
    depth: int
    mlp_dim: int
    num_heads: int


SIZES = {
    "Ti": Size(192, 12, 768, 3),  # arXiv:2012.12877, Table 1 (DeiT-Ti)
    "S": Size(384, 12, 1536, 6),  # arXiv:2012.12877, Table 1 (DeiT-S)
    "B": Size(768, 12, 3072, 12),  # arXiv:2010.11929, Table 1
    "L": Size(1024, 24, 4096, 16),  # arXiv:2010.11929, Table 1
    "So400m": Size(1152, 27, 4304, 16),  # arXiv:2305.13035, Table 2 (SoViT-400m)
    "H": Size(1280, 32, 5120, 16),  # arXiv:2010.11929, Table 1
    "g": Size(1408, 40, 6144, 16),  # arXiv:2106.04560, Table 2
    "G": Size(1664, 48, 8192, 16),  # arXiv:2106.04560, Table 2
}
POOLS = ("cls", "gap", "map", "cls_gap")
POSITIONS = ("learned", "learned2d", "relative", "sincos1d", "sincos2d", "rope", "none")
RESIZED = ("learned", "learned2d")  # positions that are kept for one grid and resized to others
FINAL_NORMS = ("tokens", "pooled", "none")


def build(
    *,
    num_classes: int,
    patch_size: int | tuple[int, int],
    size: str | None = None,
    width: int | None = None,
    depth: int | None = None,
    mlp_dim: int | None = None,
    num_heads: int | None = None,
    stem: str | None = None,
    kernel_size: int | tuple[int, int] | None = None,
    position_grid: tuple[int, int] | None = None,
    pool: str = "cls",
    class_token: bool | None = None,
    distillation_token: bool = False,
    num_registers: int = 0,
    mask_token: bool = False,
    position_embedding: str = "learned",
    position_initial: str = "normal",
    prefix_positions: bool = True,
    rope_base: float = 100.0,
    patch_bias: bool = True,
    patch_norms: bool = False,
    embedding_norm: bool = False,
    final_norm: str = "tokens",
    representation_dim: int | None = None,
    head_bias: float | None = 0.0,
    head_std: float = 0.0,
    head_norm: str = "none",
    activation: str = "gelu_tanh",
    qkv_bias: bool = True,
    key_bias: bool = True,
    qk_norm: bool = False,
    layer_scale: float | None = None,
    parallel: bool = False,
    norm_epsilon: float = 1e-6,
    dropout_rate: float = 0.0,
    drop_path_rate: float = 0.0,
    unroll: int | None = None,
    remat: str = "none",
    dtype: str = "float32",
    matmul: str = "default",
    attention_implementation: str = "auto",
) -> VisionTransformer:
    """A ViT; the defaults are those of the paper.

    Args:
      num_classes: width of the head; 0 for a model without one.
      patch_size: pixels, one number or (height, width); with a stem, places of its feature map.
      size: a name of `SIZES`; `width`, `depth`, `mlp_dim`, `num_heads` replace single entries
        of it, and stand alone where no size is named.
      stem: a name of `layers.stem.STEMS`, convolutions that the patches are cut from, or None.
      kernel_size: of the patch embedding's parameter, one number or (height, width), if not the
        patch size; with `position_grid` the same parameters serve any patch size, as FlexiViT's
        (arXiv:2212.08013).
      position_grid: (rows, columns) for which learned positions are kept, if not the image's;
        they are resized (bicubic, antialiased) at each call, so images may be of any size.
      pool: 'cls' (class token), 'gap' (average of the patches' tokens), 'map' (attention pooling
        of all tokens) or 'cls_gap' (class token and average side by side).
      class_token: is there one? By default where `pool` reads it.
      distillation_token: a second one with a head of its own (DeiT, arXiv:2012.12877).
      num_registers: further learned tokens, without positions (arXiv:2309.16588).
      mask_token: one that stands for patches that a method of pretraining hides (iBOT).
      position_embedding: 'learned', one vector a token; 'learned2d', one a row and one a column;
        'relative', one an offset, in the scores of attention (both `layers.position_tables`);
        'sincos1d', 'sincos2d'; 'rope' (DINOv3: queries and keys are rotated instead); or 'none'.
      position_initial: what 'learned' positions begin with: 'normal', or MAE's 'sincos2d'.
      prefix_positions: do class and distillation token have 'learned' positions, too?
      rope_base: see `layers.position.rotation_2d`.
      patch_bias: of the patch embedding.
      patch_norms: layer norms before and after the patch embedding (arXiv:2302.01327).
      embedding_norm: a layer norm before the first block (CLIP, arXiv:2103.00020).
      final_norm: where the last layer norm is: on the 'tokens', on what is 'pooled' (MAE's and
        BEiT's fine-tuning), or 'none'.
      representation_dim: width of a dense tanh layer before the head ("pre-logits").
      head_bias: its initial value; around -log(num_classes) suits the sigmoid loss; None for a
        head without bias.
      head_std: of its kernel's initial values; it begins with zeros otherwise.
      head_norm: 'batch' for a batch norm without parameters before it, as MAE's probe has; its
        statistics are those of whole (micro)batches, see `layers.head`.
      activation, qkv_bias, key_bias, qk_norm, layer_scale, parallel, norm_epsilon: see
        `layers.block.BlockSettings`.
      dropout_rate: after the positions and, in the encoder, after each dense layer but query, key
        and value.
      drop_path_rate: stochastic depth of the last layer.
      unroll: layers per pass of the scan over depth; by default all of them (fastest step), or
        one where `remat` is to save memory: XLA undoes it within a pass.
      remat: 'none', 'dots', 'attention', 'full' or 'offload': what the backward pass computes again
        to save memory, see `layers.remat`.
      dtype: of the computation, 'float32' or 'bfloat16'; parameters are always float32.
      matmul: number formats of the blocks' products of activations and weights: 'default' as
        `dtype` says, 'bfloat16' or 'fp8', see `layers.products`.
      attention_implementation: see `layers.attention.attend`.
    """
    where = "config.task.model"
    overrides = dict(width=width, depth=depth, mlp_dim=mlp_dim, num_heads=num_heads)
    shape = choose_size(size, {k: v for k, v in overrides.items() if v is not None})
    patch = sections.pair(patch_size)
    for name, value, allowed in (
        ("pool", pool, POOLS),
        ("position_embedding", position_embedding, POSITIONS),
        ("position_initial", position_initial, INITIAL_POSITIONS),
        ("final_norm", final_norm, FINAL_NORMS),
        ("head_norm", head_norm, HEAD_NORMS),
        ("activation", activation, ACTIVATIONS),
        ("dtype", dtype, ("float32", "bfloat16")),
        ("matmul", matmul, PRODUCTS),
    ):
        sections.choose(dict.fromkeys(allowed), value, where=f"{where}.{name}")
    counts = dict(shape._asdict(), representation_dim=representation_dim, unroll=unroll)
    rates = dict(dropout_rate=dropout_rate, drop_path_rate=drop_path_rate)
    if stem is not None:
        sections.choose(STEMS, stem, where=f"{where}.stem")
    sections.check_ranges(
        where,
        patch_size=(min(patch), 1, math.inf),
        kernel_size=(min(sections.pair(1 if kernel_size is None else kernel_size)), 1, math.inf),
        position_grid=(min(position_grid or (1,)), 1, math.inf),
        head_std=(head_std, 0, math.inf),
        num_registers=(num_registers, 0, math.inf),
        **{name: (count, 1, math.inf) for name, count in counts.items()},
        **{name: (rate, 0, 1) for name, rate in rates.items()},
    )
    if position_grid is not None and position_embedding not in RESIZED:
        raise InputError(
            f"{where}.position_grid is {position_grid}, but position_embedding "
            f"{position_embedding!r} keeps nothing for a grid; allowed: None, or "
            f"position_embedding {' or '.join(map(repr, RESIZED))}."
        )
    reads_class = pool in ("cls", "cls_gap") or distillation_token
    if reads_class and class_token is False:
        raise InputError(
            f"{where}.class_token is False, but pool {pool!r} and distillation_token="
            f"{distillation_token} need one; allowed: True, or pool 'gap' or 'map' without "
            "distillation."
        )
    return VisionTransformer(
        num_classes=num_classes,
        patch_size=patch,
        width=shape.width,
        depth=shape.depth,
        stem=stem,
        kernel_size=None if kernel_size is None else sections.pair(kernel_size),
        position_grid=None if position_grid is None else tuple(position_grid),
        block=BlockSettings(
            mlp_dim=shape.mlp_dim,
            num_heads=shape.num_heads,
            activation=activation,
            qkv_bias=qkv_bias,
            key_bias=key_bias,
            qk_norm=qk_norm,
            layer_scale=layer_scale,
            parallel=parallel,
            norm_epsilon=norm_epsilon,
            dropout_rate=dropout_rate,
            dtype=jnp.dtype(dtype),
            attention_implementation=attention_implementation,
            matmul=matmul,
        ),
        pool=pool,
        class_token=reads_class if class_token is None else class_token,
        distillation_token=distillation_token,
        num_registers=num_registers,
        mask_token=mask_token,
        position_embedding=position_embedding,
        position_initial=position_initial,
        prefix_positions=prefix_positions,
        rope_base=rope_base,
        patch_bias=patch_bias,
        patch_norms=patch_norms,
        embedding_norm=embedding_norm,
        final_norm=final_norm,
        representation_dim=representation_dim,
        head_bias=head_bias,
        head_std=head_std,
        head_norm=head_norm,
        drop_path_rate=drop_path_rate,
        unroll=unroll or (shape.depth if remat == "none" else 1),
        remat=remat,
    )


def choose_size(size: str | None, overrides: Mapping[str, Any]) -> Size:
    if size is None:
        return sections.call(Size, overrides, where="config.task.model (no size named)")
    return sections.choose(SIZES, size, where="config.task.model.size")._replace(**overrides)
