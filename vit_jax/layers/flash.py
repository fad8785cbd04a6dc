"""Flash attention (arXiv:2205.14135, 2307.08691) as a Pallas kernel.

No map of n × m weights is ever in memory: a program holds a tile of queries and walks over tiles
of keys with a running softmax, and the backward pass computes the weights again from the
logarithm of each query's sum. Any number of tokens and any head size: both are padded with zeros to
whole tiles, and the keys of the padding are hidden as masked ones are. Sums and softmax are
float32.

Which compiler takes the kernel: Triton on NVIDIA GPUs, Mosaic on TPUs, and Pallas' interpreter on a
CPU, which is slow and there for the tests. JAX 0.11 deprecates Pallas' Triton. Tests lower the
kernel for GPU and TPU; it has not run on either, so its speed is not known and 'auto' never
chooses it.

On a mesh examples and heads may be split, each device having whole ones; were it not said, XLA
would gather all of them everywhere, since it cannot look into a kernel.

Letters: b examples, h heads; n queries, m keys, d channels of a head, all three as padded.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.custom_partitioning import custom_partitioning
from jaxtyping import Array, Bool, Float

TILES = {"cpu": 64, "gpu": 64, "tpu": 128}  # tokens; a TPU's lanes come in 128
LOWEST = float(jnp.finfo(jnp.float32).min)


def flash_attention(
    query: Float[Array, "b n h d"],
    key: Float[Array, "b m h d"],
    value: Float[Array, "b m h d"],
    key_mask: Bool[Array, "b m"] | None = None,
    *,
    backend: str,
) -> Float[Array, "b n h d"]:
    """softmax(query · keyᵀ / sqrt(d)) · value for each head; False in `key_mask` hides a key.

    Args:
      backend: 'cpu', 'gpu' or 'tpu': what the kernel is compiled for.
    """
    (b, n, _, d), m = query.shape, key.shape[1]
    tile = TILES[backend]
    seen = jnp.ones((b, m), bool) if key_mask is None else key_mask
    seen = jnp.pad(seen.astype(jnp.float32), ((0, 0), (0, -m % tile)))[:, None]  # [b, 1, m]
    padded = (_pad(x, tile) for x in (query, key, value))
    out = _flash(*padded, seen, 1 / math.sqrt(d), backend)
    return out[:, :, :n, :d].swapaxes(1, 2)


def _pad(x: Array, tile: int) -> Array:
    """[b, n, h, d] -> [b, h, n, d] of whole tiles; Triton wants d to be a power of two."""
    n, d = x.shape[1], x.shape[3]
    more = ((0, 0), (0, 0), (0, -n % tile), (0, max(16, pl.next_power_of_2(d)) - d))
    return jnp.pad(x.swapaxes(1, 2), more)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _flash(query, key, value, seen, scale, backend):
    return _attention(query, key, value, seen, scale, backend)[0]


def _flash_forward(query, key, value, seen, scale, backend):
    out, log_sum = _attention(query, key, value, seen, scale, backend)
    return out, (query, key, value, seen, out, log_sum)


def _flash_backward(scale, backend, kept, gradient):
    query, key, value, seen, out, log_sum = kept
    # The part of a score's gradient that all keys of a query share, by the softmax's sum of one.
    shared = (out.astype(jnp.float32) * gradient).sum(-1, keepdims=True)
    inputs = (query, key, value, seen, gradient, log_sum, shared)
    return *_gradients(*inputs, scale, backend), None


_flash.defvjp(_flash_forward, _flash_backward)


@functools.partial(custom_partitioning, static_argnums=(4, 5))
def _attention(query, key, value, seen, scale, backend):
    """(output, logarithm of each query's sum of exponentials)."""
    specs = _Specs(query, key, TILES[backend])
    return _call(
        functools.partial(_attend_kernel, scale=scale, tile=specs.tile),
        (query, key, value, seen),
        (specs.queries, specs.all_keys, specs.all_keys, specs.all_seen),
        (query, jax.ShapeDtypeStruct((*query.shape[:3], 1), jnp.float32)),
        (specs.queries, specs.query_numbers),
        specs.query_tiles,
        backend,
    )


@functools.partial(custom_partitioning, static_argnums=(7, 8))
def _gradients(query, key, value, seen, gradient, log_sum, shared, scale, backend):
    """With respect to query, key and value."""
    specs = _Specs(query, key, TILES[backend])
    inputs = (query, key, value, seen, gradient, log_sum, shared)
    settings = dict(scale=scale, tile=specs.tile)
    to_query = _call(
        functools.partial(_query_gradient_kernel, **settings),
        inputs,
        (
            specs.queries,
            *(specs.all_keys, specs.all_keys, specs.all_seen),
            *(specs.queries, specs.query_numbers, specs.query_numbers),
        ),
        query,
        specs.queries,
        specs.query_tiles,
        backend,
    )
    to_key, to_value = _call(
        functools.partial(_key_gradient_kernel, **settings),
        inputs,
        (
            specs.all_queries,
            *(specs.keys, specs.keys, specs.seen),
            *(specs.all_queries, specs.all_query_numbers, specs.all_query_numbers),
        ),
        (key, value),
        (specs.keys, specs.keys),
        specs.key_tiles,
        backend,
    )
    return to_query, to_key, to_value


def _split_examples_and_heads(function, rule):
    """Tells XLA that each device can call `function` on its own examples and heads."""

    def partition(scale, backend, mesh, inputs, outputs):
        def local(*arrays):
            return function.fun(*arrays, scale, backend)

        places = (jax.tree.map(lambda x: x.sharding, shapes) for shapes in (outputs, inputs))
        return mesh, local, *places

    whole = ("n", "d", "m", "one", "number")  # must stand in the order of their appearance
    function.def_partition(partition, sharding_rule=rule, need_replication_factors=whole)


_INPUTS = "b h n d, b h m d, b h m d, b one m"
_split_examples_and_heads(_attention, f"{_INPUTS} -> b h n d, b h n number")
_split_examples_and_heads(
    _gradients,
    f"{_INPUTS}, b h n d, b h n number, b h n number -> b h n d, b h m d, b h m d",
)


def _attend_kernel(query, key, value, seen, out, log_sum, *, scale, tile):
    def step(i, carry):
        total, weight, highest = carry
        keys = _tile(i, tile)
        scores = _scores(query[...], key[keys, :], seen[:, keys], scale)
        higher = jnp.maximum(highest, scores.max(1, keepdims=True))
        weights, shrink = jnp.exp(scores - higher), jnp.exp(highest - higher)
        total = total * shrink + _dot(weights.astype(value.dtype), value[keys, :])
        return total, weight * shrink + weights.sum(1, keepdims=True), higher

    rows = (query.shape[0], 1)
    zeros = jnp.zeros(query.shape, jnp.float32), jnp.zeros(rows, jnp.float32)
    steps = key.shape[0] // tile
    total, weight, highest = jax.lax.fori_loop(
        0, steps, step, (*zeros, jnp.full(rows, LOWEST, jnp.float32))
    )
    out[...] = (total / weight).astype(out.dtype)
    log_sum[...] = highest + jnp.log(weight)


def _query_gradient_kernel(
    query, key, value, seen, gradient, log_sum, shared, to_query, *, scale, tile
):
    def step(i, total):
        keys = _tile(i, tile)
        weights = jnp.exp(_scores(query[...], key[keys, :], seen[:, keys], scale) - log_sum[...])
        to_weights = _dot(gradient[...], value[keys, :].T)
        to_scores = weights * (to_weights - shared[...]) * scale
        return total + _dot(to_scores.astype(key.dtype), key[keys, :])

    zeros = jnp.zeros(query.shape, jnp.float32)
    total = jax.lax.fori_loop(0, key.shape[0] // tile, step, zeros)
    to_query[...] = total.astype(to_query.dtype)


def _key_gradient_kernel(
    query, key, value, seen, gradient, log_sum, shared, to_key, to_value, *, scale, tile
):
    def step(i, carry):
        key_total, value_total = carry
        rows = _tile(i, tile)
        weights = jnp.exp(_scores(query[rows, :], key[...], seen[...], scale) - log_sum[rows, :])
        incoming = gradient[rows, :]
        value_total += _dot(weights.astype(incoming.dtype).T, incoming)
        to_weights = _dot(incoming, value[...].T)
        to_scores = weights * (to_weights - shared[rows, :]) * scale
        key_total += _dot(to_scores.astype(query.dtype).T, query[rows, :])
        return key_total, value_total

    zeros = jnp.zeros(key.shape, jnp.float32)
    totals = jax.lax.fori_loop(0, query.shape[0] // tile, step, (zeros, zeros))
    to_key[...], to_value[...] = (x.astype(key.dtype) for x in totals)


def _scores(query, key, seen, scale):
    return jnp.where(seen > 0, _dot(query, key.T) * scale, LOWEST)


def _dot(a, b):
    """Summed in float32; float32 operands are not rounded to TF32 or bfloat16 on the way."""
    precision = jax.lax.Precision.HIGHEST if a.dtype == jnp.float32 else None
    return jnp.matmul(a, b, precision=precision, preferred_element_type=jnp.float32)


def _tile(i, tile):
    return pl.ds(pl.multiple_of(i * tile, tile), tile)


class _Specs:
    """What a program (b, h, tile) sees of each array: a tile of its tokens, or all of them."""

    def __init__(self, query, key, tile):
        (b, h, n, d), m = query.shape, key.shape[2]
        self.tile, self.query_tiles, self.key_tiles = tile, (b, h, n // tile), (b, h, m // tile)
        self.queries = self.keys = pl.BlockSpec((None, None, tile, d), _tile_of)
        self.query_numbers = pl.BlockSpec((None, None, tile, 1), _tile_of)
        self.all_queries = pl.BlockSpec((None, None, n, d), _all_of)
        self.all_query_numbers = pl.BlockSpec((None, None, n, 1), _all_of)
        self.all_keys = pl.BlockSpec((None, None, m, d), _all_of)
        self.seen = pl.BlockSpec((None, 1, tile), lambda b, h, i: (b, 0, i))
        self.all_seen = pl.BlockSpec((None, 1, m), lambda b, h, i: (b, 0, 0))


def _tile_of(b, h, i):
    return b, h, i, 0


def _all_of(b, h, i):
    return b, h, 0, 0


def _call(kernel, inputs, in_specs, out_like, out_specs, grid, backend):
    return pl.pallas_call(
        kernel,
        out_shape=jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), out_like),
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        interpret=backend == "cpu",
        compiler_params=_compiler_params(backend),
    )(*inputs)


def _compiler_params(backend):
    if backend != "gpu":
        return None
    # Names Triton; without it a GPU's kernel goes to Mosaic, which wants another style.
    from jax.experimental.pallas import triton

    return triton.CompilerParams(num_warps=4, num_stages=2)
