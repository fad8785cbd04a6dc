"""The ViT: published sizes, stable parameter names, and an independent forward pass in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import assert_trees_equal, normal, random_like

from vit_jax import models
from vit_jax.analysis.cost import count_parameters
from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.layers.stem import STRIDES
from vit_jax.models import vit
from vit_jax.train.patterns import path_of

TINY = dict(num_classes=5, patch_size=4, width=8, depth=2, mlp_dim=12, num_heads=2, unroll=1)


def abstract_params(model, image_shape=(8, 8, 3)):
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(model.init, jax.random.key(0), image)["params"]


@functools.cache
def build_and_fill(image_shape=(8, 8, 3), mutable=False, **settings):
    """A tiny model's jitted apply, and parameters that are all random."""
    model = vit.build(**{**TINY, **settings})
    params = random_like(abstract_params(model, image_shape))
    return jax.jit(functools.partial(model.apply, {"params": params}, mutable=mutable)), params


# sizes


@pytest.mark.parametrize(
    "size, patch_size, at_224, at_384",
    [
        ("Ti", 16, 5_717_416, 5_790_376),
        ("S", 16, 22_050_664, 22_196_584),
        ("S", 32, 22_878_952, 22_915_432),
        ("B", 16, 86_567_656, 86_859_496),
        ("B", 32, 88_224_232, 88_297_192),
        ("L", 16, 304_326_632, 304_715_752),
        ("L", 32, 306_535_400, 306_632_680),
        ("H", 14, 632_045_800, None),
    ],
)
def test_parameter_counts_are_the_published_ones(size, patch_size, at_224, at_384):
    """Class token, learned positions, 1,000 classes, no pre-logits; as timm's tables have it."""
    model = vit.build(size=size, patch_size=patch_size, num_classes=1000, unroll=1)
    assert count_parameters(abstract_params(model, (224, 224, 3))) == at_224
    if at_384:
        assert count_parameters(abstract_params(model, (384, 384, 3))) == at_384


@pytest.mark.parametrize(
    "size, patch_size, count",
    [("B", 16, 85_798_656), ("L", 16, 303_301_632), ("H", 14, 630_764_800)],
)
def test_without_a_head_only_the_backbone_counts(size, patch_size, count):
    model = vit.build(size=size, patch_size=patch_size, num_classes=0, unroll=1)
    assert count_parameters(abstract_params(model, (224, 224, 3))) == count
    assert build_and_fill(num_classes=0)[0](normal(1, 8, 8, 3)).logits is None


def test_small_model_of_big_vision_has_its_count():
    """sincos2d positions, average pooling, linear head."""
    model = vit.build(
        size="S",
        patch_size=16,
        num_classes=1000,
        pool="gap",
        position_embedding="sincos2d",
        unroll=1,
    )
    assert count_parameters(abstract_params(model, (224, 224, 3))) == 21_974_632


def test_single_entries_of_a_named_size_can_be_replaced():
    model = vit.build(size="B", depth=3, num_classes=10, patch_size=16)
    assert (model.width, model.depth) == (768, 3)
    assert (model.block.mlp_dim, model.block.num_heads) == (3072, 12)


# names

