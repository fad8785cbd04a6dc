"""KoLeo, the regulariser that spreads representations out (arXiv:1806.03198, section 3.1).

    for each example i:
        distance = min over other examples j of |x_i - x_j|, with x of length one
        loss_i = -log(distance)

is, up to constants, Kozachenko and Leonenko's estimate of minus the differential entropy.

Here the other examples are those of the whole batch, over all devices. DINOv2 looks for the nearest
one among the images of the same GPU, so beside fewer: its distances are larger, and its pull
weaker, than with the same weight here.

Letters: b examples; g global views; c channels.
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


def koleo_of_views(x: Float[Array, "b g c"], mask: Bool[Array, " b"]) -> Float[Array, " b"]:
    """The sum over global views, as in DINOv2; views of one example are not compared."""
    return sum(koleo(x[:, view], mask) for view in range(x.shape[1]))
