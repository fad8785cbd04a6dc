"""DINO's loss (arXiv:2104.14294, equations 1 to 4): views of an example agree on a target.

    for each global view i, seen by the teacher:
        target = softmax((teacher's logits of i - centre) / teacher's temperature)
        for each view j other than i, seen by the student:
            loss += cross-entropy(target, softmax(student's logits of j / student's temperature))
    loss /= number of pairs (i, j)

The centre, a running mean of the teacher's logits, keeps single prototypes from winning
everywhere; the low temperature keeps targets from being uniform. `losses.sinkhorn` takes the place
of centre and softmax in DINOv2.

Letters: b examples; g global views, the first g of v views; k prototypes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def centred_targets(
    logits: Float[Array, "*b k"], centre: Float[Array, " k"], temperature: Float[Array, ""] | float
) -> Float[Array, "*b k"]:
    """softmax((logits - centre) / temperature)."""
    return jax.nn.softmax((logits - centre) / temperature, axis=-1)


def view_cross_entropy(
    targets: Float[Array, "b g k"], logits: Float[Array, "b v k"], *, temperature: float
) -> Float[Array, " b"]:
    """The loss above for each example; targets sum to one over k.

    With s the student's logits over its temperature, -Σ q·log softmax(s) = logsumexp(s) - Σ q·s,
    which needs no array of log-probabilities.
    """
    g, v = targets.shape[1], logits.shape[1]
    scores = logits.astype(jnp.float32) / temperature
    agreement = jnp.einsum("bik,bjk->bij", targets, scores, precision="highest")
    loss = jax.nn.logsumexp(scores, axis=-1)[:, None] - agreement
    is_other = ~jnp.eye(g, v, dtype=bool)
    return jnp.where(is_other, loss, 0).sum((1, 2)) / (g * (v - 1))