BLOCK = {
    "attention/key/bias": (2, 2, 4),
    "attention/key/kernel": (2, 8, 2, 4),  # (depth, width, heads, head_dim)
    "attention/out/bias": (2, 8),
    "attention/out/kernel": (2, 2, 4, 8),
    "attention/query/bias": (2, 2, 4),
    "attention/query/kernel": (2, 8, 2, 4),
    "attention/value/bias": (2, 2, 4),
    "attention/value/kernel": (2, 8, 2, 4),
    "attention_norm/bias": (2, 8),
    "attention_norm/scale": (2, 8),
    "mlp/down/bias": (2, 8),
    "mlp/down/kernel": (2, 12, 8),
    "mlp/up/bias": (2, 12),
    "mlp/up/kernel": (2, 8, 12),
    "mlp_norm/bias": (2, 8),
    "mlp_norm/scale": (2, 8),
}
COMMON = {
    **{f"encoder/blocks/{name}": shape for name, shape in BLOCK.items()},
    "encoder/norm/bias": (8,),
    "encoder/norm/scale": (8,),
    "patch_embedding/bias": (8,),
    "patch_embedding/kernel": (4, 4, 3, 8),
}
CLS = {
    "class_token": (1, 1, 8),
    "position_embedding": (1, 5, 8),
    "representation/bias": (6,),
    "representation/kernel": (8, 6),
    "head/bias": (5,),
    "head/kernel": (6, 5),
}
MAP = {
    "head/bias": (5,),
    "head/kernel": (8, 5),
    "pool/probe": (1, 1, 8),
    "pool/norm/bias": (8,),
    "pool/norm/scale": (8,),
    "pool/mlp/down/bias": (8,),
    "pool/mlp/down/kernel": (12, 8),
    "pool/mlp/up/bias": (12,),
    "pool/mlp/up/kernel": (8, 12),
    **{f"pool/attention/{name}/bias": (2, 4) for name in ("query", "key", "value")},
    **{f"pool/attention/{name}/kernel": (8, 2, 4) for name in ("query", "key", "value")},
    "pool/attention/out/bias": (8,),
    "pool/attention/out/kernel": (2, 4, 8),
}


@pytest.mark.parametrize(
    "settings, own",
    [(dict(representation_dim=6), CLS), (dict(pool="map", position_embedding="sincos2d"), MAP)],
)
@pytest.mark.parametrize("layout", [dict(unroll=1), dict(unroll=2), dict(remat="full")])
def test_parameter_names_and_shapes_are_the_documented_ones(settings, own, layout):
    """Checkpoints outlive code: a changed name or axis here breaks every one ever written."""
    params = abstract_params(vit.build(**{**TINY, **settings, **layout}))
    leaves = jax.tree_util.tree_leaves_with_path(params)
    assert {path_of(path): leaf.shape for path, leaf in leaves} == COMMON | own


# the whole forward pass, independently


def forward_in_numpy(params, image, patch, heads):
    """Arxiv:2010.11929, equations 1-4, in float64 with loops over layers and heads."""
    params = jax.tree.map(lambda p: np.asarray(p, np.float64), params)

    def norm(x, p):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-6) * p["scale"] + p["bias"]

    def attention(x, p):
        outs = np.zeros_like(x) + p["out"]["bias"]
        for h in range(heads):
            q, k, v = (
                x @ p[name]["kernel"][:, h] + p[name]["bias"][h]
                for name in ("query", "key", "value")
            )
            scores = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            weights /= weights.sum(-1, keepdims=True)
            outs += weights @ v @ p["out"]["kernel"][h]
        return outs

    def mlp(x, p):
        x = x @ p["up"]["kernel"] + p["up"]["bias"]
        x = x * 0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
        return x @ p["down"]["kernel"] + p["down"]["bias"]

    patches = []
    for top in range(0, image.shape[1], patch[0]):
        for left in range(0, image.shape[2], patch[1]):
            cut = image[:, top : top + patch[0], left : left + patch[1]]
            kernel = params["patch_embedding"]["kernel"]
            patches.append(np.einsum("bpqc,pqcd->bd", cut, kernel))
    x = np.stack(patches, 1) + params["patch_embedding"]["bias"]
    x = np.concatenate([np.repeat(params["class_token"], len(x), 0), x], 1)
    x += params["position_embedding"]
    tokens = []
    blocks = params["encoder"]["blocks"]
    for i in range(len(blocks["mlp_norm"]["scale"])):
        p = jax.tree.map(lambda leaf, i=i: leaf[i], blocks)
        x = x + attention(norm(x, p["attention_norm"]), p["attention"])
        x = x + mlp(norm(x, p["mlp_norm"]), p["mlp"])
        tokens.append(x)
    final = norm(x, params["encoder"]["norm"])
    hidden, head = params["representation"], params["head"]
    representation = np.tanh(final[:, 0] @ hidden["kernel"] + hidden["bias"])
    return tokens, final, representation, representation @ head["kernel"] + head["bias"]


