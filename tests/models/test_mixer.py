"""MLP-Mixer: published sizes, stable parameter names, and an independent NumPy pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import assert_trees_close, image_batch, new_state, normal, random_like

from vit_jax import models
from vit_jax.analysis.cost import count_parameters
from vit_jax.errors import InputError
from vit_jax.models import mixer
from vit_jax.tasks.classification import Classification
from vit_jax.train.patterns import path_of
from vit_jax.train.step import make_train_step

TINY = dict(
    num_classes=5, patch_size=4, width=8, depth=3, token_mlp_dim=6, channel_mlp_dim=10, unroll=1
)


def abstract_params(model, image_shape=(8, 12, 3)):
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


def build_and_fill(**settings):
    """A tiny model's jitted apply, and parameters that are all random."""
    model = mixer.build(**{**TINY, **settings})
    params = random_like(abstract_params(model))
    return jax.jit(model.apply, static_argnames=("train", "mutable")), params


# sizes


@pytest.mark.parametrize(
    "size, patch_size, count",
    [
        ("S", 32, 19_104_624),
        ("S", 16, 18_528_264),
        ("B", 32, 60_293_428),
        ("B", 16, 59_880_472),
        ("L", 32, 206_939_264),
        ("L", 16, 208_196_168),
    ],
)
def test_parameter_counts_are_those_of_timm(size, patch_size, count):
    """At 224 pixels with 1,000 classes; `test_parity_mixer` counts timm's again."""
    model = mixer.build(size=size, patch_size=patch_size, num_classes=1000, unroll=1)
    assert count_parameters(abstract_params(model, (224, 224, 3))) == count


def test_huge_has_the_rounded_count_of_the_paper():
    """431 million in Table 1 of arXiv:2105.01601, which leaves out the head."""
    model = mixer.build(size="H", patch_size=14, num_classes=0, unroll=1)
    assert round(count_parameters(abstract_params(model, (224, 224, 3))) / 1e6) == 431


def test_single_entries_of_a_named_size_can_be_replaced():
    model = mixer.build(size="B", depth=3, num_classes=10, patch_size=16)
    assert (model.width, model.depth) == (768, 3)
    assert (model.token_mlp_dim, model.channel_mlp_dim) == (384, 3072)


# names

NAMES = {
    "blocks/channel_mlp/down/bias": (3, 8),
    "blocks/channel_mlp/down/kernel": (3, 10, 8),  # (depth, in, out)
    "blocks/channel_mlp/up/bias": (3, 10),
    "blocks/channel_mlp/up/kernel": (3, 8, 10),
    "blocks/channel_norm/bias": (3, 8),
    "blocks/channel_norm/scale": (3, 8),
    "blocks/token_mlp/down/bias": (3, 6),
    "blocks/token_mlp/down/kernel": (3, 6, 6),  # six tokens of an 8x12 image
    "blocks/token_mlp/up/bias": (3, 6),
    "blocks/token_mlp/up/kernel": (3, 6, 6),
    "blocks/token_norm/bias": (3, 8),
    "blocks/token_norm/scale": (3, 8),
    "head/bias": (5,),
    "head/kernel": (8, 5),
    "norm/bias": (8,),
    "norm/scale": (8,),
    "patch_embedding/bias": (8,),
    "patch_embedding/kernel": (4, 4, 3, 8),
}


@pytest.mark.parametrize("layout", [dict(unroll=1), dict(unroll=3), dict(remat="full")])
def test_parameter_names_and_shapes_are_the_documented_ones(layout):
    """Checkpoints outlive code: a changed name or axis here breaks every one ever written."""
    leaves = jax.tree_util.tree_leaves_with_path(abstract_params(mixer.build(**TINY | layout)))
    assert {path_of(path): leaf.shape for path, leaf in leaves} == NAMES


# the whole forward pass, independently


def forward_in_numpy(params, image, patch):
    """(tokens after each layer, tokens after the norm, logits) in float64, by loops."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def norm(x, p):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]

    def mlp(vector, p):
        x = vector @ p["up"]["kernel"] + p["up"]["bias"]
        x = x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x @ p["down"]["kernel"] + p["down"]["bias"]

    patches = []
    for top in range(0, image.shape[1], patch):
        for left in range(0, image.shape[2], patch):
            cut = image[:, top : top + patch, left : left + patch]
            patches.append(np.einsum("bpqc,pqcd->bd", cut, params["patch_embedding"]["kernel"]))
    x = np.stack(patches, 1) + params["patch_embedding"]["bias"]
    layers = []
    for i in range(len(params["blocks"]["token_norm"]["scale"])):
        p = jax.tree.map(lambda leaf, i=i: leaf[i], params["blocks"])
        normed = norm(x, p["token_norm"])
        for channel in range(x.shape[-1]):
            x[:, :, channel] += mlp(normed[:, :, channel], p["token_mlp"])
        normed = norm(x, p["channel_norm"])
        for token in range(x.shape[1]):
            x[:, token] += mlp(normed[:, token], p["channel_mlp"])
        layers.append(x.copy())
    final = norm(x, params["norm"])
    return layers, final, final.mean(1) @ params["head"]["kernel"] + params["head"]["bias"]


def assert_relatively_close(found, expected):
    """1e-5 of the largest value: 80 times float32's rounding of it."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("unroll", [1, 3])
