"""Attention equals its definition, whatever computes it; a mask equals leaving keys out."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_params

from vit_jax.errors import InputError
from vit_jax.layers import attention
from vit_jax.layers.attention import MultiHeadAttention, attend, cudnn_attention
from vit_jax.layers.attention_choice import Choice, recorded_choices
from vit_jax.layers.position import rotation_2d

B, N, M, H, D = 2, 5, 6, 3, 4
KERNELS = ("dense", "xla", "pallas", "auto")


def tensors(seed=0):
    """Query [b, n, h, d]; key and value [b, m, h, d]."""
    shapes = [(B, N, H, D), (B, M, H, D), (B, M, H, D)]
    return [normal(*shape, seed=seed + i, scale=2) for i, shape in enumerate(shapes)]


def attend_by_loops(query, key, value, mask):
    """One weight at a time, in float64; mask[b, h, n, m] is False for hidden keys."""
    query, key, value = (np.asarray(x, np.float64) for x in (query, key, value))
    out = np.zeros((B, N, H, D))
    for b in range(B):
        for h in range(H):
            for n in range(N):
                seen = [m for m in range(M) if mask[b, h, n, m]]
                scores = [query[b, n, h] @ key[b, m, h] / np.sqrt(D) for m in seen]
                weights = np.exp(scores) / np.exp(scores).sum()
                out[b, n, h] = sum(w * value[b, m, h] for w, m in zip(weights, seen, strict=True))
    return out


@pytest.mark.parametrize("kernel", KERNELS)
def test_equals_naive_loops(kernel):
    found = attend(*tensors(), implementation=kernel)
    expected = attend_by_loops(*tensors(), np.ones((B, H, N, M), bool))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


MASKS = [(B, 1, 1, M), (B, 1, N, M), (B, H, N, M)]


@pytest.mark.parametrize(
    "kernel, shape",
    [*itertools.product(("dense", "xla", "auto"), MASKS), ("pallas", MASKS[0])],
)
def test_masked_equals_naive_loops_over_what_is_seen(kernel, shape):
    mask = np.random.default_rng(1).random(shape) < 0.6
    mask[..., 0] = True  # a query that sees nothing has no defined answer
    found = attend(*tensors(), mask=jnp.asarray(mask), implementation=kernel)
    expected = attend_by_loops(*tensors(), np.broadcast_to(mask, (B, H, N, M)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_masking_keys_equals_removing_them(kernel):
    query, key, value = tensors()
    keep = np.array([0, 2, 3])
    mask = jnp.asarray(np.isin(np.arange(M), keep))[None, None, None].repeat(B, 0)
    # What is hidden may be huge and must still have no influence at all.
    key = key.at[:, 1].mul(1e4)
    value = value.at[:, 1].set(1e30)
    np.testing.assert_allclose(
        attend(query, key, value, mask=mask, implementation=kernel),
        attend(query, key[:, keep], value[:, keep], implementation=kernel),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("kernel", ["dense", "xla"])
def test_large_scores_stay_finite(kernel):
    query, key, value = tensors()
    assert np.isfinite(attend(100 * query, 100 * key, value, implementation=kernel)).all()


def test_gradients_of_dense_and_library_agree():
    def loss(kernel, *inputs):
        return (attend(*inputs, implementation=kernel) ** 2).sum()

    dense, xla = (
        jax.jit(jax.grad(functools.partial(loss, kernel), argnums=(0, 1, 2)))(*tensors())
        for kernel in ("dense", "xla")
    )
    for a, b in zip(dense, xla, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", ["dense", "xla"])
def test_bfloat16_is_close_to_float32(kernel):
    exact = attend(*tensors())
    rough = attend(*(x.astype(jnp.bfloat16) for x in tensors()), implementation=kernel)
    assert rough.dtype == jnp.bfloat16
    # bfloat16 keeps 8 bits (relative step 2^-8). Scores reach about 10, so their rounding error
    # of 10·2^-9 shifts a weight by 2 %; weighted sums of values up to 6 are then off by 0.1.
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, atol=0.1)


@pytest.mark.parametrize("kernel", ["dense", "xla"])
def test_softmax_is_computed_in_float32_whatever_comes_in(kernel):
    """Rounding to bfloat16 before the exponential would be invisible in small cases."""
    inputs = [x.astype(jnp.bfloat16) for x in tensors()]
    program = str(jax.make_jaxpr(functools.partial(attend, implementation=kernel))(*inputs))
    exponentials = [
        line.split(":")[1].split("[")[0] for line in program.splitlines() if " exp " in line
    ]
    assert exponentials == ["f32"]


def test_unknown_kernel_lists_the_allowed():
    with pytest.raises(InputError, match="'flash'.*allowed: dense, xla, cudnn, pallas, auto"):
        attend(*tensors(), implementation="flash")


def test_cudnn_says_why_it_cannot():
    with pytest.raises(InputError, match="'cudnn', but the backend is 'cpu'; allowed: 'gpu'"):
        attend(*tensors(), implementation="cudnn")


def test_what_cudnn_itself_refuses_is_told_in_a_sentence():
    """Here, that it is not installed."""
    with pytest.raises(InputError, match="'cudnn', which says: .*; allowed here: 'xla'"):
        cudnn_attention(*tensors())


def test_auto_falls_back_where_cudnn_refuses_after_all(monkeypatch):
    monkeypatch.setattr(attention, "choose_attention", lambda **_: Choice("cudnn", "a rule"))
    with recorded_choices() as choices:
        found = attend(*tensors())
    assert [choice.name for choice in choices] == ["cudnn", "xla"]
    assert "which says" in choices[-1].reason
    np.testing.assert_array_equal(found, attend(*tensors(), implementation="xla"))


def test_pallas_refuses_masks_that_differ_between_queries():
    mask = jnp.ones((B, 1, N, M), bool)
    with pytest.raises(InputError, match=r"'pallas'.*\(2, 1, 5, 6\).*mask of keys"):
        attend(*tensors(), mask=mask, implementation="pallas")


# the layer


def layer_and_inputs(**settings):
    layer = MultiHeadAttention(num_heads=H, **settings)
    x, memory = normal(B, N, H * D, seed=1), normal(B, M, H * D, seed=2)
    return layer, random_params(layer, x), x, memory


@pytest.mark.parametrize("cross", [False, True])
def test_equals_flax_attention_with_the_same_parameters(cross):
    layer, params, x, memory = layer_and_inputs()
    inputs = (x, memory) if cross else (x,)
    mask = np.random.default_rng(5).random((B, 1, N, inputs[-1].shape[1])) < 0.6
    mask[..., 0] = True
    flax_layer = nn.MultiHeadDotProductAttention(num_heads=H)
    theirs = random_params(flax_layer, *inputs)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, theirs)
    np.testing.assert_allclose(
        layer.apply({"params": params}, *inputs, mask=jnp.asarray(mask)),
        jax.jit(flax_layer.apply)({"params": params}, *inputs, mask=mask),
        rtol=1e-5,
        atol=1e-5,
    )


def test_self_attention_is_attention_on_itself():
    layer, params, x, _ = layer_and_inputs()
    np.testing.assert_allclose(
        layer.apply({"params": params}, x), layer.apply({"params": params}, x, x), atol=1e-5
    )


def test_memory_gives_keys_and_values_and_x_the_queries():
    layer, params, x, memory = layer_and_inputs()
    out = layer.apply({"params": params}, x, memory)
    assert out.shape == x.shape
    shuffled = layer.apply({"params": params}, x, memory[:, ::-1])
    np.testing.assert_allclose(out, shuffled, atol=1e-5)  # keys have no order
    turned = layer.apply({"params": params}, x[:, ::-1], memory)
    np.testing.assert_allclose(out, turned[:, ::-1], atol=1e-5)  # queries keep theirs


def test_kernels_start_as_xavier_of_the_whole_matrix():
    """Variance 2 / (c + h·d), not that of a (c·h, d) matrix."""
    layer = MultiHeadAttention(num_heads=8)
    params = layer.init(jax.random.key(0), jnp.zeros((1, 1, 128)))["params"]
    for name in ("query", "key", "value", "out"):
        # 16,384 values: the sample's standard deviation is within 1 % or so of the law's.
        np.testing.assert_allclose(params[name]["kernel"].std(), np.sqrt(2 / 256), rtol=0.03)
        assert not params[name]["bias"].any()
    assert not np.allclose(params["query"]["kernel"], params["key"]["kernel"])


def test_width_must_be_a_multiple_of_the_heads():
    with pytest.raises(InputError, match="width is 10.*num_heads=3"):
        MultiHeadAttention(num_heads=3).init(jax.random.key(0), jnp.zeros((1, 2, 10)))


def test_bfloat16_layer_keeps_float32_parameters():
    layer, params, x, _ = layer_and_inputs()
    rough_layer = MultiHeadAttention(num_heads=H, dtype=jnp.bfloat16)
    rough_params = random_params(rough_layer, x)
    assert {p.dtype for p in jax.tree.leaves(rough_params)} == {jnp.dtype("float32")}
    rough = rough_layer.apply({"params": params}, x)
    exact = layer.apply({"params": params}, x)
    assert rough.dtype == jnp.bfloat16
    # Four roundings of 2^-9 each along the way, of sums of 12 products of order one.
    error = jnp.linalg.norm(rough.astype(jnp.float32) - exact) / jnp.linalg.norm(exact)
    assert error < 0.02


@pytest.mark.parametrize("biases", [(), ("query", "value"), ("key",)])
def test_missing_biases_are_biases_of_zero(biases):
    layer, params, x, _ = layer_and_inputs(biases=biases)
    assert {name for name in ("query", "key", "value") if "bias" in params[name]} == set(biases)
    zeros = {"bias": jnp.zeros((H, D))}
    whole = {name: {**zeros, **params[name]} if name != "out" else params[name] for name in params}
    expected = MultiHeadAttention(num_heads=H).apply({"params": whole}, x)
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-6, atol=1e-6)


def test_queries_and_keys_are_normalised_by_head():
    layer, params, x, _ = layer_and_inputs(qk_norm=True)

    def project(name):
        return jnp.einsum("bnc,chd->bnhd", x, params[name]["kernel"]) + params[name]["bias"]

    def norm(v, p):
        v = v - v.mean(-1, keepdims=True)
        v = v / jnp.sqrt((v**2).mean(-1, keepdims=True) + 1e-6)
        return v * p["scale"] + p["bias"]

    query, key = (norm(project(n), params[f"{n}_norm"]) for n in ("query", "key"))
    mixed = attend(query, key, project("value"))
    expected = jnp.einsum("bnhd,hdc->bnc", mixed, params["out"]["kernel"]) + params["out"]["bias"]
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-5)


def test_rotation_turns_queries_and_keys_before_they_meet():
    layer, params, x, _ = layer_and_inputs()
    turn = rotation_2d((1, N), D)
    query, key, value = (
        jnp.einsum("bnc,chd->bnhd", x, params[n]["kernel"]) + params[n]["bias"]
        for n in ("query", "key", "value")
    )
    mixed = attend(turn(query), turn(key), value)
    expected = jnp.einsum("bnhd,hdc->bnc", mixed, params["out"]["kernel"]) + params["out"]["bias"]
    found = layer.apply({"params": params}, x, rotation=turn)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert not np.allclose(found, layer.apply({"params": params}, x), atol=1e-2)
