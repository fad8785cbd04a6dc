"""Narrow products are exact products of rounded operands, forward and backward, on any mesh."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from gpus import on_gpu
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from toys import normal

from vit_jax.errors import InputError
from vit_jax.layers.products import BFLOAT16, FP8, PRODUCTS, choose_product, quantise
from vit_jax.models import vit

# name -> NumPy's type, its largest number, relative rounding error, spacing of its least numbers
FORMATS = {
    "e4m3": (ml_dtypes.float8_e4m3fn, 448.0, 2**-4, 2.0**-9),
    "e5m2": (ml_dtypes.float8_e5m2, 57344.0, 2**-3, 2.0**-16),
}
DENSE = (((2,), (0,)), ((), ()))  # [b, n, c] · [c, ...]
MERGE = (((2, 3), (0, 1)), ((), ()))  # [b, n, h, d] · [h, d, c]


def rounded(x, name):
    """float64 of what the format makes of x, by NumPy alone."""
    dtype, largest, *_ = FORMATS[name]
    x = np.asarray(x, np.float64)
    scale = 2.0 ** np.floor(np.log2(largest / np.abs(x).max()))
    return (x * scale).astype(np.float32).astype(dtype).astype(np.float64) / scale


def restored(x, name):
    values, unscale = quantise(x, jnp.dtype(FORMATS[name][0]))
    return np.asarray(values, np.float64) * float(unscale)


@pytest.mark.parametrize("magnitude", [1e-20, 1e-6, 0.3, 1, 447, 448, 449, 1e10])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FORMATS)
def test_quantised_equals_numpys_rounding_under_a_power_of_two(name, dtype, magnitude):
    x = normal(50, 20)
    x = (x / jnp.abs(x).max() * magnitude).astype(dtype)
    np.testing.assert_array_equal(restored(x, name), rounded(x, name))


@pytest.mark.parametrize("name", FORMATS)
def test_rounding_error_is_within_what_the_format_allows(name):
    _, largest, relative, spacing = FORMATS[name]
    x = normal(1000) * jnp.exp2(normal(1000, seed=1, scale=6))  # over many magnitudes
    unscale = float(quantise(x, jnp.dtype(FORMATS[name][0])).unscale)
    assert largest / 2 < float(jnp.abs(x).max()) / unscale <= largest
    error = np.abs(restored(x, name) - np.asarray(x, np.float64))
    assert (error <= relative * np.abs(x) + spacing / 2 * unscale).all()
    assert error.max() > 0


@pytest.mark.parametrize("name", FORMATS)
def test_numbers_of_the_format_stay_as_they_are(name):
    dtype, largest, *_ = FORMATS[name]
    every = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
    every = every[np.isfinite(every)]
    assert np.abs(every).max() == largest
    np.testing.assert_array_equal(restored(jnp.asarray(every), name), every)


def operands(dimensions, dtype=jnp.float32):
    shapes = {DENSE: [(4, 6, 16), (16, 3, 2, 4)], MERGE: [(4, 6, 2, 8), (2, 8, 12)]}[dimensions]
    x, weight = normal(*shapes[0]), normal(*shapes[1], seed=1, scale=0.02)
    return x.astype(dtype), weight.astype(dtype)


def value_and_gradients(product, dimensions, x, weight, incoming):
    out, backward = jax.vjp(lambda x, w: product(x, w, dimensions), x, weight)
    return out, *backward(incoming)


def incoming_of(dimensions, dtype=jnp.float32):
    out = jax.eval_shape(lambda *o: PRODUCTS["default"](*o, dimensions), *operands(dimensions))
    return normal(*out.shape, seed=2, scale=1e-5).astype(dtype)


ROUNDINGS = {
    "fp8": (lambda x: rounded(x, "e4m3"), lambda g: rounded(g, "e5m2")),
    "bfloat16": (lambda x: np.asarray(x.astype(jnp.bfloat16), np.float64),) * 2,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("dimensions", [DENSE, MERGE], ids=["dense", "merge"])
@pytest.mark.parametrize("name", ROUNDINGS)
def test_product_and_gradients_are_exact_products_of_rounded_operands(name, dimensions, dtype):
    x, weight = operands(dimensions, dtype)
    incoming = incoming_of(dimensions, dtype)
    found = value_and_gradients(PRODUCTS[name], dimensions, x, weight, incoming)
    (left, right), _ = dimensions
    values, gradients = ROUNDINGS[name]
    a, b, g = values(x), values(weight), gradients(incoming)
    rows = range(x.ndim - len(left))
    columns = [range(len(rows), g.ndim), range(len(right), b.ndim)]
    expected = (
        np.tensordot(a, b, axes=(left, right)),
        np.tensordot(g, b, axes=columns),
        np.tensordot(a, g, axes=(rows, rows)),
    )
    # Float32 sums of at most 32 products; in bfloat16 each result is rounded once more.
    tolerance = {"float32": 32 * 2**-24, "bfloat16": 2**-8}[dtype]
    for f, e in zip(found, expected, strict=True):
        assert f.dtype == dtype
        f = np.asarray(f, np.float64)
        np.testing.assert_allclose(f, e, rtol=tolerance, atol=tolerance * np.abs(e).max())


def test_fp8_is_coarser_than_bfloat16_which_is_coarser_than_float32():
    x, weight = operands(DENSE)
    incoming, exact = incoming_of(DENSE), None
    errors = []
    for name in ("default", "bfloat16", "fp8"):
        found = value_and_gradients(PRODUCTS[name], DENSE, x, weight, incoming)
        exact = exact or found
        errors.append(
            [jnp.linalg.norm(a - b) / jnp.linalg.norm(b) for a, b in zip(found, exact, strict=True)]
        )
    assert (np.diff(errors, axis=0) > 0).all()
    # Two operands of e4m3 are each within 2^-4, and one of e5m2 is within 2^-3.
    assert (np.array(errors[-1]) < [2 * 2**-4, 2**-4 + 2**-3, 2**-4 + 2**-3]).all()


@pytest.mark.parametrize("which", [0, 1])
def test_zeros_are_zeros(which):
    inputs = list(operands(DENSE))
    inputs[which] = jnp.zeros_like(inputs[which])
    out, *gradients = value_and_gradients(PRODUCTS["fp8"], DENSE, *inputs, incoming_of(DENSE))
    assert not np.asarray(out).any()
    assert not np.asarray(gradients[1 - which]).any()
    assert np.asarray(gradients[which]).any() and np.isfinite(gradients[which]).all()


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ROUNDINGS)
def test_what_is_not_finite_is_seen_in_the_result(name, value, which):
    """A scale must not hide a divergence, nor hardware that clips when it converts."""
    inputs = list(operands(DENSE))
    inputs[which] = inputs[which].at[0, 0].set(value)
    out, *gradients = value_and_gradients(PRODUCTS[name], DENSE, *inputs, incoming_of(DENSE))
    assert not np.isfinite(out).all()
    assert not np.isfinite(gradients[1 - which]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_incoming_gradients_that_are_not_finite_are_seen_too(value):
    incoming = incoming_of(DENSE).at[0, 0, 0].set(value)
    _, *gradients = value_and_gradients(PRODUCTS["fp8"], DENSE, *operands(DENSE), incoming)
    assert not any(np.isfinite(g).all() for g in gradients)


@pytest.mark.parametrize(
    "x_axes, weight_axes",
    [
        (("data",), ()),
        (("data",), ("tensor",)),
        (("data", None, "tensor"), ("tensor",)),
        (("data",), (None, None, "tensor")),
    ],
    ids=["examples", "fsdp", "contracted", "heads"],
)
def test_eight_devices_equal_one(x_axes, weight_axes):
    """The scale is of the whole tensor: here one device alone holds its largest element."""
    x, weight = operands(DENSE)
    x, weight = x.at[-1, -1, -1].set(300.0), weight.at[-1, -1, -1].set(70.0)
    inputs = (x, weight, incoming_of(DENSE))
    mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ("data", "tensor"))
    places = [
        NamedSharding(mesh, PartitionSpec(*axes)) for axes in (x_axes, weight_axes, ("data",))
    ]
    function = functools.partial(value_and_gradients, PRODUCTS["fp8"], DENSE)
    one = jax.jit(function)(*inputs)
    eight = jax.jit(function, in_shardings=places)(*inputs)
    for a, b in zip(one, eight, strict=True):
        # The same products; sums of 32 at most are split over devices.
        bound = 32 * 2**-24 * float(jnp.abs(a).max())
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


def test_products_of_other_axes_are_not_offered():
    with pytest.raises(NotImplementedError):
        PRODUCTS["fp8"](jnp.ones((2, 3)), jnp.ones((2, 4)), (((0,), (0,)), ((), ())))


def test_unknown_formats_list_the_allowed():
    with pytest.raises(InputError, match="matmul is 'int4'.*allowed: default, bfloat16, fp8"):
        choose_product("int4")


# the model

MODEL = dict(num_classes=5, patch_size=4, width=32, depth=2, mlp_dim=48, num_heads=2, unroll=1)


@pytest.mark.parametrize("matmul, formats", [("fp8", FP8), ("bfloat16", BFLOAT16)])
def test_a_blocks_four_products_are_narrow_and_no_others(matmul, formats):
    """Embedding, attention's maps, pooling and head stay; a scan shows one layer's products."""
    model = vit.build(**MODEL, matmul=matmul)
    image = jax.ShapeDtypeStruct((2, 16, 16, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)
    assert {p.dtype for p in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    def loss(params, image):
        return model.apply(params, image, train=True).logits.var()

    program = jax.jit(jax.value_and_grad(loss)).lower(params, image).as_text()
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    short = {"float8_e4m3fn": "f8E4M3FN", "float8_e5m2": "f8E5M2", "bfloat16": "bf16"}
    values, gradients = (short[dtype.name] for dtype in formats)
    narrow = [line for line in products if f"x{values}>" in line]
    assert len(narrow) == 4 * 3  # each forward, and backward twice
    assert sum(f"x{gradients}>" in line for line in narrow) == (8 if matmul == "fp8" else 12)
    assert all(line.endswith("xf32>") for line in narrow)  # what they are summed in
    assert len(products) > len(narrow)


def test_parameters_do_not_depend_on_the_products():
    image = jnp.zeros((1, 16, 16, 3))
    shapes = [
        jax.eval_shape(vit.build(**MODEL, matmul=name).init, jax.random.key(0), image)
        for name in PRODUCTS
    ]
    assert shapes[0] == shapes[1] == shapes[2]


@on_gpu
def test_a_gpu_multiplies_fp8_by_cublas():
    x, weight = normal(256, 128), normal(128, 384, seed=1)
    dimensions = (((1,), (0,)), ((), ()))
    function = functools.partial(value_and_gradients, PRODUCTS["fp8"], dimensions)
    inputs = [a.astype(jnp.bfloat16) for a in (x, weight, normal(256, 384, seed=2))]
    program = jax.jit(function).lower(*inputs).compile()
    assert program.as_text().count("__cublas$lt$matmul$f8") >= 3
    out = np.asarray(program(*inputs)[0], np.float64)
    expected = rounded(inputs[0], "e4m3") @ rounded(inputs[1], "e4m3")
    np.testing.assert_allclose(out, expected, rtol=2**-8, atol=2**-8 * np.abs(expected).max())
