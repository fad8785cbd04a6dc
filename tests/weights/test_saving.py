"""`weights.save`: what is loaded again has every bit, or nothing is written and the reason told."""

import json

import numpy as np
import pytest
from pretrained import CLASSES, images, logits, preprocessing, vit
from toys import assert_trees_equal

from vit_jax import models, weights
from vit_jax.errors import InputError

TIMM = "vit_tiny_patch4_8"
EXACT = dict(activation="gelu")
# name -> layout, settings of the model, architecture
CASES = {
    "google": ("google", {}, None),
    "google gap": ("google", dict(pool="gap"), None),
    "google pre-logits": ("google", dict(representation_dim=6), None),
    "google without head": ("google", dict(num_classes=0), None),
    "big_vision": ("big_vision", {}, None),
    "big_vision gap": ("big_vision", dict(pool="gap"), None),
    "big_vision sincos": ("big_vision", dict(pool="gap", position_embedding="sincos2d"), None),
    "big_vision class unplaced": ("big_vision", dict(prefix_positions=False), None),
    "siglip": ("big_vision", dict(pool="map", num_classes=0), None),
    "huggingface vit": ("huggingface", EXACT, None),
    "huggingface vit without head": ("huggingface", dict(EXACT, num_classes=0), None),
    "huggingface deit": ("huggingface", dict(EXACT, distillation_token=True), None),
    "huggingface dinov2": (
        "huggingface",
        dict(EXACT, layer_scale=0.1, pool="cls_gap", mlp_dim=24),
        None,
    ),
    "huggingface dinov3": (
        "huggingface",
        dict(
            EXACT,
            num_classes=0,
            layer_scale=0.1,
            num_registers=2,
            position_embedding="rope",
            key_bias=False,
        ),
        None,
    ),
    "huggingface clip": (
        "huggingface",
        dict(
            activation="quick_gelu",
            patch_bias=False,
            embedding_norm=True,
            head_bias=None,
            norm_epsilon=1e-5,
        ),
        None,
    ),
    "huggingface siglip": ("huggingface", dict(pool="map", num_classes=0), None),
    "timm": ("timm", EXACT, TIMM),
    "timm without head": ("timm", dict(EXACT, num_classes=0), TIMM),
    "timm gap": ("timm", dict(EXACT, pool="gap"), "vit_tiny_patch4_gap_8"),
    "timm deit3": (
        "timm",
        dict(EXACT, layer_scale=0.1, prefix_positions=False),
        "deit3_tiny_patch4_8",
    ),
    "timm siglip": ("timm", dict(pool="map"), "vit_tiny_patch4_siglip_8"),
}
FOLDERS = ("huggingface", "timm")


def needs_safetensors(layout):
    if layout in FOLDERS:
        reason = "safetensors is not installed: its files are neither written nor read"
        pytest.importorskip("safetensors", reason=reason)


def write(folder, layout, settings, architecture=None, stored=None, names=CLASSES):
    """(target, model, variables), saved."""
    needs_safetensors(layout)
    stored = stored or preprocessing()
    model, variables = vit(stored.image_size, stored.channels, **settings)
    target = folder / "saved" if layout in FOLDERS else folder / "saved.npz"
    found = weights.save(
        target,
        model,
        variables,
        layout=layout,
        preprocessing=stored,
        class_names=names[: model.num_classes],
        architecture=architecture,
    )
    assert found == target
    return target, model, variables


@pytest.mark.parametrize("name", CASES)
def test_what_is_saved_is_loaded_bit_for_bit(name, tmp_path):
    layout, settings, architecture = CASES[name]
    target, model, variables = write(tmp_path, layout, settings, architecture)
    loaded = weights.load(target)
    assert_trees_equal(loaded.variables, variables)
    assert {leaf.status for leaf in loaded.report.leaves} == {"loaded"}
    if model.num_classes:
        np.testing.assert_array_equal(
            logits(loaded.model, loaded.variables, images()), logits(model, variables, images())
        )
    again = tmp_path / "again" if layout in FOLDERS else tmp_path / "again.npz"
    weights.save(
        again,
        loaded.model,
        loaded.variables,
        layout=layout,
        preprocessing=loaded.preprocessing,
        class_names=loaded.class_names,
        architecture=architecture,
    )
    for path in [target] if target.is_file() else sorted(target.iterdir()):
        other = again if target.is_file() else again / path.name
        if path.suffix != ".npz":  # the archive notes the time
            assert other.read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize("layout", ["huggingface", "timm"])
def test_class_names_survive(layout, tmp_path):
    target, *_ = write(tmp_path, layout, EXACT, TIMM if layout == "timm" else None)
    assert weights.load(target).class_names == CLASSES
    kept = weights.load(target, class_names=CLASSES)
    assert not kept.report.of("initialised")


