"""Sinkhorn and Knopp's scaling of scores into assignments, as in SwAV (arXiv:2006.09882).

Every prototype is to get an equal share of the samples, and every sample to be shared out whole.
For iteration in 1 ... 3:
    each prototype's column is divided by its sum over samples,
    each sample's row is divided by its sum over prototypes.
The second comes last, so rows sum to one and columns nearly to n/k. Works on logarithms, where
sums that underflow are no trouble; the constants 1/k and 1/n of the published code cancel.

Letters: n samples; k prototypes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

ITERATIONS = 3  # SwAV's, DINOv2's


def sinkhorn(
    scores: Float[Array, "*n k"], mask: Bool[Array, "*n"], *, iterations: int = ITERATIONS
) -> Float[Array, "*n k"]:
    """exp(scores), scaled; over all leading axes, and so over all devices.

    Samples whose mask is False have no mass: no influence on others, and a row of zeros.
    """
    samples = tuple(range(mask.ndim))
    mask = mask[..., None]
    log_q = jnp.where(mask, scores.astype(jnp.float32), -jnp.inf)
    for _ in range(iterations):
        total = jax.nn.logsumexp(log_q, axis=samples, keepdims=True)
        log_q -= jnp.where(jnp.isfinite(total), total, 0)  # of no sample at all
        log_q -= jnp.where(mask, jax.nn.logsumexp(log_q, axis=-1, keepdims=True), 0)
    return jnp.exp(log_q)
