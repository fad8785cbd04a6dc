"""The masked autoencoder against transformers' ViTMAEForPreTraining: loss, pixels and mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import (
    assert_relatively_close,
    fill,
    kernel,
    load_torch,
    load_transformers,
    to_torch,
)

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.learner import Info
from vit_jax.losses.masked_reconstruction import Scale, masked_error
from vit_jax.models.mae import Masking
from vit_jax.tasks.mae import build

pytestmark = pytest.mark.reference

HEADS = {"vit.encoder": 2, "decoder": 3}
SIDE = 12  # 9 patches of 4 x 4, 2 of them visible


def theirs(normalise):
    transformers = load_transformers()
    config = transformers.ViTMAEConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=20,
        decoder_hidden_size=12,
        decoder_num_hidden_layers=2,
        decoder_num_attention_heads=3,
        decoder_intermediate_size=16,
        image_size=SIDE,
        patch_size=4,
        mask_ratio=0.75,
        norm_pix_loss=normalise,
        layer_norm_eps=1e-6,
        attn_implementation="eager",
    )
    return transformers.ViTMAEForPreTraining(config)


def ours(normalise):
    info = Info(
        class_names=(),
        preprocessing=Preprocessing(image_size=(SIDE, SIDE), channels=3),
        num_examples=1,
        batch={"image": ((SIDE, SIDE, 3), "uint8")},
    )
    model = dict(width=8, depth=2, num_heads=2, mlp_dim=20, patch_size=4, activation="gelu")
    decoder = dict(width=12, depth=2, num_heads=3, mlp_dim=16)
    return build(model=model, decoder=decoder, info=info, normalise_targets=normalise)


def dense(weights, name):
    return {"kernel": kernel(weights[f"{name}.weight"]), "bias": weights[f"{name}.bias"]}


def norm(weights, name):
    return {"scale": weights[f"{name}.weight"], "bias": weights[f"{name}.bias"]}


def block(weights, name, heads):
    projections = {}
    for part in ("query", "key", "value"):
        found = dense(weights, f"{name}.attention.attention.{part}")
        rows = found["kernel"].shape[0]
        found = {"kernel": found["kernel"].reshape(rows, heads, -1), "bias": found["bias"]}
        projections[part] = {**found, "bias": found["bias"].reshape(heads, -1)}
    out = dense(weights, f"{name}.attention.output.dense")
    out["kernel"] = out["kernel"].reshape(heads, -1, out["kernel"].shape[-1])
    return {
        "attention": {**projections, "out": out},
        "attention_norm": norm(weights, f"{name}.layernorm_before"),
        "mlp_norm": norm(weights, f"{name}.layernorm_after"),
        "mlp": {
            "up": dense(weights, f"{name}.intermediate.dense"),
            "down": dense(weights, f"{name}.output.dense"),
        },
    }
