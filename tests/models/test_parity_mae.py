"""The masked autoencoder against transformers' ViTMAEForPreTraining: loss, pixels and mask."""

import jax
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
from toys import normal

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.learner import Info
from vit_jax.losses.masked_reconstruction import Scale, masked_error
from vit_jax.models.mae import Masking
from vit_jax.tasks.mae import build

pytestmark = pytest.mark.reference

DEPTH = 2  # of encoder and decoder
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


def attention(weights, name, heads):
    found = {}
    for part, theirs in dict(query="q", key="k", value="v").items():
        whole = dense(weights, f"{name}.{theirs}_proj")
        rows = len(whole["kernel"])
        found[part] = {
            "kernel": whole["kernel"].reshape(rows, heads, -1),
            "bias": whole["bias"].reshape(heads, -1),
        }
    out = dense(weights, f"{name}.o_proj")
    out["kernel"] = out["kernel"].reshape(heads, -1, out["kernel"].shape[-1])
    return {**found, "out": out}


def block(weights, name, heads):
    return {
        "attention": attention(weights, f"{name}.attention", heads),
        "attention_norm": norm(weights, f"{name}.layernorm_before"),
        "mlp_norm": norm(weights, f"{name}.layernorm_after"),
        "mlp": {"up": dense(weights, f"{name}.mlp.fc1"), "down": dense(weights, f"{name}.mlp.fc2")},
    }


def encoder(weights, layers, last_norm, heads):
    blocks = [block(weights, f"{layers}.{i}", heads) for i in range(DEPTH)]
    return {
        "blocks": jax.tree.map(lambda *leaves: np.stack(leaves), *blocks),
        "norm": norm(weights, last_norm),
    }


def mapped(weights):
    """Their weights as our parameters."""
    front = "vit.embeddings"
    patches = dense(weights, f"{front}.patch_embeddings.projection")
    backbone = {
        "patch_embedding": patches,
        "class_token": weights[f"{front}.cls_token"],
        "position_embedding": weights[f"{front}.position_embeddings"],
        "encoder": encoder(weights, "vit.layers", "vit.layernorm", heads=2),
    }
    decoder = {
        "embedding": dense(weights, "decoder.decoder_embed"),
        "mask_token": weights["decoder.mask_token"],
        "position_embedding": weights["decoder.decoder_pos_embed"],
        "encoder": encoder(weights, "decoder.decoder_layers", "decoder.decoder_norm", heads=3),
        "prediction": dense(weights, "decoder.decoder_pred"),
    }
    return {"backbone": backbone, "decoder": decoder}


@pytest.mark.parametrize("normalise", [True, False])
def test_loss_pixels_and_mask_equal_theirs(normalise):
    torch, their_model, task = load_torch(), theirs(normalise), ours(normalise)
    params = mapped(fill(their_model))
    image, noise = normal(3, SIDE, SIDE, 3), normal(3, 9, seed=1)
    with torch.no_grad():
        expected = their_model(to_torch(image), noise=torch.from_numpy(np.float64(noise)))
    masking = Masking.of(noise, task.num_visible)
    prediction = jax.jit(task.network.apply)({"params": params}, image, masking)
    patches = task.patches(image)
    target = Scale.of(patches).normalise(patches) if normalise else patches
    loss = masked_error(prediction, target, masking.masked)
    np.testing.assert_array_equal(masking.masked, expected.mask.numpy() == 1)
    assert_relatively_close(prediction, expected.logits.numpy())
    # Theirs is one mean over all masked patches, of which each image has as many.
    np.testing.assert_allclose(loss.mean(), expected.loss.numpy(), rtol=1e-5)