@pytest.mark.parametrize("layout", ["huggingface", "timm"])
def test_without_names_classes_are_numbers(layout, tmp_path):
    target, *_ = write(tmp_path, layout, EXACT, TIMM if layout == "timm" else None, names=())
    assert weights.load(target).class_names == ("0", "1", "2", "3", "4")
    if layout == "huggingface":  # whose models have as many outputs as it has entries
        assert len(json.loads((target / "config.json").read_text())["id2label"]) == 5


@pytest.mark.parametrize("layout", ["google", "big_vision", "huggingface", "timm"])
def test_another_number_of_names_than_classes_is_refused(layout, tmp_path):
    needs_safetensors(layout)
    model, variables = vit(**EXACT) if layout in FOLDERS else vit()
    with pytest.raises(InputError, match="2 class_names.*5 classes"):
        weights.save(
            tmp_path / "a.npz",
            model,
            variables,
            layout=layout,
            preprocessing=preprocessing(),
            class_names=("yes", "no"),
            architecture=TIMM if layout == "timm" else None,
        )
    assert not list(tmp_path.iterdir())


PREPROCESSINGS = {
    "stretched": dict(),
    "bicubic": dict(interpolation="bicubic", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6)),
    "lanczos": dict(interpolation="lanczos"),
    "box": dict(interpolation="box"),
    "cropped": dict(image_size=(28, 28), resize="crop", crop_fraction=0.875),
    "cropped little": dict(resize="crop", crop_fraction=1.0),
    "grey": dict(channels=1, mean=(0.3,), std=(0.2,)),
    "grey cropped": dict(channels=1, image_size=(16, 16), resize="crop", crop_fraction=0.5),
    "rectangle": dict(image_size=(8, 12)),
}


def assert_same_preprocessing(found, expected):
    """One number for all channels may have become one a channel."""
    for name in ("image_size", "channels", "resize", "interpolation"):
        assert getattr(found, name) == getattr(expected, name), name
    assert found.crop_fraction == pytest.approx(expected.crop_fraction, rel=1e-12)
    for name in ("mean", "std"):
        values = getattr(expected, name)
        values *= expected.channels if len(values) == 1 else 1
        assert getattr(found, name) == values, name


@pytest.mark.parametrize("layout", ["huggingface", "timm"])
@pytest.mark.parametrize("name", PREPROCESSINGS)
def test_preprocessing_survives(name, layout, tmp_path):
    stored = preprocessing(**PREPROCESSINGS[name])
    target, *_ = write(tmp_path, layout, EXACT, TIMM if layout == "timm" else None, stored)
    # The number of positions alone does not tell the grid of a rectangle's, but the size does.
    loaded = weights.load(target)
    assert_same_preprocessing(loaded.preprocessing, stored)
    image = np.random.default_rng(0).integers(0, 256, (40, 50, stored.channels), np.uint8)
    np.testing.assert_array_equal(loaded.preprocessing(image), stored(image))


@pytest.mark.parametrize("layout", ["huggingface", "timm"])
def test_resizing_without_antialiasing_is_refused(layout, tmp_path):
    stored = preprocessing(dialect="big_vision")
    with pytest.raises(InputError, match="cannot express antialias=False"):
        write(tmp_path, layout, EXACT, TIMM if layout == "timm" else None, stored)


# The shortest side decides there, which may leave less than the other one needs.
@pytest.mark.parametrize("size", [(8, 16), (16, 8)], ids=str)
def test_crops_to_a_rectangle_are_refused_by_hugging_face(size, tmp_path):
    with pytest.raises(InputError, match="cannot express a crop to .*; allowed: a square"):
        write(tmp_path, "huggingface", EXACT, stored=preprocessing(image_size=size, resize="crop"))
    assert not list(tmp_path.iterdir())


def test_crops_in_fractions_of_a_pixel_are_rounded_by_hugging_face_with_a_warning(tmp_path, caplog):
    stored = preprocessing(image_size=(28, 28), resize="crop", crop_fraction=0.9)
    target, *_ = write(tmp_path, "huggingface", EXACT, stored=stored)
    assert "crop_fraction 0.9 becomes 28 / 31, in whole pixels" in caplog.text
    assert weights.load(target).preprocessing.crop_fraction == 28 / 31


