"""The Pallas kernel equals attention's definition, in values and gradients, at odd sizes.

Here it is interpreted, in float32 arithmetic; what a GPU or TPU would run is only lowered.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gpus import on_gpu
from toys import normal

from vit_jax.layers.attention import cudnn_attention, dense_attention
from vit_jax.layers.flash import flash_attention

# b, n, m, h, d: self-attention of B/16 and H/14 at 224 pixels, and attention on other tokens.
SHAPES = {
    "197 tokens, heads of 64": (1, 197, 197, 2, 64),
    "257 tokens, heads of 80": (1, 257, 257, 1, 80),
    "less than a tile": (2, 5, 6, 3, 4),
    "few queries, many keys": (2, 3, 130, 2, 24),
    "whole tiles": (1, 128, 64, 1, 32),
}


def tensors(shape, dtype=jnp.float32):
    b, n, m, h, d = shape
    return [normal(b, k, h, d, seed=i, scale=2).astype(dtype) for i, k in enumerate((n, m, m))]


def key_mask(shape):
    b, _, m, _, _ = shape
    mask = np.random.default_rng(1).random((b, m)) < 0.6
    mask[:, 0] = True  # a query that sees nothing has no defined answer
    return jnp.asarray(mask)


def output_and_gradients(function, inputs):
    """In float32; the loss weighs every output differently."""

    def loss(*inputs):
        out = function(*inputs).astype(jnp.float32)
        return (out * normal(*out.shape, seed=9)).sum(), out

    (_, out), gradients = jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True)(*inputs)
    return [out, *(g.astype(jnp.float32) for g in gradients)]


def compare(kernel, shape, dtype, *, masked, tolerance):
    """Against the definition in float32 for the same inputs; errors relative to the largest."""
    mask = key_mask(shape) if masked else None
    inputs = tensors(shape, dtype)
    found = jax.jit(functools.partial(output_and_gradients, lambda q, k, v: kernel(q, k, v, mask)))(
        inputs
    )
    whole_mask = None if mask is None else mask[:, None, None]
    definition = functools.partial(dense_attention, mask=whole_mask)
    exact = output_and_gradients(definition, [x.astype(jnp.float32) for x in inputs])
    for a, b in zip(found, exact, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, atol=tolerance * float(jnp.abs(b).max()), rtol=0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_equals_the_definition_in_float32(shape, masked):
    # Sums of up to 257 float32 products in another order: some 10 roundings of 2^-24.
    kernel = functools.partial(flash_attention, backend="cpu")
    compare(kernel, shape, jnp.float32, masked=masked, tolerance=1e-5)


@pytest.mark.parametrize("shape", list(SHAPES.values())[:2], ids=list(SHAPES)[:2])
def test_equals_the_definition_in_bfloat16(shape):
    # Weights, scores' gradients and results are each rounded to 8 bits: relative steps of 2^-9.
    kernel = functools.partial(flash_attention, backend="cpu")
    compare(kernel, shape, jnp.bfloat16, masked=True, tolerance=3 * 2**-8)


def test_what_is_hidden_has_no_influence_at_all():
    shape = SHAPES["few queries, many keys"]
    query, key, value = tensors(shape)
    mask = key_mask(shape)
    hidden = ~mask[:, :, None, None]
    other = flash_attention(query, key, value, mask, backend="cpu")
    found = flash_attention(
        query,
        jnp.where(hidden, 1e4 * key, key),
        jnp.where(hidden, 1e30, value),
        mask,
        backend="cpu",
    )
    np.testing.assert_array_equal(found, other)


def test_large_scores_stay_finite():
    query, key, value = tensors(SHAPES["few queries, many keys"])
    inputs = (100 * query, 100 * key, value)
    for x in output_and_gradients(functools.partial(flash_attention, backend="cpu"), inputs):
        assert np.isfinite(x).all()


def test_devices_compute_their_own_examples_and_heads():
    """Equal to one device, without any exchange between them."""
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "tensor"))
    inputs = tensors((4, 5, 70, 2, 16))
    mask = key_mask((4, 5, 70, 2, 16))

    def function(query, key, value, mask):
        kernel = functools.partial(flash_attention, key_mask=mask, backend="cpu")
        return output_and_gradients(kernel, (query, key, value))

    def place(*axes):
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*axes))

    split = place("data", None, "tensor")
    places = ([split] * 3, place("data"))
    eight = jax.jit(lambda t, m: function(*t, m), in_shardings=places, out_shardings=split)
    program = eight.lower(inputs, mask).compile()
    for exchange in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert exchange not in program.as_text()
    for a, b in zip(program(inputs, mask), jax.jit(function)(*inputs, mask), strict=True):
        # The same sums in programs that are fused differently: a few float32 roundings.
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize("backend, platform", [("gpu", "cuda"), ("tpu", "tpu")])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_compilers_of_accelerators_take_the_kernel(backend, platform, dtype):
    """Forward and both backward kernels become that platform's; no device is needed for it."""
    b, n, m, h, d = 2, 257, 197, 3, 80
    query, key = (jax.ShapeDtypeStruct((b, k, h, d), dtype) for k in (n, m))
    mask = jax.ShapeDtypeStruct((b, m), bool)

    def loss(query, key, value, mask):
        out = flash_attention(query, key, value, mask, backend=backend)
        return (out.astype(jnp.float32) ** 2).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).trace(query, key, key, mask)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    call = {"gpu": "@__gpu$xla.gpu.triton(", "tpu": "@tpu_custom_call("}[backend]
    assert program.count(call) == 3


@on_gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", list(SHAPES.values())[:2], ids=list(SHAPES)[:2])
def test_equals_the_definition_on_a_gpu(shape, masked):
    kernel = functools.partial(flash_attention, backend="gpu")
    compare(kernel, shape, jnp.bfloat16, masked=masked, tolerance=3 * 2**-8)


@on_gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [196, 197, 576])
def test_cudnn_equals_the_definition_on_a_gpu(length, masked):
    if masked and length % 2:
        pytest.skip("cuDNN trains with masks at even lengths alone")

    def kernel(query, key, value, mask):
        return cudnn_attention(query, key, value, None if mask is None else mask[:, None, None])

    shape = (2, length, length, 3, 64)
    compare(kernel, shape, jnp.bfloat16, masked=masked, tolerance=3 * 2**-8)
