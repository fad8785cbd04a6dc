"""Products of activations and weights in narrow number formats: bfloat16 and fp8.

A block's dense layers ask `config.task.model.matmul` for their product. Parameters, norms, softmax
and residuals stay in the model's `dtype`; the patch embedding and the head do not come here, since
they are few FLOPs and the most sensitive (arXiv:2209.05433, section 3).

fp8 here (arXiv:2209.05433): activations and weights as e4m3 (4 bits of exponent, 3 of mantissa,
largest 448), gradients as e5m2 (largest 57,344). Each tensor x is multiplied by a scale that
brings its largest magnitude just below the format's largest number, and the product is divided by
both scales. Two choices:

- Current scaling: the scale is the tensor's own. Delayed scaling takes it from earlier steps
  instead, which saves a pass over the tensor but is a state: of the step, of every checkpoint, of
  every microbatch; and a tensor that grows overflows until its history has caught up. Without it
  nothing changes but this file.
- Scales are powers of two. Then scaling rounds nothing, in bfloat16 neither, and all that is lost
  is the format's own rounding: 2^-4 relative to a number of e4m3, 2^-3 to one of e5m2. Up to half
  of the range is given away, at its small end.

The scale is of the global tensor: on a mesh XLA takes the maximum over all devices. Microbatches
have scales of their own, so here alone accumulation is equal to the full batch up to fp8's
rounding and no closer.

On NVIDIA GPUs from Ada and Hopper on, XLA turns a dot of two fp8 operands, one of them e4m3, into
a cuBLASLt fp8 product (`gemm_rewriter.cc`, `CreateF8CustomCall`; scales must be scalars). It does
so for operands that arrive as fp8, hence the division after the product instead of before it.
Elsewhere, as on a CPU, it widens the same values, so results are those of fp8 and no faster. What
fp8 cost in accuracy: experiments/fp8/results.md. Its speed has not been measured.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vit_jax import sections

# A scale's exponent stays where it and its inverse are normal float32.
LARGEST_EXPONENT = 120
Contraction = tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...]]


class Formats(NamedTuple):
    values: jnp.dtype  # activations and weights
    gradients: jnp.dtype


class Quantised(NamedTuple):
    values: Array  # x · scale, rounded to the format
    unscale: Float[Array, ""]  # 1 / scale; NaN where x is not finite


FP8 = Formats(jnp.dtype(jnp.float8_e4m3fn), jnp.dtype(jnp.float8_e5m2))
BFLOAT16 = Formats(jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.bfloat16))


def choose_product(name: str) -> Callable[..., Array]:
    """A `lax.dot_general` that computes in the formats of this name.

    'default' takes the operands as they are.
    """
    return sections.choose(PRODUCTS, name, where="config.task.model.matmul")


def quantise(x: Float[Array, "..."], dtype: jnp.dtype) -> Quantised:
    """x in a narrow format; with a scale where the format has less range than float32."""
    if dtype == jnp.bfloat16:
        return Quantised(x.astype(dtype), jnp.float32(1))
    largest = jnp.abs(x).max().astype(jnp.float32)
    # largest = mantissa · 2^exponent with a mantissa in [1/2, 1), as of the format's own largest.
    mantissa, exponent = jnp.frexp(largest)
    own_mantissa, own_exponent = math.frexp(float(jnp.finfo(dtype).max))
    shift = own_exponent - exponent - (mantissa > own_mantissa)
    shift = jnp.clip(shift, -LARGEST_EXPONENT, LARGEST_EXPONENT)
    one = jnp.float32(1)
    # Hardware clips infinity to the largest number when it converts, so it is passed on here.
    unscale = jnp.where(jnp.isfinite(largest), jnp.ldexp(one, -shift), jnp.nan)
    return Quantised((x * jnp.ldexp(one, shift).astype(x.dtype)).astype(dtype), unscale)


def narrow_dot_general(
    formats: Formats,
    lhs: Float[Array, "..."],
    rhs: Float[Array, "..."],
    dimension_numbers: Contraction,
    precision: None = None,
    preferred_element_type: None = None,
) -> Float[Array, "..."]:
    """As `lax.dot_general` where lhs's last axes meet rhs's first, as in every dense layer.

    The operands are rounded to `formats.values`, in the backward pass the incoming gradient to
    `formats.gradients`; sums are taken in float32. The result has the operands' type.
    """
    ((left, right), batch) = dimension_numbers
    axes = len(left)
    expected = (tuple(range(lhs.ndim - axes, lhs.ndim)), tuple(range(axes)))
    if (tuple(left), tuple(right)) != expected or any(batch) or precision is not None:
        raise NotImplementedError(f"{dimension_numbers} with precision {precision}")
    return _product(lhs, rhs, axes, formats)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _product(lhs: Array, rhs: Array, axes: int, formats: Formats) -> Array:
    return _product_forward(lhs, rhs, axes, formats)[0]


def _product_forward(lhs, rhs, axes, formats):
    left, right = quantise(lhs, formats.values), quantise(rhs, formats.values)
    last, first = range(lhs.ndim - axes, lhs.ndim), range(axes)
    # The gradients' product reads the narrow operands: of activations half of what bfloat16 keeps.
    return _dot(left, right, last, first, lhs.dtype), (left, right)


def _product_backward(axes, formats, kept, gradient):
    left, right = kept
    dtype, rows = gradient.dtype, left.values.ndim - axes
    gradient = quantise(gradient, formats.gradients)
    columns = range(rows, gradient.values.ndim)
    to_lhs = _dot(gradient, right, columns, range(axes, right.values.ndim), dtype)
    to_rhs = _dot(left, gradient, range(rows), range(rows), dtype)
    return to_lhs, to_rhs


_product.defvjp(_product_forward, _product_backward)


def _dot(left: Quantised, right: Quantised, left_axes, right_axes, dtype) -> Array:
    contraction = (tuple(left_axes), tuple(right_axes)), ((), ())
    product = lax.dot_general(left.values, right.values, contraction, preferred_element_type=dtype)
    return product * (left.unscale * right.unscale).astype(dtype)


PRODUCTS = {
    "default": lax.dot_general,
    "bfloat16": functools.partial(narrow_dot_general, BFLOAT16),
    "fp8": functools.partial(narrow_dot_general, FP8),
}