# layout -> settings it has no place for, and what the message names
REFUSED = [
    ("google", dict(activation="gelu"), r"activation=gelu \(would be gelu_tanh\)"),
    ("google", dict(norm_epsilon=1e-5), r"norm_epsilon=1e-05 \(would be 1e-06\)"),
    ("google", dict(pool="gap", class_token=True), r"pool=gap \(would be cls\)"),
    ("google", dict(pool="map"), "no place for pool/"),
    ("google", dict(layer_scale=0.1), "no place for encoder/blocks/attention_scale"),
    ("google", dict(num_registers=2), "no place for registers"),
    ("google", dict(prefix_positions=False), "prefix_positions=False"),
    ("google", dict(position_embedding="sincos2d"), "position_embedding=sincos2d"),
    ("google", dict(position_embedding="learned2d"), "no place for position_embedding/columns"),
    ("big_vision", dict(position_embedding="relative"), "no place for .*/relative_positions/"),
    ("timm", dict(EXACT, position_embedding="learned2d"), "no place for position_embedding/"),
    ("huggingface", dict(EXACT, position_embedding="relative"), "vit: .*/relative_positions/"),
    ("google", dict(qkv_bias=False), "qkv_bias=False"),
    ("google", dict(patch_bias=False), "patch_bias=False"),
    ("google", dict(head_bias=None), "head_bias|num_classes=5"),
    ("google", dict(parallel=True), "no place for encoder/blocks/norm"),
    ("big_vision", dict(activation="gelu"), "activation=gelu"),
    ("big_vision", dict(pool="gap", position_embedding="sincos1d"), "position_embedding=sincos1d"),
    ("big_vision", dict(qkv_bias=False), "qkv_bias=False"),
    ("big_vision", dict(head_bias=None), "head_bias=None"),
    ("big_vision", dict(final_norm="none"), "final_norm=none"),
    ("big_vision", dict(pool="gap", final_norm="pooled"), "no place for pooled_norm"),
    ("timm", dict(), r"timm's vit_tiny_patch4_8 .*activation=gelu_tanh \(would be gelu\)"),
    ("timm", dict(EXACT, pool="gap", class_token=True), "pool=gap"),
    ("timm", dict(EXACT, num_heads=2), r"num_heads=2 \(would be 3\)"),
    ("timm", dict(EXACT, norm_epsilon=1e-5), "norm_epsilon=1e-05"),
    ("timm", dict(EXACT, position_embedding="rope"), "position_embedding=rope"),
    ("timm", dict(EXACT, parallel=True), "no place for encoder/blocks/norm"),
    ("huggingface", dict(EXACT, prefix_positions=False), "vit: prefix_positions=False"),
    ("huggingface", dict(EXACT, pool="gap"), "vit: pool=gap .would be cls"),
    ("huggingface", dict(EXACT, qk_norm=True), "no place for .*norm"),
    ("huggingface", dict(EXACT, parallel=True), "vit: .* no place for encoder/blocks/norm"),
]


@pytest.mark.parametrize("layout, settings, message", REFUSED)
def test_what_a_layout_cannot_express_is_refused_and_nothing_written(
    layout, settings, message, tmp_path
):
    with pytest.raises(InputError, match=message) as told:
        write(tmp_path, layout, settings, TIMM if layout == "timm" else None)
    assert len(str(told.value).splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout", ["google", "big_vision"])
def test_what_concerns_only_training_and_speed_is_no_difference(layout, tmp_path):
    settings = dict(dropout_rate=0.1, drop_path_rate=0.2, dtype="bfloat16", unroll=1, remat="full")
    write(tmp_path, layout, dict(settings, head_bias=-3.0))


def test_models_and_collections_without_a_layout_are_refused(tmp_path):
    arguments = dict(layout="big_vision", preprocessing=preprocessing())
    model, variables = vit((32, 32), stem="conv_1gf", patch_size=1)
    with pytest.raises(InputError, match="VisionTransformer with batch_stats beside its"):
        weights.save(tmp_path / "a.npz", model, variables, **arguments)
    other = models.build("resnet", num_classes=5, depth=50)
    with pytest.raises(InputError, match="'big_vision' cannot hold a ResNet; allowed"):
        weights.save(tmp_path / "a.npz", other, {"params": {}}, **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(layout="timm"), "layout is 'timm' and architecture None; allowed: a name of timm's"),
        (dict(layout="google", architecture=TIMM), f"'google' and architecture '{TIMM}'"),
        (dict(layout="huggingface", architecture=TIMM), "'huggingface' and architecture"),
        (dict(layout="timm", architecture="resnet50"), "architecture is 'resnet50'; allowed"),
        (dict(layout="flax"), "layout is 'flax'; allowed: google, big_vision, huggingface, timm"),
        (dict(layout="google"), "the target is .*saved; allowed with this layout: a file .*npz"),
        (dict(layout="big_vision"), "allowed with this layout: a file .*npz"),
    ],
    ids=str,
)
def test_mistakes_in_the_call_are_told(settings, message, tmp_path):
    model, variables = vit()
    with pytest.raises(InputError, match=message):
        weights.save(
            tmp_path / "saved", model, variables, preprocessing=preprocessing(), **settings
        )
    assert not list(tmp_path.iterdir())