def assert_relatively_close(found, expected):
    """1e-5 of the largest value: 80 times float32's rounding of it."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


def test_equals_an_independent_forward_pass_layer_by_layer():
    settings = dict(patch_size=(2, 3), depth=3, width=12, num_heads=3, representation_dim=6)
    image = normal(2, 6, 12, 3)
    apply, params = build_and_fill((6, 12, 3), "intermediates", **settings)
    output, collections = apply(image)
    tokens, final, representation, logits = forward_in_numpy(params, image, (2, 3), heads=3)
    (found,) = collections["intermediates"]["encoder"]["blocks"]["tokens"]
    assert_relatively_close(found, tokens)
    assert_relatively_close(output.tokens, final)
    assert_relatively_close(output.representation, representation)
    assert_relatively_close(output.logits, logits)


# poolings, positions, shapes


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("position_embedding", vit.POSITIONS)
@pytest.mark.parametrize("pool", vit.POOLS)
def test_every_pool_and_position_takes_rectangles_of_any_channels(
    pool, position_embedding, channels
):
    model = vit.build(**TINY, pool=pool, position_embedding=position_embedding)
    image = jax.ShapeDtypeStruct((2, 8, 12, channels), jnp.float32)  # two patches by three
    output, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
    assert output.tokens.shape == (2, 6 + (pool in ("cls", "cls_gap")), 8)
    assert output.representation.shape == (2, 16 if pool == "cls_gap" else 8)
    assert output.logits.shape == (2, 5)


@pytest.mark.parametrize(
    "pool, position_embedding", [("cls", "learned"), ("gap", "sincos2d"), ("map", "sincos1d")]
)
def test_logits_start_as_the_head_bias(pool, position_embedding):
    model = vit.build(**TINY, pool=pool, position_embedding=position_embedding, head_bias=-3.5)
    output, _ = jax.jit(model.init_with_output)(jax.random.key(0), normal(2, 8, 12, 3))
    np.testing.assert_array_equal(output.logits, np.full((2, 5), -3.5))
    assert np.isfinite(output.tokens).all() and output.representation.any()


@pytest.mark.parametrize(
    "pool, position_embedding",
    [("cls", "learned"), ("gap", "learned"), ("gap", "sincos1d"), ("gap", "sincos2d")],
)
def test_positions_tell_patches_apart_and_none_does_not(pool, position_embedding):
    image = normal(1, 4, 12, 3)
    turned = image.reshape(1, 4, 3, 4, 3)[:, :, ::-1].reshape(image.shape)
    apply, _ = build_and_fill((4, 12, 3), pool=pool, position_embedding=position_embedding)
    assert not np.allclose(apply(image).logits, apply(turned).logits, atol=1e-2)
    blind, _ = build_and_fill((4, 12, 3), pool=pool, position_embedding="none")
    np.testing.assert_allclose(blind(image).logits, blind(turned).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "pool, position_embedding",
    [("cls", "none"), ("gap", "none"), ("map", "none"), ("gap", "sincos2d")],
)
def test_masked_patches_have_no_influence(pool, position_embedding):
    """Hiding the last row of patches equals the model on the image without that row."""
    image = normal(2, 12, 8, 3).at[:, 8:].set(1e3)
    mask = jnp.asarray(np.arange(6) < 4)[None].repeat(2, 0)
    apply, _ = build_and_fill((12, 8, 3), pool=pool, position_embedding=position_embedding)
    masked, cropped = apply(image, mask=mask), apply(image[:, :8])
    n = cropped.tokens.shape[1]
    np.testing.assert_allclose(masked.tokens[:, :n], cropped.tokens, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(masked.representation, cropped.representation, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(masked.logits, cropped.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", vit.POOLS)
def test_masks_differ_between_the_examples_of_a_batch(pool):
    image = normal(2, 8, 8, 3)
    mask = jnp.array([[True, False, True, True], [False, True, False, True]])
    apply, _ = build_and_fill(pool=pool, position_embedding="none")
    together = apply(image, mask=mask).logits
    alone = [apply(image[i : i + 1], mask=mask[i : i + 1]).logits[0] for i in range(2)]
    np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-5)
    assert not np.allclose(together, apply(image).logits, atol=1e-2)


def test_pools_read_what_they_say():
    image = normal(2, 8, 8, 3)
    output = build_and_fill(pool="gap")[0](image)
    np.testing.assert_allclose(output.representation, output.tokens.mean(1), rtol=1e-5, atol=1e-6)
    output = build_and_fill(pool="cls")[0](image)
    np.testing.assert_array_equal(output.representation, output.tokens[:, 0])


def test_representation_layer_is_a_dense_tanh():
    apply, params = build_and_fill(pool="gap", representation_dim=6)
    output = apply(normal(2, 8, 8, 3))
    layer = params["representation"]
    expected = np.tanh(output.tokens.mean(1) @ layer["kernel"] + layer["bias"])
    np.testing.assert_allclose(output.representation, expected, rtol=1e-5, atol=1e-6)


# dtypes


@pytest.mark.parametrize("pool", vit.POOLS)
def test_bfloat16_computes_close_to_float32_with_float32_parameters_and_logits(pool):
    settings = dict(pool=pool, representation_dim=6)
    exact_apply, params = build_and_fill(**settings)
    rough_apply, rough_params = build_and_fill(dtype="bfloat16", **settings)
    assert {p.dtype for p in jax.tree.leaves(rough_params)} == {jnp.dtype("float32")}
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(rough_params), strict=True):
        assert (a == b).all()
    image = normal(4, 8, 8, 3)
    rough, exact = rough_apply(image), exact_apply(image)
    assert rough.tokens.dtype == rough.representation.dtype == jnp.bfloat16
    assert rough.logits.dtype == jnp.float32
    # Some twenty roundings of 2^-9 in a row, most of which average out.
    error = jnp.linalg.norm(rough.logits - exact.logits) / jnp.linalg.norm(exact.logits)
    assert 0 < error < 0.04


# settings


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(size="XL"), "size is 'XL'.*allowed: Ti, S, B, L, So400m, H, g, G"),
        (dict(size="b"), "size is 'b'.*allowed: Ti, S, B"),
        (dict(pool="max"), "pool is 'max'.*allowed: cls, gap, map, cls_gap"),
        (
            dict(position_embedding="learnt"),
            "position_embedding is 'learnt'.*'learned'.*: learned, learned2d, relative, sincos1d, ",
        ),
        (dict(dtype="float16"), "dtype is 'float16'.*allowed: float32, bfloat16"),
        (dict(width=None), "no size named.*lacks width; allowed keys: width, depth"),
        (dict(depth=None, num_heads=None), "lacks depth, num_heads"),
        (dict(dropout_rate=1.0), "dropout_rate is 1.0; allowed: 0 or more, less than 1"),
        (dict(drop_path_rate=-0.1), "drop_path_rate is -0.1; allowed: 0 or more, less than 1"),
        (dict(num_heads=0), "num_heads is 0; allowed: 1 or more"),
        (dict(depth=0), "depth is 0; allowed: 1 or more"),
        (dict(patch_size=0), "patch_size is 0; allowed: 1 or more"),
        (dict(patch_size=(4, -1)), "patch_size is -1; allowed: 1 or more"),
    ],
)
def test_mistaken_settings_are_told_with_what_is_allowed(settings, message):
    with pytest.raises(InputError, match=message):
        vit.build(**{**TINY, **settings})


def test_models_are_built_by_name_and_refuse_unknown_keys():
    assert models.build("vit", **TINY) == vit.build(**TINY)
    with pytest.raises(InputError, match=r"name is 'vitt' \(did you mean 'vit'\?\)"):
        models.build("vitt", **TINY)
    with pytest.raises(InputError, match=r"unknown key 'poool' \(did you mean 'pool'\?\)"):
        models.build("vit", **TINY, poool="gap")


def test_layers_are_unrolled_unless_told_otherwise():
    assert vit.build(**{**TINY, "unroll": None}).unroll == TINY["depth"]
    assert vit.build(**TINY).unroll == 1


# stems


@pytest.mark.parametrize("stem, stride", STRIDES.items())
def test_stems_reduce_by_their_stride_and_the_grid_is_known_beforehand(stem, stride):
    model = vit.build(**{**TINY, "patch_size": 1, "pool": "gap"}, stem=stem)
    for size in ((64, 96), (50, 65)):  # sides that do not divide are rounded up
        image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
        output, variables = jax.eval_shape(model.init_with_output, jax.random.key(0), image)
        grid = tuple(-(-side // stride) for side in size)
        assert model.grid(size) == grid and output.tokens.shape[1] == grid[0] * grid[1]
        assert ("batch_stats" in variables) == stem.startswith("conv")


@pytest.mark.parametrize(
    "size, stem, patch_size, millions",
    [
        ("B", "resnet50_stride16", 1, 98.95),
        ("S", "resnet26", 1, 36.47),
        ("Ti", "resnet_root", 8, 6.36),
    ],
)
def test_hybrids_have_their_published_counts_at_384_pixels(size, stem, patch_size, millions):
    """As timm's results table rounds them; test_parity_resnet.py counts to the last one."""
    model = vit.build(size=size, patch_size=patch_size, stem=stem, num_classes=1000, unroll=1)
    count = count_parameters(abstract_params(model, (384, 384, 3)))
    assert round(count / 1e6, 2) == millions


