"""The encoder equals a loop over its layers, however it is scanned; stochastic depth's law."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import assert_trees_close, normal, random_params

from vit_jax.errors import InputError
from vit_jax.layers.activations import ACTIVATIONS
from vit_jax.layers.attention import MultiHeadAttention
from vit_jax.layers.block import BlockSettings, Encoder, EncoderBlock, Mlp, drop_path

B, N, C, DEPTH = 3, 5, 8, 3
BLOCK = dict(mlp_dim=12, num_heads=2)
X = normal(B, N, C)


def make_encoder(*, dropout_rate=0.0, settings=None, **others):
    block = BlockSettings(**BLOCK, dropout_rate=dropout_rate, **(settings or {}))
    return Encoder(DEPTH, block, **others)


MASK = jnp.asarray(np.arange(N) < 4)[None, None, None].repeat(B, 0)
PARAMS = random_params(make_encoder(), X)


@functools.cache
def output_and_gradients(**settings):
    encoder = make_encoder(dropout_rate=0.2, drop_path_rate=0.5, **settings)

    def loss(params, x):
        y = encoder.apply(
            {"params": params}, x, mask=MASK, train=True, rngs={"dropout": jax.random.key(1)}
        )
        return (y * normal(B, N, C, seed=1)).sum(), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(PARAMS, X)
    return y, gradients


@pytest.mark.parametrize(
    "settings",
    [
        dict(unroll=DEPTH),
        dict(remat="dots"),
        dict(remat="attention"),
        dict(remat="offload"),
        dict(remat="full", unroll=DEPTH),
    ],
)
def test_unrolling_and_rematerialising_change_nothing(settings):
    """Neither the output nor any gradient, with dropout and stochastic depth on."""
    # The same sums in another order of compilation: a few float32 roundings.
    assert_trees_close(
        output_and_gradients(**settings), output_and_gradients(), rtol=1e-4, atol=1e-5
    )


def test_unknown_remat_lists_the_allowed():
    with pytest.raises(
        InputError, match="remat is 'some'.*allowed: none, dots, attention, full, offload"
    ):
        random_params(make_encoder(remat="some"), X)


def layer_norm(x, params):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    return scaled * params["scale"] + params["bias"]


def encode_by_loop(x, mask):
    """The tokens after each layer, and the encoder's output."""
    tokens = []
    for layer in range(DEPTH):
        params = jax.tree.map(lambda p, i=layer: p[i], PARAMS["blocks"])
        y = layer_norm(x, params["attention_norm"])
        x = x + MultiHeadAttention(2).apply({"params": params["attention"]}, y, mask=mask)
        y = layer_norm(x, params["mlp_norm"])
        x = x + Mlp(12).apply({"params": params["mlp"]}, y)
        tokens.append(x)
    return jnp.stack(tokens), layer_norm(x, PARAMS["norm"])


@pytest.mark.parametrize("remat", ["none", "full"])
@pytest.mark.parametrize("mask", [None, MASK])
def test_equals_a_loop_over_layers_with_slices_of_the_stacked_parameters(mask, remat):
    apply = jax.jit(functools.partial(make_encoder(remat=remat).apply, mutable="intermediates"))
    y, collections = apply({"params": PARAMS}, X, mask=mask)
    expected_tokens, expected = jax.jit(encode_by_loop)(X, mask)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    (tokens,) = collections["intermediates"]["blocks"]["tokens"]
    assert tokens.shape == (DEPTH, B, N, C)
    np.testing.assert_allclose(tokens, expected_tokens, rtol=1e-4, atol=1e-5)


def test_mlp_is_dense_tanh_gelu_dense():
    x = np.asarray(X, np.float64)
    mlp = Mlp(12)
    params = random_params(mlp, X)
    up, down = params["up"], params["down"]
    hidden = x @ np.asarray(up["kernel"], np.float64) + up["bias"]
    cubic = np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)
    hidden = 0.5 * hidden * (1 + np.tanh(cubic))
    expected = hidden @ np.asarray(down["kernel"], np.float64) + down["bias"]
    np.testing.assert_allclose(mlp.apply({"params": params}, X), expected, rtol=1e-5, atol=1e-5)