def test_equals_an_independent_forward_pass_layer_by_layer(unroll):
    apply, params = build_and_fill(unroll=unroll)
    image = normal(2, 8, 12, 3)
    output, collections = apply({"params": params}, image, mutable="intermediates")
    layers, final, logits = forward_in_numpy(params, np.float64(image), 4)
    assert_relatively_close(collections["intermediates"]["blocks"]["tokens"][0], layers)
    assert_relatively_close(output.tokens, final)
    assert_relatively_close(output.representation, final.mean(1))
    assert_relatively_close(output.logits, logits)


def test_logits_start_as_the_head_bias_and_no_head_gives_none():
    model = mixer.build(**TINY, head_bias=-3.5)
    output, _ = jax.jit(model.init_with_output)(jax.random.key(0), normal(2, 8, 12, 3))
    np.testing.assert_array_equal(output.logits, np.full((2, 5), -3.5))
    assert output.representation.any()
    headless, params = build_and_fill(num_classes=0)
    assert headless({"params": params}, normal(1, 8, 12, 3)).logits is None
    assert "head" not in params


def test_bfloat16_computes_close_to_float32_with_float32_parameters_and_logits():
    exact, params = build_and_fill()
    rough, rough_params = build_and_fill(dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(rough_params)} == {jnp.dtype("float32")}
    image = normal(4, 8, 12, 3)
    a, b = (apply({"params": params}, image) for apply in (rough, exact))
    assert a.tokens.dtype == a.representation.dtype == jnp.bfloat16
    assert a.logits.dtype == jnp.float32
    assert 0 < jnp.linalg.norm(a.logits - b.logits) / jnp.linalg.norm(b.logits) < 0.04


# training


@functools.cache
def logits_and_gradients(**settings):
    apply, params = build_and_fill(drop_path_rate=0.5, **settings)
    image = normal(6, 8, 12, 3)

    def loss(params):
        rngs = {"dropout": jax.random.key(1)}
        logits = apply({"params": params}, image, train=True, rngs=rngs).logits
        return (logits * normal(6, 5, seed=1)).sum(), logits

    (_, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
    return logits, gradients


@pytest.mark.parametrize("settings", [dict(unroll=3), dict(remat="dots"), dict(remat="full")])
def test_unrolling_and_rematerialising_change_nothing(settings):
    """Neither the logits nor any gradient, with stochastic depth on."""
    assert_trees_close(
        logits_and_gradients(**settings), logits_and_gradients(), rtol=1e-4, atol=1e-4
    )


def test_stochastic_depth_drops_whole_branches_in_training_alone():
    apply, params = build_and_fill(drop_path_rate=0.999, depth=2)
    apply_all, _ = build_and_fill(depth=2)
    image = normal(2, 8, 12, 3)
    np.testing.assert_array_equal(
        apply({"params": params}, image).logits,
        apply_all({"params": params}, image).logits,
    )
    rngs = {"dropout": jax.random.key(0)}
    _, collections = apply(
        {"params": params}, image, train=True, rngs=rngs, mutable="intermediates"
    )
    first, last = collections["intermediates"]["blocks"]["tokens"][0]
    np.testing.assert_array_equal(first, last)  # the last layer's rate is the stated one
    layers, _, _ = forward_in_numpy(params, np.float64(image), 4)
    assert_relatively_close(first, layers[0])  # the first layer's is zero


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_one_training_step_of_classification_moves_every_parameter(dtype):
    settings = {**TINY, "num_classes": 7, "dtype": dtype, "drop_path_rate": 0.1}
    task = Classification(
        model=models.build("mixer", **settings), num_classes=7, mean=(0.5,), std=(0.25,)
    )
    batch, tx = image_batch(), optax.sgd(0.1)
    state = new_state(task, tx, batch)
    after, metrics = jax.jit(make_train_step(task, tx))(state, batch)
    assert np.isfinite(metrics["loss"].compute())
    pairs = zip(
        jax.tree_util.tree_leaves_with_path(state.params),
        jax.tree.leaves(after.params),
        strict=True,
    )
    for (path, a), b in pairs:
        # This bias shifts all channels of a token alike, which every later norm takes out.
        is_idle = path_of(path) == "blocks/token_mlp/down/bias"
        assert np.isfinite(b).all() and (is_idle or not np.array_equal(a, b)), path_of(path)


# settings


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(size="Ti"), "size is 'Ti'.*allowed: S, B, L, H"),
        (dict(width=None), "no size named.*lacks width; allowed keys: width, depth"),
        (dict(dtype="float16"), "dtype is 'float16'.*allowed: float32, bfloat16"),
        (dict(remat="some"), "remat is 'some'.*allowed: none, dots, full, offload"),
        (dict(remat="attention"), "remat is 'attention'.*allowed: none, dots, full, offload"),
        (dict(drop_path_rate=1.0), "drop_path_rate is 1.0; allowed: 0 or more, less than 1"),
        (dict(depth=0), "depth is 0; allowed: 1 or more"),
        (dict(unroll=0), "unroll is 0; allowed: 1 or more"),
        (dict(patch_size=(4, 0)), "patch_size is 0; allowed: 1 or more"),
        (dict(num_heads=2), "unknown key 'num_heads'.*; allowed keys: num_classes, patch_size"),
    ],
)
def test_mistaken_settings_are_told_with_what_is_allowed(settings, message):
    with pytest.raises(InputError, match=message):
        models.build("mixer", **{**TINY, **settings})
