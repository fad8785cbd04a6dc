"""A vector for every token: what a bias, or the scale of a norm, is to the activations.

The gradient of such a vector is a sum over all tokens, that is over the rows of a tall matrix. On a
CPU XLA's own sum down the columns is slow; the same sum as a product with a vector of ones is as
fast as its matrix products. So there the vector is spread over the tokens by a product with ones:
the compiler makes a plain broadcast of it, and its derivative is the product that is wanted,
without a rule of our own, so forward and reverse mode of any order, vmap and scan hold as before.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def spread(values: Float[Array, "..."], rows: tuple[int, ...]) -> Float[Array, "..."]:
    """`values` for each of `rows`: the shape is rows + values.shape, or broadcasts to it.

    `values` themselves where the backend sums columns well, as GPUs and TPUs do.
    """
    if jax.default_backend() != "cpu" or not math.prod(rows):
        return values
    ones = jnp.ones((1, *rows, 1), values.dtype)
    # The axis of one in front is a batch's: policies of rematerialisation keep the results of
    # products without such axes, and this one is no work worth keeping.
    axes = ((ones.ndim - 1,), (1,)), ((0,), (0,))
    return lax.dot_general(ones, values[None, None], axes)[0]
