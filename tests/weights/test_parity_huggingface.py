"""Each Hugging Face family against transformers, layer by layer, with weights that hide nothing."""

import jax
import numpy as np
import pytest
from references import load_torch, load_transformers, randomise

from vit_jax import weights
from vit_jax.weights.files import read_arrays

pytestmark = pytest.mark.reference

SMALL = dict(hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=40)
DINO = {name: value for name, value in SMALL.items() if name != "intermediate_size"}
SIZES = {"square": (16, 16), "rectangle": (8, 24), "larger": (24, 24)}
# name -> transformers' class and config class, settings of the config
CASES = {
    "vit": ("ViTForImageClassification", "ViTConfig", dict(SMALL, num_labels=5)),
    "vit without qkv bias": ("ViTForImageClassification", "ViTConfig", dict(SMALL, qkv_bias=False)),
    "vit with pooler": ("ViTModel", "ViTConfig", dict(SMALL, pooler_output_size=20)),
    "deit": ("DeiTForImageClassificationWithTeacher", "DeiTConfig", dict(SMALL, num_labels=5)),
    "dinov2": ("Dinov2ForImageClassification", "Dinov2Config", dict(DINO, num_labels=5)),
    "dinov2 giant": ("Dinov2Model", "Dinov2Config", dict(DINO, use_swiglu_ffn=True)),
    "dinov2 registers": (
        "Dinov2WithRegistersForImageClassification",
        "Dinov2WithRegistersConfig",
        dict(DINO, num_labels=5, num_register_tokens=4),
    ),
    "dinov3": ("DINOv3ViTModel", "DINOv3ViTConfig", dict(SMALL, num_register_tokens=4)),
    "dinov3 huge": (
        "DINOv3ViTModel",
        "DINOv3ViTConfig",
        dict(SMALL, num_register_tokens=4, use_gated_mlp=True, hidden_act="silu"),
    ),
    "clip": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", dict(SMALL, projection_dim=12)),
    "siglip": ("SiglipVisionModel", "SiglipVisionConfig", SMALL),
}


# Theirs of these take squares only.
ONLY_SQUARES = ("dinov2", "clip", "siglip")
PAIRS = [
    (name, size)
    for name in CASES
    for size in ("square", "larger" if name.startswith(ONLY_SQUARES) else "rectangle")
]


@pytest.fixture(scope="module", params=PAIRS, ids=" ".join)
def case(request, tmp_path_factory):
    """Their model, its folder, and ours as loaded from there."""
    transformers = load_transformers()
    name, size = request.param
    model_class, config_class, settings = CASES[name]
    height, width = SIZES[size]
    config = getattr(transformers, config_class)(
        **settings,
        image_size=height if height == width else (height, width),
        patch_size=4,
        attn_implementation="eager",
    )
    theirs = randomise(getattr(transformers, model_class)(config))
    folder = tmp_path_factory.mktemp("model")
    theirs.save_pretrained(folder)
    return theirs, folder, weights.load(folder)


def close(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def run_theirs(model, images):
    torch = load_torch()
    with torch.no_grad():
        return model(
            torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), output_hidden_states=True
        )


def some_images(loaded):
    shape = (2, *loaded.preprocessing.image_shape)
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


# Their name of an output -> ours.
OUTPUTS = {
    "logits": lambda output: output.logits,
    "image_embeds": lambda output: output.logits,
    "cls_logits": lambda output: output.class_logits,
    "distillation_logits": lambda output: output.distillation_logits,
    "pooler_output": lambda output: output.representation,
    "last_hidden_state": lambda output: output.tokens,
}


def test_equal_layer_by_layer(case):
    theirs, _, loaded = case
    images = some_images(loaded)
    expected = run_theirs(theirs, images)
    output, collections = jax.jit(
        lambda variables, images: loaded.model.apply(variables, images, mutable="intermediates")
    )(loaded.variables, images)
    (tokens,) = collections["intermediates"]["encoder"]["blocks"]["tokens"]
    # Some of their models count the normalised tokens as the last hidden state.
    for layer in range(len(tokens) - 1):
        close(tokens[layer], expected.hidden_states[1 + layer])
    found = [name for name in OUTPUTS if expected.get(name) is not None]
    if "image_embeds" in found:  # CLIP tells the tokens before the last norm
        found.remove("last_hidden_state")
    assert found
    for name in found:
        close(OUTPUTS[name](output), expected[name])


def test_report_explains_everything(case):
    *_, loaded = case
    unused = [leaf.name for leaf in loaded.report.of("unused")]
    assert all("mask_token" in name for name in unused)
    assert not loaded.report.of("initialised") and not loaded.report.of("resized")


def test_saved_again_it_has_every_bit_and_theirs_loads_it_with_equal_outputs(case, tmp_path):
    theirs, folder, loaded = case
    weights.save(
        tmp_path,
        loaded.model,
        loaded.variables,
        layout="huggingface",
        preprocessing=loaded.preprocessing,
        class_names=loaded.class_names,
    )
    saved, original = read_arrays(tmp_path), read_arrays(folder)
    original = {name: a for name, a in original.items() if "mask_token" not in name}
    assert saved.keys() == original.keys()
    for name, array in saved.items():
        assert array.tobytes() == np.ascontiguousarray(original[name]).tobytes(), name
    again, info = type(theirs).from_pretrained(
        tmp_path, output_loading_info=True, attn_implementation="eager"
    )
    assert all("mask_token" in name for name in info["missing_keys"])
    assert not info["unexpected_keys"] and not info["mismatched_keys"]
    images = some_images(loaded)
    found, expected = run_theirs(again.eval(), images), run_theirs(theirs, images)
    for name in OUTPUTS:
        if expected.get(name) is not None:
            np.testing.assert_array_equal(found[name], expected[name])


@pytest.mark.parametrize("grid", [(4, 4), (2, 6)])
def test_naflex_on_one_grid_equals_theirs(grid, tmp_path):
    """SigLIP 2 that is given patches; its stored positions are a square's, resized bilinearly."""
    transformers, torch = load_transformers(), load_torch()
    config = transformers.Siglip2VisionConfig(**SMALL, patch_size=4, num_patches=16)
    theirs = randomise(transformers.Siglip2VisionModel(config))
    theirs.save_pretrained(tmp_path)
    size = tuple(4 * side for side in grid)
    loaded = weights.load(tmp_path, image_size=size, positions="bilinear")
    images = some_images(loaded)
    patches = images.reshape(2, grid[0], 4, grid[1], 4, 3).transpose(0, 1, 3, 2, 4, 5)
    patches = torch.from_numpy(patches.reshape(2, grid[0] * grid[1], -1).copy())
    with torch.no_grad():
        expected = theirs(
            pixel_values=patches,
            pixel_attention_mask=torch.ones(patches.shape[:2]),
            spatial_shapes=torch.tensor([grid, grid]),
        )
    output = jax.jit(loaded.model.apply)(loaded.variables, images)
    close(output.tokens, expected.last_hidden_state)
    close(output.representation, expected.pooler_output)
