"""KoLeo, the regulariser that spreads representations out (arXiv:1806.03198, section 3.1).

    for each example i:
        distance = min over other examples j of |x_i - x_j|, with x of length one
        loss_i = -log(distance)

is, up to constants, Kozachenko and Leonenko's estimate of minus the differential entropy.

Letters: b examples; c channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

EPSILON = 1e-8  # of DINOv2's code: in the norm, the difference and the logarithm


def koleo(x: Float[Array, "b c"], mask: Bool[Array, " b"]) -> Float[Array, " b"]:
    """The loss above for each example; zero for rows whose mask is False, and for an only row.

    Such rows are nobody's neighbours.
    """
    x = jnp.where(mask[:, None], x.astype(jnp.float32), 0)
    x /= jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), EPSILON**2))
    products = jnp.einsum("ic,jc->ij", x, x, precision="highest")
    may_pair = mask & ~jnp.eye(len(x), dtype=bool)
    nearest = jnp.argmax(jnp.where(may_pair, products, -jnp.inf), axis=-1)
    difference = x - x[nearest] + EPSILON
    distance = jnp.sqrt(jnp.sum(difference**2, axis=-1))
    return jnp.where(mask & may_pair.any(-1), -jnp.log(distance + EPSILON), 0)
