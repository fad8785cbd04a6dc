"""The files of google-research/vision_transformer, made here in their names and layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from references import load_timm, load_torch
from toys import TINY, normal, random_like

from vit_jax import models
from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.weights import files, google, mapping


def adapters(*, method="zoom", **grids):
    """Positions by default as the original code resizes them."""
    return {
        "position_embedding": resize.position_adapter(method=method, antialias=False, **grids),
        "patch_embedding/kernel": resize.adapt_patch_kernel,
    }


# Every name of a published file (ViT-B/16 has 12 such layers), with a tiny model's shapes.
LAYER = {
    "LayerNorm_0/scale": (8,),
    "LayerNorm_0/bias": (8,),
    "LayerNorm_2/scale": (8,),
    "LayerNorm_2/bias": (8,),
    "MlpBlock_3/Dense_0/kernel": (8, 16),
    "MlpBlock_3/Dense_0/bias": (16,),
    "MlpBlock_3/Dense_1/kernel": (16, 8),
    "MlpBlock_3/Dense_1/bias": (8,),
    "MultiHeadDotProductAttention_1/query/kernel": (8, 2, 4),
    "MultiHeadDotProductAttention_1/query/bias": (2, 4),
    "MultiHeadDotProductAttention_1/key/kernel": (8, 2, 4),
    "MultiHeadDotProductAttention_1/key/bias": (2, 4),
    "MultiHeadDotProductAttention_1/value/kernel": (8, 2, 4),
    "MultiHeadDotProductAttention_1/value/bias": (2, 4),
    "MultiHeadDotProductAttention_1/out/kernel": (2, 4, 8),
    "MultiHeadDotProductAttention_1/out/bias": (8,),
}
PUBLISHED = {
    "cls": (1, 1, 8),
    "embedding/kernel": (4, 4, 3, 8),
    "embedding/bias": (8,),
    "Transformer/posembed_input/pos_embedding": (1, 5, 8),
    "Transformer/encoder_norm/scale": (8,),
    "Transformer/encoder_norm/bias": (8,),
    "pre_logits/kernel": (8, 6),
    "pre_logits/bias": (6,),
    "head/kernel": (6, 7),
    "head/bias": (7,),
    **{
        f"Transformer/encoderblock_{layer}/{name}": shape
        for layer in range(2)
        for name, shape in LAYER.items()
    },
}
MODEL = {**TINY, "pool": "cls", "num_classes": 7, "representation_dim": 6}
SINCE_LINEN = {
    "LayerNorm_2": "LayerNorm_1",
    "MlpBlock_3": "MlpBlock_0",
    "MultiHeadDotProductAttention_1": "MultiHeadDotProductAttention_0",
}


def published(seed=0):
    return {name: np.asarray(normal(*shape, seed=seed)) for name, shape in PUBLISHED.items()}


def vit(size=(8, 8), channels=3, **settings):
    """(model, shapes of its parameters)"""
    model = models.build("vit", **{**MODEL, **settings})
    image = jax.ShapeDtypeStruct((1, *size, channels), np.float32)
    return model, jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def load(arrays, shapes, **settings):
    return mapping.to_ours(google.TABLE, arrays, target_shapes=shapes, **settings)


def test_every_published_name_has_its_place_and_comes_back(tmp_path):
    arrays = published()
    files.write_npz(tmp_path / "ViT.npz", arrays)
    model, shapes = vit()
    params, report = load(files.read_arrays(tmp_path / "ViT.npz"), shapes)
    assert {leaf.status for leaf in report.check().leaves} == {"loaded"}
    back = mapping.to_theirs(google.TABLE, params)
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].tobytes() == array.tobytes(), name
    assert model.apply({"params": params}, normal(2, 8, 8, 3)).logits.shape == (2, 7)


def test_our_own_parameters_come_back():
    _, shapes = vit()
    params = random_like(shapes)
    arrays = mapping.to_theirs(google.TABLE, params)
    assert {name: array.shape for name, array in arrays.items()} == PUBLISHED
    again, _ = load(arrays, shapes)
    jax.tree.map(np.testing.assert_array_equal, again, params)


def layer_norm(x, scale, bias):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale + bias


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def forward(w, image):
    """arXiv:2010.11929, equations 1-4, on their arrays under their names, in NumPy."""
    b = len(image)
    patches = [image[:, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    x = np.einsum("nbpqC,pqCc->bnc", patches, w["embedding/kernel"]) + w["embedding/bias"]
    x = np.concatenate([np.repeat(w["cls"], b, 0), x], 1)
    x = x + w["Transformer/posembed_input/pos_embedding"]
    for layer in range(2):
        name = f"Transformer/encoderblock_{layer}"

        def pair(module, a="kernel", b="bias", name=name):
            return w[f"{name}/{module}/{a}"], w[f"{name}/{module}/{b}"]

        def project(x, module):
            kernel, bias = pair(f"MultiHeadDotProductAttention_1/{module}")
            return np.einsum("bnc,chd->bhnd", x, kernel) + bias[:, None]

        y = layer_norm(x, *pair("LayerNorm_0", "scale"))
        q, k, v = (project(y, module) for module in ("query", "key", "value"))
        scores = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]))
        y = scores / scores.sum(-1, keepdims=True) @ v
        kernel, bias = pair("MultiHeadDotProductAttention_1/out")
        x = x + np.einsum("bhnd,hdc->bnc", y, kernel) + bias
        y = layer_norm(x, *pair("LayerNorm_2", "scale"))
        (up, up_bias), (down, down_bias) = pair("MlpBlock_3/Dense_0"), pair("MlpBlock_3/Dense_1")
        x = x + gelu(y @ up + up_bias) @ down + down_bias
    norm = "Transformer/encoder_norm"
    x = layer_norm(x, w[f"{norm}/scale"], w[f"{norm}/bias"])[:, 0]
    x = np.tanh(x @ w["pre_logits/kernel"] + w["pre_logits/bias"])
    return x @ w["head/kernel"] + w["head/bias"]


def test_logits_are_those_of_the_papers_equations():
    arrays = {name: 0.3 * array for name, array in published().items()}
    model, shapes = vit()
    params, _ = load(arrays, shapes)
    image = normal(2, 8, 8, 3, seed=9)
    found = model.apply({"params": params}, image).logits
    np.testing.assert_allclose(found, forward(arrays, np.asarray(image)), atol=1e-4)


@pytest.mark.reference
@pytest.mark.parametrize("size, grid", [(8, (2, 2)), (12, (3, 3))])
def test_timm_reads_what_we_write_and_agrees(tmp_path, size, grid):
    """Its own reader of these files, which nobody here has written."""
    timm, torch = load_timm(), load_torch()
    model, shapes = vit(representation_dim=None)
    params = random_like(shapes)
    files.write_npz(tmp_path / "a.npz", mapping.to_theirs(google.TABLE, params))
    sizes = dict(img_size=size, patch_size=4, embed_dim=8, depth=2, num_heads=2, mlp_ratio=2)
    make = timm.models.vision_transformer.VisionTransformer
    theirs = make(**sizes, num_classes=7, act_layer="gelu_tanh").eval()
    theirs.load_pretrained(str(tmp_path / "a.npz"))
    # timm resizes the positions of these files so, and not as the original code does.
    adapted = adapters(new_grid=grid, num_prefix=1, method="bilinear")
    _, shapes = vit((size, size), representation_dim=None)
    params, _ = load(files.read_arrays(tmp_path / "a.npz"), shapes, adapters=adapted)
    image = normal(2, size, size, 3, seed=9)
    with torch.no_grad():
        expected = theirs(torch.tensor(np.asarray(image)).permute(0, 3, 1, 2)).numpy()
    found = model.apply({"params": params}, image).logits
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_names_since_linen_are_the_same_weights():
    _, shapes = vit()
    expected, _ = load(published(), shapes)
    renamed = published()
    for old, new in SINCE_LINEN.items():
        renamed = {name.replace(old, new): array for name, array in renamed.items()}
    assert renamed.keys() != PUBLISHED.keys()
    params, report = load(renamed, shapes)
    report.check()
    jax.tree.map(np.testing.assert_array_equal, params, expected)


@pytest.mark.parametrize("size, grid", [((16, 8), (4, 2)), ((12, 20), (3, 5))])
def test_another_resolution_resizes_positions_as_the_original_code(size, grid):
    _, shapes = vit(size)
    arrays = published()
    adapted = adapters(new_grid=grid, num_prefix=1)
    params, report = load(arrays, shapes, adapters=adapted)
    assert [leaf.name for leaf in report.check().of("resized")] == ["position_embedding"]
    theirs = arrays["Transformer/posembed_input/pos_embedding"]
    expected = resize.resize_positions(
        theirs, old_grid=(2, 2), new_grid=grid, num_prefix=1, method="zoom", antialias=False
    )
    np.testing.assert_array_equal(params["position_embedding"], expected)


def test_another_patch_size_and_number_of_channels():
    _, shapes = vit((12, 12), channels=1, patch_size=6)
    adapted = adapters(new_grid=(2, 2), num_prefix=1)
    params, report = load(published(), shapes, adapters=adapted)
    assert [leaf.name for leaf in report.check().of("resized")] == ["patch_embedding/kernel"]
    assert params["patch_embedding"]["kernel"].shape == (6, 6, 1, 8)


def test_another_model_is_refused_with_both_shapes():
    _, shapes = vit(width=16)
    adapted = adapters(new_grid=(2, 2), num_prefix=1)
    _, report = load(published(), shapes, adapters=adapted)
    with pytest.raises(InputError, match="class_token 1x1x16 from cls 1x1x8"):
        report.check()


def test_a_new_task_leaves_their_head_out_and_says_so():
    _, shapes = vit(num_classes=3, representation_dim=None)
    arrays = published()
    _, report = load(arrays, shapes)
    assert {leaf.name for leaf in report.unexplained} == {
        "head/kernel",
        "head/bias",
        "pre_logits/kernel",
        "pre_logits/bias",
    }
    settings = dict(
        initialised={"head/.*": "another task"}, ignored={"pre_logits/.*": "not in this model"}
    )
    params, report = load(arrays, shapes, **settings)
    report.check()
    initial = random_like(shapes)
    merged = mapping.merge(initial, params)
    assert jnp.array_equal(merged["head"]["kernel"], initial["head"]["kernel"])
    assert jax.tree.structure(merged) == jax.tree.structure(initial)