# tokens in front, and where norms and positions go


def test_names_of_what_descendants_add():
    params = abstract_params(
        vit.build(
            **TINY,
            distillation_token=True,
            num_registers=3,
            prefix_positions=False,
            patch_norms=True,
            embedding_norm=True,
            final_norm="pooled",
            qk_norm=True,
            layer_scale=0.1,
            activation="swiglu",
        )
    )
    shapes = {path_of(p): leaf.shape for p, leaf in jax.tree_util.tree_leaves_with_path(params)}
    expected = {
        "class_token": (1, 1, 8),
        "distillation_token": (1, 1, 8),
        "registers": (1, 3, 8),
        "position_embedding": (1, 4, 8),
        "patch_embedding/input_norm/scale": (48,),
        "patch_embedding/output_norm/scale": (8,),
        "embedding_norm/scale": (8,),
        "pooled_norm/scale": (8,),
        "distillation_head/kernel": (8, 5),
        "encoder/blocks/attention/query_norm/scale": (2, 4),
        "encoder/blocks/attention/key_norm/bias": (2, 4),
        "encoder/blocks/attention_scale": (2, 8),
        "encoder/blocks/mlp_scale": (2, 8),
        "encoder/blocks/mlp/gate/kernel": (2, 8, 12),
    }
    assert {name: shapes.get(name) for name in expected} == expected
    assert "encoder/norm/scale" not in shapes


