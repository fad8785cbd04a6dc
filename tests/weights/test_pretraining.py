"""Decoders and projection heads in published layouts; no torch is needed here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from networks import (
    ARCHITECTURE,
    HEAD,
    backbone,
    dino_network,
    load,
    mae_network,
    published,
    source,
)
from pretrained import preprocessing, vit
from toys import assert_trees_equal

from vit_jax import weights
from vit_jax.errors import InputError
from vit_jax.models import mae
from vit_jax.weights import pretraining, timm
from vit_jax.weights.mapping import to_theirs

# What the public code of MAE calls the arrays of a decoder of one block.
BLOCK = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
LAYERS = (
    "decoder_embed",
    "decoder_norm",
    "decoder_pred",
    *(f"decoder_blocks.0.{n}" for n in BLOCK),
)
DECODER = {f"{layer}.{kind}" for layer in LAYERS for kind in ("weight", "bias")}
DECODER |= {"mask_token", "decoder_pos_embed"}


def test_a_decoder_of_mae_comes_back(tmp_path):
    model, network, variables = mae_network()
    arrays = published(variables["params"])
    assert arrays.keys() - to_theirs(timm.TIMM, variables["params"]["backbone"]).keys() == DECODER
    assert arrays["mask_token"].shape == (1, 1, 8)
    assert arrays["decoder_pred.weight"].shape == (4 * 4 * 3, 8)
    found = source(tmp_path, arrays)
    loaded, report = load(found, model, network)
    assert_trees_equal(loaded["params"], variables["params"])
    assert {leaf.status for leaf in report.leaves} == {"loaded"}
    assert found.task == {"decoder": dict(width=8, depth=1, mlp_dim=12)}


def test_a_model_alone_leaves_the_decoder_with_a_reason(tmp_path):
    _, _, variables = mae_network()
    arrays = published(variables["params"])
    np.savez(tmp_path / "a.npz", **arrays)
    loaded = weights.load(tmp_path / "a.npz", architecture=ARCHITECTURE)
    assert_trees_equal(loaded.variables["params"], variables["params"]["backbone"])
    assert {leaf.name for leaf in loaded.report.of("unused")} == DECODER
    # Their mask token is the decoder's, which no model with one of its own may take for it.
    masked, network, _ = dino_network(mask_token=True)
    _, report = load(source(tmp_path, arrays), masked, network)
    new = {leaf.name: leaf.reason for leaf in report.of("initialised")}
    assert new["backbone/mask_token"] == "the source has none"


def test_positions_of_a_decoder_are_resized_with_the_models(tmp_path):
    _, _, variables = mae_network()
    found = source(tmp_path, published(variables["params"]))
    model = backbone()
    decoder = mae.build_decoder(
        model, image_shape=(8, 12, 3), width=8, depth=1, num_heads=2, mlp_dim=12
    )
    network = mae.MaskedAutoencoder(model, decoder)
    masking = mae.Masking.of(jnp.zeros((1, 6)), 2)
    image = jnp.zeros((1, 8, 12, 3))
    whole = weights.Network(("backbone",), lambda: network.init(jax.random.key(0), image, masking))
    loaded, report = load(found, model, whole, size=(8, 12))
    names = {leaf.name for leaf in report.of("resized")}
    assert names == {"backbone/position_embedding", "decoder/position_embedding"}
    stored = variables["params"]["decoder"]["position_embedding"]
    resized = loaded["params"]["decoder"]["position_embedding"]
    assert resized.shape == (1, 1 + 6, 8)
    np.testing.assert_array_equal(resized[:, 0], stored[:, 0])


def test_a_decoder_of_another_depth_is_no_part_of_the_file(tmp_path):
    _, _, variables = mae_network(depth=2)
    model, network, _ = mae_network(depth=1)
    found = source(tmp_path, published(variables["params"]))
    with pytest.raises(InputError, match=r"unexplained: unused .*decoder_blocks\.1\.norm1\.weight"):
        load(found, model, network)
    loaded, report = load(found, model, network, ignore=[r"decoder_blocks\.1\..*"])
    assert not report.of("initialised")
    ours = loaded["params"]["decoder"]["encoder"]["blocks"]["attention_norm"]["scale"]
    theirs = variables["params"]["decoder"]["encoder"]["blocks"]["attention_norm"]["scale"]
    np.testing.assert_array_equal(ours, theirs[:1])


@pytest.mark.parametrize("settings", [dict(new_parts=True), dict(initialise=["decoder/.*"])])
def test_a_decoder_begins_anew_where_it_is_asked(tmp_path, settings):
    model, network, variables = mae_network()
    found = source(tmp_path, published(variables["params"]))
    loaded, report = load(found, model, network, **settings)
    assert_trees_equal(loaded["params"]["backbone"], variables["params"]["backbone"])
    assert_trees_equal(loaded["params"]["decoder"], jax.jit(network.init)()["params"]["decoder"])
    assert {leaf.name for leaf in report.of("unused")} == DECODER


@pytest.mark.parametrize("normalise_last", [True, False])
def test_a_head_of_dino_comes_back(tmp_path, normalise_last):
    model, network, variables = dino_network(normalise_last)
    arrays = published(variables["params"])
    layers = {f"head.mlp.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")}
    own = layers | {"head.last_layer.weight_v"}
    if normalise_last:
        arrays["head.last_layer.weight_g"] = np.ones((6, 1), np.float32)
    own |= {"head.last_layer.weight_g"}
    assert {name for name in arrays if name.startswith("head.")} == own
    assert arrays["head.last_layer.weight_g"].shape == (6, 1)
    found = source(tmp_path, arrays)
    loaded, report = load(found, model, network)
    assert_trees_equal(loaded["params"], variables["params"])
    unused = {leaf.name for leaf in report.of("unused")}
    assert unused == ({"head.last_layer.weight_g"} if normalise_last else set())
    assert found.task == {"head": {**HEAD, "normalise_last": normalise_last}}


def test_lengths_that_are_not_one_are_not_lost_in_silence(tmp_path):
    _, _, variables = dino_network(normalise_last=False)
    model, network, _ = dino_network(normalise_last=True)
    found = source(tmp_path, published(variables["params"]))
    with pytest.raises(InputError, match=r"unexplained: unused head\.last_layer\.weight_g 6x1"):
        load(found, model, network)


def test_both_heads_of_dinov2s_own_code(tmp_path):
    model, network, variables = dino_network(False, patch_head=True, mask_token=True)
    arrays = published(variables["params"], timm.table({"mask_token": np.zeros((1, 12))}))
    arrays = {name.replace("head.", "dino_head.") if name.startswith("head.") else name: array
              for name, array in arrays.items()}  # fmt: skip
    newer = {"weight_g": "parametrizations.weight.original0",
             "weight_v": "parametrizations.weight.original1"}  # fmt: skip
    for old, new in newer.items():
        arrays = {name.replace(old, new): array for name, array in arrays.items()}
    loaded, report = load(source(tmp_path, arrays), model, network)
    assert_trees_equal(loaded["params"], variables["params"])
    assert {leaf.status for leaf in report.leaves} == {"loaded"}


def test_a_classifiers_head_is_no_part_of_a_method(tmp_path):
    own, variables = vit(activation="gelu")
    found = source(tmp_path, to_theirs(timm.TIMM, variables["params"]))
    assert found.settings["num_classes"] == own.num_classes
    model, network, _ = dino_network()
    loaded, report = load(found, model, network)
    assert {leaf.name for leaf in report.of("unused")} == {"head.weight", "head.bias"}
    expected = {n: tree for n, tree in variables["params"].items() if n != "head"}
    assert_trees_equal(loaded["params"]["backbone"], expected)
    assert_trees_equal(loaded["params"]["head"], jax.jit(network.init)()["params"]["head"])


def test_mask_tokens_are_the_models_where_it_has_one(tmp_path):
    model, variables = vit(num_classes=0, activation="gelu", mask_token=True)
    token = variables["params"]["mask_token"]
    arrays = to_theirs(timm.table({"mask_token": token}), variables["params"])
    np.savez(tmp_path / "a.npz", **arrays)
    plain = weights.load(tmp_path / "a.npz", architecture=ARCHITECTURE)
    assert "mask_token" not in plain.variables["params"]
    assert [leaf.name for leaf in plain.report.of("unused")] == ["mask_token"]
    own = weights.load(tmp_path / "a.npz", architecture=ARCHITECTURE, mask_token=True)
    assert_trees_equal(own.variables["params"], variables["params"])
    assert own.model == model


def test_a_layout_without_a_place_for_the_mask_token_leaves_it_out(tmp_path):
    model, variables = vit(mask_token=True)
    weights.save(
        tmp_path / "a.npz", model, variables, layout="google", preprocessing=preprocessing()
    )
    loaded = weights.load(tmp_path / "a.npz")
    expected = {n: tree for n, tree in variables["params"].items() if n != "mask_token"}
    assert_trees_equal(loaded.variables["params"], expected)


def test_hidden_layers_of_a_head_are_counted():
    arrays = {"head.mlp.weight": np.ones((5, 12)), "head.last_layer.weight_v": np.ones((6, 5))}
    assert pretraining.head_settings(arrays) == {
        "head": dict(depth=1, bottleneck_dim=5, num_prototypes=6, normalise_last=False)
    }
    assert pretraining.head_settings({"head.weight": np.ones((6, 5))}) == {}