# stochastic depth

MANY = 4000


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_drop_path_zeroes_whole_examples_at_its_rate_and_keeps_the_mean(rate):
    branch = normal(MANY, 2, 3) + 5
    dropped = np.asarray(drop_path(branch, jnp.float32(rate), jax.random.key(0)))
    is_zero = (dropped == 0).reshape(MANY, -1)
    assert (is_zero.all(1) == is_zero.any(1)).all()
    kept = ~is_zero.all(1)
    np.testing.assert_allclose(dropped[kept], np.asarray(branch)[kept] / (1 - rate), rtol=1e-6)
    # Four standard deviations of a Bernoulli mean.
    deviation = 4 * np.sqrt(rate * (1 - rate) / MANY)
    assert abs(kept.mean() - (1 - rate)) < deviation
    assert abs(dropped.mean() / np.mean(branch) - 1) < 1.1 * deviation / (1 - rate)


def test_drop_path_keeps_the_dtype():
    dropped = drop_path(X.astype(jnp.bfloat16), jnp.float32(0.5), jax.random.key(0))
    assert dropped.dtype == jnp.bfloat16


@functools.cache
def encoder_with_tokens(train, **settings):
    encoder = make_encoder(**settings)
    apply = functools.partial(encoder.apply, train=train, mutable="intermediates")
    return jax.jit(lambda x, rng: apply({"params": PARAMS}, x, rngs={"dropout": rng}))


def encode(x, *, train, seed=0, **settings):
    """The output and the tokens before and after each layer, (depth + 1, b, n, c)."""
    y, collections = encoder_with_tokens(train, **settings)(x, jax.random.key(seed))
    (tokens,) = collections["intermediates"]["blocks"]["tokens"]
    return y, np.concatenate([np.asarray(x)[None], tokens])


def test_drop_path_rate_rises_linearly_from_zero_to_its_setting():
    """A block of rate r leaves an example as it is where both of its branches are dropped: r²."""
    _, tokens = encode(normal(MANY, 1, C), train=True, drop_path_rate=0.8)
    unchanged = (tokens[1:] == tokens[:-1]).all(axis=(2, 3)).mean(axis=1)
    # Four standard deviations; were both branches dropped together it would be r.
    np.testing.assert_allclose(unchanged, [0, 0.4**2, 0.8**2], atol=4 * 0.5 / np.sqrt(MANY))
    assert unchanged[0] == 0


def test_layers_drop_independently():
    _, tokens = encode(normal(MANY, 1, C), train=True, drop_path_rate=0.8)
    unchanged = (tokens[1:] == tokens[:-1]).all(axis=(2, 3))
    together = (unchanged[1] & unchanged[2]).mean()
    expected = unchanged[1].mean() * unchanged[2].mean()
    assert abs(together - expected) < 4 * 0.5 / np.sqrt(MANY)


@pytest.mark.parametrize("rate", ["dropout_rate", "drop_path_rate"])
def test_randomness_is_the_rngs_in_training_and_none_in_evaluation(rate):
    exact, _ = encode(X, train=False)
    first, again, other = (encode(X, train=True, seed=s, **{rate: 0.5})[0] for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other, atol=1e-2)
    np.testing.assert_array_equal(encode(X, train=False, seed=1, **{rate: 0.5})[0], exact)
    no_rng_needed = make_encoder(**{rate: 0.5}).apply({"params": PARAMS}, X)
    np.testing.assert_allclose(no_rng_needed, exact, rtol=1e-6, atol=1e-6)


