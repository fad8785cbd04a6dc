"""What timm's names, shapes and config.json are taken to mean; no timm is needed here."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax import models
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.weights import timm, timm_names
from vit_jax.weights.mapping import to_ours, to_theirs

IMAGE = (8, 8)


def build(**settings):
    """A small model of ours and parameters without a zero or a one."""
    model = models.build("vit", patch_size=4, width=24, depth=2, **settings)
    generator = np.random.default_rng(0)
    return model, jax.tree.map(
        lambda leaf: generator.normal(size=leaf.shape).astype(np.float32), shapes_of(model)
    )


def shapes_of(model):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *IMAGE, 3)))["params"]


PLAIN = dict(num_classes=5, mlp_dim=40, num_heads=6, activation="gelu")
# architecture -> settings of ours
CASES = {
    "vit_small_patch4_8": PLAIN,
    "vit_small_patch4_gap_8": dict(PLAIN, pool="gap"),
    "vit_small_patch4_8.mae": dict(PLAIN, class_token=True, pool="gap", final_norm="pooled"),
    "vit_small_patch4_8.orig_in21k": dict(PLAIN, representation_dim=12),
    "vit_small_patch4_8_miil": dict(PLAIN, qkv_bias=False),
    "deit_small_distilled_patch4_8": dict(PLAIN, distillation_token=True),
    "deit3_small_patch4_8": dict(PLAIN, layer_scale=1e-5, prefix_positions=False),
    "vit_small_patch4_reg4_dinov2": dict(
        PLAIN, layer_scale=1e-5, num_registers=4, prefix_positions=False
    ),
    "vit_small_patch4_reg1_dinov2": dict(
        PLAIN, activation="swiglu", layer_scale=1e-5, num_registers=1
    ),
    "vit_small_patch4_siglip_8": dict(PLAIN, pool="map", activation="gelu_tanh"),
    "vit_small_patch4_clip_8": dict(
        PLAIN, embedding_norm=True, patch_bias=False, norm_epsilon=1e-5
    ),
    "vit_small_patch4_clip_8.openai": dict(
        PLAIN,
        embedding_norm=True,
        patch_bias=False,
        norm_epsilon=1e-5,
        activation="quick_gelu",
        head_bias=None,
    ),
    "vit_small_patch4_radio_v3": dict(PLAIN, qk_norm=True, final_norm="none", num_classes=0),
}


@pytest.mark.parametrize("architecture", CASES)
def test_a_saved_model_tells_its_settings_and_parameters(architecture):
    model, params = build(**CASES[architecture])
    arrays = to_theirs(timm.TIMM, params)
    settings = timm.settings(architecture, arrays)
    assert models.build("vit", num_classes=timm.num_classes(arrays), **settings) == model
    loaded, report = to_ours(timm.table(arrays), arrays, target_shapes=shapes_of(model))
    report.check()
    equal = jax.tree.map(lambda a, b: a.tobytes() == b.tobytes(), loaded, params)
    assert all(jax.tree.leaves(equal))


FACEBOOK = {
    "blocks.0.ls1.gamma": "blocks.0.gamma_1",
    "blocks.1.ls2.gamma": "blocks.1.gamma_2",
    "blocks.1.norm1.bias": "blocks.0.1.norm1.bias",  # the first group of layers holds both
    "blocks.0.mlp.fc1.weight": "blocks.0.mlp.w12.weight",
    "blocks.0.mlp.fc2.bias": "blocks.0.mlp.w3.bias",
    "reg_token": "register_tokens",
}


def test_quirks_of_the_original_files():
    architecture = "vit_small_patch4_reg1_dinov2"
    model, params = build(**CASES[architecture])
    arrays = to_theirs(timm.TIMM, params)
    original = {FACEBOOK.get(name, name): array for name, array in arrays.items()}
    assert len(original.keys() - arrays.keys()) == len(FACEBOOK)
    pretraining = ("mask_token", "decoder_pos_embed", "decoder_blocks.0.norm1.bias")
    pretraining += ("dino_head.mlp.0.weight", "head.last_layer.weight_v")
    original |= dict.fromkeys(pretraining, np.ones((1, 24), np.float32))
    assert timm.settings(architecture, original) == timm.settings(architecture, arrays)
    loaded, report = to_ours(timm.table(original), original, target_shapes=shapes_of(model))
    report.check()
    assert {leaf.name for leaf in report.of("unused")} == set(pretraining)
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, loaded, params)))


def test_split_gate_keeps_its_names():
    settings = dict(PLAIN, activation="swiglu")
    model, params = build(**settings)
    arrays = to_theirs(timm.SPLIT, params)
    assert "blocks.0.mlp.fc1_g.weight" in arrays and "blocks.0.mlp.fc1.weight" not in arrays
    assert timm.table(arrays) == timm.SPLIT
    assert timm.settings("vit_small_patch4_8", arrays)["activation"] == "swiglu"
    loaded, report = to_ours(timm.SPLIT, arrays, target_shapes=shapes_of(model))
    report.check()
    assert all(jax.tree.leaves(jax.tree.map(np.array_equal, loaded, params)))


def test_positions_of_registers_are_folded_into_them():
    model, params = build(**PLAIN, pool="gap", num_registers=3)
    arrays = to_theirs(timm.REGISTER_POSITIONS, params)
    assert arrays["pos_embed"].shape == (1, 3 + 4, 24)
    arrays["pos_embed"] = arrays["pos_embed"] + 1
    assert timm.table(arrays) == timm.REGISTER_POSITIONS
    loaded, report = to_ours(timm.table(arrays), arrays, target_shapes=shapes_of(model))
    report.check()
    for name in ("registers", "position_embedding"):
        np.testing.assert_array_equal(loaded[name], params[name] + 1)


@pytest.mark.parametrize(
    "name",
    [
        "vit_base_patch16_rope_224",
        "vit_base_patch16_rpn_224",
        "vit_small_patch16_18x2_224",
        "vit_pwee_patch16_reg1_gap_256",
        "vit_base_patch16_xp_224",
        "vit_enormous_patch16_224",
        "resnet50",
        "",
    ],
)
def test_other_architectures_are_refused(name):
    with pytest.raises(InputError, match=f"architecture is '{name}'; allowed: .*tiny"):
        timm.settings(name, {})


def test_arrays_that_are_no_transformer_are_refused():
    with pytest.raises(InputError, match="lacks patch_embed.proj.weight"):
        timm.settings("vit_tiny_patch16_224", {"stem.weight": np.zeros(1)})


def test_attention_pooling_beside_registers_is_refused():
    _, params = build(**PLAIN, pool="map", num_registers=2)
    with pytest.raises(InputError, match="registers that its attention pooling does not read"):
        timm.settings("vit_small_patch4_siglip_8", to_theirs(timm.TIMM, params))


@pytest.mark.parametrize(
    "name, tag, expected",
    [
        ("vit_base_patch16_224", "augreg_in21k", "gelu"),
        ("vit_base_patch16_clip_224", "openai", "quick_gelu"),
        ("vit_base_patch16_clip_224", "openai_ft_in1k", "gelu"),  # timm fine-tuned it so
        ("vit_base_patch16_clip_quickgelu_224", "metaclip_400m", "quick_gelu"),
        ("vit_so400m_patch14_siglip_384", "webli", "gelu_tanh"),
    ],
)
def test_activations(name, tag, expected):
    assert timm_names.activation(name, tag) == expected


@pytest.mark.parametrize("count, expected", [(12, False), (13, True)])
def test_class_positions_on_a_grid_that_is_no_square(count, expected):
    """3x4 patches: the number alone says nothing, the name does."""
    name = "vit_small_patch4_8" if expected else "deit3_small_patch4_8"
    _, params = build(**PLAIN)
    arrays = to_theirs(timm.TIMM, params)
    arrays["pos_embed"] = np.zeros((1, count, 24), np.float32)
    assert timm.settings(name, arrays)["prefix_positions"] is expected


CONFIG = {
    "architecture": "vit_base_patch16_224",
    "num_classes": 1000,
    "pretrained_cfg": {
        "input_size": [3, 224, 192],
        "interpolation": "bicubic",
        "crop_pct": 0.9,
        "crop_mode": "center",
        "mean": [0.5, 0.4, 0.3],
        "std": [0.5, 0.5, 0.5],
    },
}


def changed(**changes):
    given = {**CONFIG["pretrained_cfg"], **changes}
    return {**CONFIG, "pretrained_cfg": {k: v for k, v in given.items() if v is not None}}


def test_preprocessing():
    found = Preprocessing(**timm.preprocessing(CONFIG))
    assert found == Preprocessing(
        image_size=(224, 192),
        channels=3,
        resize="crop",
        crop_fraction=0.9,
        interpolation="bicubic",
        mean=(0.5, 0.4, 0.3),
        std=(0.5, 0.5, 0.5),
    )


def test_preprocessing_without_a_crop_and_with_defaults():
    squash = changed(crop_mode="squash", crop_pct=1.0)
    assert Preprocessing(**timm.preprocessing(squash)).resize == "stretch"
    plain = Preprocessing(**timm.preprocessing(changed(crop_mode=None, crop_pct=None)))
    assert (plain.resize, plain.crop_fraction) == ("crop", 0.875)


@pytest.mark.parametrize(
    "changes, message",
    [
        (dict(crop_mode="border"), "crop_mode is 'border'; allowed: center, squash"),
        (dict(crop_mode="squash"), "crop_mode is 'squash' and crop_pct 0.9; allowed with it: 1"),
        (dict(mean=None), "pretrained_cfg lacks mean"),
    ],
)
def test_preprocessing_that_ours_does_not_know(changes, message):
    with pytest.raises(InputError, match=message):
        timm.preprocessing(changed(**changes))