@pytest.mark.parametrize("pool, size", [("cls", 8), ("gap", 8), ("cls_gap", 16), ("map", 8)])
def test_pools_read_class_token_and_patches_but_no_registers(pool, size):
    settings = dict(pool=pool, class_token=True, num_registers=2)
    apply, _ = build_and_fill(**settings)
    output = apply(normal(2, 8, 8, 3))
    assert output.tokens.shape == (2, 1 + 2 + 4, 8) and output.representation.shape == (2, size)
    parts = dict(cls=output.tokens[:, 0], gap=output.tokens[:, 3:].mean(1))
    if pool in parts:
        np.testing.assert_allclose(output.representation, parts[pool], rtol=1e-5, atol=1e-6)
    if pool == "cls_gap":
        both = np.concatenate([parts["cls"], parts["gap"]], axis=-1)
        np.testing.assert_allclose(output.representation, both, rtol=1e-5, atol=1e-6)


def test_logits_of_a_distilled_model_are_the_mean_of_both_heads():
    apply, params = build_and_fill(distillation_token=True)
    output = apply(normal(2, 8, 8, 3))
    for index, name, logits in (
        (0, "head", output.class_logits),
        (1, "distillation_head", output.distillation_logits),
    ):
        expected = output.tokens[:, index] @ params[name]["kernel"] + params[name]["bias"]
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)
    mean = (output.class_logits + output.distillation_logits) / 2
    np.testing.assert_allclose(output.logits, mean, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_prefix_tokens_are_seen_by_patches_that_a_mask_leaves(pool):
    """Masked patches have no influence, and the tokens in front are never masked."""
    image = normal(1, 12, 8, 3).at[:, 8:].set(1e3)
    settings = dict(pool=pool, class_token=True, num_registers=2, position_embedding="none")
    apply, _ = build_and_fill((12, 8, 3), **settings)
    mask = jnp.asarray(np.arange(6) < 4)[None]
    found, expected = apply(image, mask=mask), apply(image[:, :8])
    np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.tokens[:, :7], expected.tokens, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pool", ["cls", "gap"])
def test_norm_after_pooling_normalises_what_is_pooled(pool):
    apply, params = build_and_fill(pool=pool, final_norm="pooled")
    output = apply(normal(2, 8, 8, 3))
    pooled = output.tokens[:, 0] if pool == "cls" else output.tokens.mean(1)
    centred = pooled - pooled.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = scaled * params["pooled_norm"]["scale"] + params["pooled_norm"]["bias"]
    np.testing.assert_allclose(output.representation, expected, rtol=1e-4, atol=1e-5)


def test_rotated_model_tells_places_apart_at_any_grid():
    apply, _ = build_and_fill((4, 12, 3), pool="gap", position_embedding="rope")
    image = normal(1, 4, 12, 3)
    turned = image.reshape(1, 4, 3, 4, 3)[:, :, ::-1].reshape(image.shape)
    assert not np.allclose(apply(image).logits, apply(turned).logits, atol=1e-2)
    assert apply(normal(1, 8, 16, 3)).tokens.shape == (1, 8, 8)  # no parameter is tied to the grid


def test_head_without_bias_has_none():
    params = abstract_params(vit.build(**TINY, head_bias=None))
    assert set(params["head"]) == {"kernel"}


def test_class_token_that_is_read_cannot_be_left_out():
    for settings in (dict(pool="cls"), dict(pool="gap", distillation_token=True)):
        with pytest.raises(
            InputError, match="class_token is False, but .* need one; allowed: True"
        ):
            vit.build(**TINY, class_token=False, **settings)


# FlexiViT


def test_one_set_of_parameters_serves_patches_and_images_of_any_size():
    """Larger patches of an enlarged image have the tokens of the small ones (same positions)."""
    flexible = dict(kernel_size=4, position_grid=(2, 3), pool="cls")
    apply, params = build_and_fill((8, 12, 3), **flexible)
    assert params["patch_embedding"]["kernel"].shape == (4, 4, 3, 8)
    assert params["position_embedding"].shape == (1, 7, 8)
    plain, plain_params = build_and_fill((8, 12, 3), pool="cls")
    assert_trees_equal(params, plain_params)
    image = normal(2, 8, 12, 3)
    np.testing.assert_array_equal(apply(image).logits, plain(image).logits)
    larger = vit.build(**{**TINY, "patch_size": 8}, **flexible)
    rows, columns = (
        np.kron(np.eye(count), resize.resample_matrix(4, 8, method="bilinear", antialias=False))
        for count in (2, 3)
    )
    enlarged = jnp.einsum("Hh,Ww,bhwc->bHWc", rows, columns, image).astype(jnp.float32)
    found = larger.apply({"params": params}, enlarged)
    np.testing.assert_allclose(found.tokens, apply(image).tokens, rtol=1e-4, atol=1e-4)
    other = larger.apply({"params": params}, normal(1, 24, 40, 3))  # another grid: 3 by 5
    assert other.tokens.shape == (1, 16, 8)


@pytest.mark.parametrize("kind", ["sincos2d", "rope", "relative", "none"])
def test_a_grid_to_keep_positions_for_is_refused_where_none_are_kept(kind):
    with pytest.raises(InputError, match=f"{kind!r} keeps nothing.*allowed: None, or .*learned2d"):
        vit.build(**TINY, position_grid=(2, 3), position_embedding=kind)


def test_kept_positions_are_resized_to_the_grid_of_the_image():
    apply, params = build_and_fill((8, 12, 3), position_grid=(4, 4), pool="gap")
    plain = vit.build(**{**TINY, "pool": "gap"})
    positions = resize.resize_positions(
        params["position_embedding"], old_grid=(4, 4), new_grid=(2, 3), num_prefix=0
    )
    image = normal(1, 8, 12, 3)
    expected = plain.apply({"params": params | {"position_embedding": positions}}, image)
    np.testing.assert_allclose(apply(image).logits, expected.logits, rtol=1e-5, atol=1e-5)
