"""Features of layers against the model's own output; components against scikit-learn."""

import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA
from toys import normal, random_like

from vit_jax import models
from vit_jax.analysis import features
from vit_jax.errors import InputError

IMAGE = (8, 12, 3)
SMALL = dict(num_classes=3, width=8, depth=3, mlp_dim=12, num_heads=2, patch_size=4, unroll=1)
MODELS = {
    "cls": dict(name="vit", **SMALL),
    "gap": dict(name="vit", pool="gap", num_registers=2, **SMALL),
    "mixer": dict(
        name="mixer",
        num_classes=3,
        patch_size=4,
        width=8,
        depth=3,
        token_mlp_dim=4,
        channel_mlp_dim=8,
        unroll=1,
    ),
    "resnet": dict(name="resnet", num_classes=3, stages=(1, 1), width_factor=0.5),
}


@functools.cache
def model_and_variables(name):
    settings = dict(MODELS[name])
    model = models.build(settings.pop("name"), **settings)
    image = jax.ShapeDtypeStruct((1, *IMAGE), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, {kind: random_like(tree) for kind, tree in variables.items()}


def layer_norm(x, params):
    x = x - x.mean(-1, keepdims=True)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


@pytest.mark.parametrize("name", MODELS)
def test_the_last_layer_leads_to_what_the_head_reads(name):
    model, variables = model_and_variables(name)
    images = normal(2, *IMAGE)
    every = features.layer_tokens(model, variables, images)
    assert len(every) == len(features.layer_names(model))
    last, params = every[-1], variables["params"]
    pooled = features.pooled_layers(model, variables, images)
    if name == "resnet":
        assert last.patches.shape == (2, 1, 2, 256) and last.prefix.shape[1] == 0
    else:
        assert last.patches.shape == (2, 2, 3, 8)
        norm = params["norm"] if name == "mixer" else params["encoder"]["norm"]
        tokens = last.prefix[:, 0] if name == "cls" else last.patches
        found = layer_norm(np.asarray(tokens, np.float64), norm)
        found = found if name == "cls" else found.mean(axis=(1, 2))
        # float32 against float64
        np.testing.assert_allclose(found, pooled.representation, rtol=1e-4, atol=1e-5)
    assert last.prefix.shape[1] == {"cls": 1, "gap": 3}.get(name, 0) - (name == "gap")
    for layer, tokens in zip(pooled.layers, every, strict=True):
        expected = np.asarray(tokens.patches).mean(axis=(1, 2))
        np.testing.assert_allclose(layer, expected, rtol=1e-4, atol=1e-5)


def test_layers_are_chosen_from_either_end():
    model, variables = model_and_variables("cls")
    images = normal(2, *IMAGE)
    every = features.layer_tokens(model, variables, images)
    some = features.layer_tokens(model, variables, images, layers=(-1, 0))
    for found, expected in zip(some, (every[2], every[0]), strict=True):
        np.testing.assert_allclose(found.patches, expected.patches, rtol=1e-6)
    for layer in (3, -4):
        with pytest.raises(InputError, match=f"layers has {layer}; allowed: -3 to 2"):
            features.layer_tokens(model, variables, images, layers=(layer,))
    with pytest.raises(InputError, match="layers is empty"):
        features.choose_layers(model, ())


@pytest.mark.parametrize("shape", [(30, 7), (5, 9)])
def test_components_equal_scikit_learns(shape):
    x = np.random.default_rng(0).normal(size=shape) * np.arange(1, shape[1] + 1) + 5
    found = features.principal_components(x, 4)
    expected = PCA(4, svd_solver="full").fit(x)
    np.testing.assert_allclose(found.directions, expected.components_, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.coordinates, expected.transform(x), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.explained, expected.explained_variance_ratio_, rtol=1e-7)
    with pytest.raises(InputError, match=f"allowed: 1 to {min(shape)}"):
        features.principal_components(x, min(shape) + 1)


def test_like_places_of_all_images_have_like_colours():
    """Four kinds of patches, each near its own point: four colours, whatever the image."""
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, 4, (3, 4, 5))
    centres = rng.normal(size=(4, 6))
    patches = centres[kinds] + rng.normal(0, 1e-3, (3, 4, 5, 6))
    found = features.feature_colours(patches)
    assert found.shape == (3, 4, 5, 3) and found.min() == 0 and found.max() == 1
    means = np.stack([found[kinds == k].mean(axis=0) for k in range(4)])
    for k in range(4):
        assert found[kinds == k].std(axis=0).max() < 0.01
        others = np.delete(means, k, axis=0)
        assert np.linalg.norm(others - means[k], axis=-1).min() > 0.2