def test_layers_start_different():
    """The scan splits the key of initialisation."""
    params = jax.jit(make_encoder().init)(jax.random.key(0), X)["params"]["blocks"]
    kernel = params["attention"]["query"]["kernel"]
    assert kernel.shape == (DEPTH, C, 2, C // 2)
    assert not np.allclose(kernel[0], kernel[1])


# variants of a block

NEW = dict(
    gelu_tanh=lambda u, _: 0.5 * u * (1 + np.tanh(np.sqrt(2 / np.pi) * (u + 0.044715 * u**3))),
    gelu=lambda u, _: 0.5 * u * (1 + np.vectorize(math.erf)(u / np.sqrt(2))),
    quick_gelu=lambda u, _: u / (1 + np.exp(-1.702 * u)),
    swiglu=lambda u, gate: gate / (1 + np.exp(-gate)) * u,
)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_equal_their_definitions(activation):
    mlp = Mlp(12, activation)
    params = random_params(mlp, X)
    exact = jax.tree.map(lambda p: np.asarray(p, np.float64), params)
    dense = {
        name: np.asarray(X) @ p["kernel"] + p["bias"] for name, p in exact.items() if name != "down"
    }
    assert ("gate" in dense) == (activation == "swiglu")
    hidden = NEW[activation](dense["up"], dense.get("gate"))
    expected = hidden @ exact["down"]["kernel"] + exact["down"]["bias"]
    np.testing.assert_allclose(mlp.apply({"params": params}, X), expected, rtol=1e-5, atol=1e-5)


def block_and_params(**settings):
    block = EncoderBlock(BlockSettings(**BLOCK, **settings))
    inputs = (X, jnp.float32(0), None, None)
    params = random_params(block, *inputs)
    return params, lambda params: block.apply({"params": params}, *inputs)[0]


def test_parallel_block_reads_one_norm_twice():
    params, apply = block_and_params(parallel=True)
    y = layer_norm(X, params["norm"])
    attention = MultiHeadAttention(2).apply({"params": params["attention"]}, y)
    expected = X + attention + Mlp(12).apply({"params": params["mlp"]}, y)
    np.testing.assert_allclose(apply(params), expected, rtol=1e-5, atol=1e-5)


def test_layer_scale_multiplies_each_branch_by_channel():
    params, apply = block_and_params(layer_scale=0.1)
    y = layer_norm(X, params["attention_norm"])
    branch = MultiHeadAttention(2).apply({"params": params["attention"]}, y)
    x = X + branch * params["attention_scale"]
    branch = Mlp(12).apply({"params": params["mlp"]}, layer_norm(x, params["mlp_norm"]))
    np.testing.assert_allclose(
        apply(params), x + branch * params["mlp_scale"], rtol=1e-5, atol=1e-5
    )
    zero = {name: params[name] * 0 for name in ("attention_scale", "mlp_scale")}
    np.testing.assert_array_equal(apply(params | zero), X)


def test_layer_scale_starts_at_its_setting():
    params = jax.jit(make_encoder(settings=dict(layer_scale=1e-5)).init)(jax.random.key(0), X)
    scales = params["params"]["blocks"]["attention_scale"]
    np.testing.assert_array_equal(scales, np.full((DEPTH, C), 1e-5, np.float32))


def test_norm_epsilon_reaches_every_norm():
    encoder = make_encoder(settings=dict(norm_epsilon=3.0))
    found = encoder.apply({"params": PARAMS}, X)
    assert not np.allclose(found, make_encoder().apply({"params": PARAMS}, X), atol=1e-2)
    no_blocks = jax.tree.map(jnp.zeros_like, PARAMS["blocks"])
    found = encoder.apply({"params": PARAMS | {"blocks": no_blocks}}, X)
    centred = X - X.mean(-1, keepdims=True)
    scaled = centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 3.0)
    expected = scaled * PARAMS["norm"]["scale"] + PARAMS["norm"]["bias"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_without_final_norm_the_output_is_the_last_blocks():
    params = {"blocks": PARAMS["blocks"]}
    encoder = make_encoder(final_norm=False)
    found, collections = encoder.apply({"params": params}, X, mutable="intermediates")
    (tokens,) = collections["intermediates"]["blocks"]["tokens"]
    np.testing.assert_array_equal(found, tokens[-1])
