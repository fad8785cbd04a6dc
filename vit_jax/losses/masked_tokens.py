"""iBOT's loss (arXiv:2111.07832, equation 2) with DINOv2's weights: masked patches are told.

    for each global view:
        for each of its masked patches:
            loss += cross-entropy(teacher's target of the patch, softmax(student's logits of it))
                    / number of masked patches of that view
    loss /= number of global views, those without masks included

The teacher saw the patch, the student the mask token in its place.

Letters: b examples; g global views; t patches taken, not all of which are masked; k prototypes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def masked_cross_entropy(
    targets: Float[Array, "b g t k"],
    logits: Float[Array, "b g t k"],
    is_masked: Bool[Array, "b g t"],
    *,
    temperature: float,
) -> Float[Array, " b"]:
    """The loss above for each example; targets of masked patches sum to one over k."""
    scores = logits.astype(jnp.float32) / temperature
    loss = jax.nn.logsumexp(scores, axis=-1) - jnp.sum(targets * scores, axis=-1)
    loss = jnp.where(is_masked, loss, 0).sum(-1) / jnp.maximum(is_masked.sum(-1), 1)
    return loss.mean(-1)