def test_what_does_not_vary_is_grey():
    assert (features.feature_colours(np.ones((2, 3, 3, 5))) == 0.5).all()
    line = np.arange(18.0).reshape(2, 3, 3, 1) * np.ones(5)
    found = features.feature_colours(line)
    assert np.ptp(found[..., 0]) == 1 and (found[..., 1:] == 0.5).all()


def test_maps_keep_clusters_together_and_repeat():
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(3), 15)
    x = 20 * rng.normal(size=(3, 8))[kinds] + rng.normal(size=(45, 8))
    places = features.project(x, "tsne", seed=1)
    assert places.shape == (45, 2)
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    is_same = kinds[:, None] == kinds
    assert distances[is_same].max() < distances[~is_same].min()
    np.testing.assert_array_equal(places, features.project(x, "tsne", seed=1))


def test_umap_keeps_clusters_together():
    pytest.importorskip("umap", reason="the extra `umap` is not installed")
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(2), 20)
    x = 20 * rng.normal(size=(2, 8))[kinds] + rng.normal(size=(40, 8))
    places = features.project(x, "umap")
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    is_same = kinds[:, None] == kinds
    assert distances[is_same].max() < distances[~is_same].min()


def test_maps_refuse_what_they_cannot_do(monkeypatch):
    with pytest.raises(InputError, match="4 examples with 3 features; allowed: 5 or more"):
        features.project(np.ones((4, 3)), "tsne")
    with pytest.raises(InputError, match="9 examples with 1 features; .* 2 or more"):
        features.project(np.arange(9.0)[:, None], "tsne")
    with pytest.raises(InputError, match="method is 'tsnee'"):
        features.project(np.ones((9, 3)), "tsnee")
    monkeypatch.setitem(sys.modules, "umap", None)  # as if it were not installed
    with pytest.raises(InputError, match=r"umap-learn, which is not installed; allowed"):
        features.project(np.eye(9), "umap")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(bad):
    x = normal(2, 3, 3, 4)
    x = np.array(x)
    x[0, 1] = bad
    with pytest.raises(InputError, match="12 of 72 numbers that are not finite"):
        features.feature_colours(x)
    with pytest.raises(InputError, match="12 of 72 numbers that are not finite"):
        features.project(x.reshape(18, 4), "tsne")


@pytest.mark.parametrize("method", ["tsne", "umap"])
def test_what_does_not_vary_has_no_map(method):
    """Before it was refused, scikit-learn's t-SNE ended the process."""
    with pytest.raises(InputError, match="features of 20 examples are all the same"):
        features.project(np.full((20, 3), 0.1), method)


@pytest.mark.parametrize("scale, place", [(1e30, 0), (1e-30, 0), (1e-3, 1e6)])
def test_maps_ask_for_neither_scale_nor_place(scale, place):
    """Other places of the examples, as rounding differs, but in the same clusters."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(2), 6)
    x = 20 * rng.normal(size=(2, 4))[kinds] + rng.normal(size=(12, 4))
    places = features.project(scale * x + place, "tsne")
    assert np.isfinite(places).all()
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    is_same = kinds[:, None] == kinds
    assert distances[is_same].mean() < distances[~is_same].mean()
