"""iBOT's loss (arXiv:2111.07832, equation 2) with DINOv2's weights: masked patches are told.

    for each global view:
        for each of its masked patches:
            loss += cross-entropy(teacher's target of the patch, softmax(student's logits of it))
                    / number of masked patches of that view
    loss /= number of global views, those without masks included

The teacher saw the patch, the student the mask token in its place. Patches of all global views
stand in one row here, each with its weight, 1 / (masked patches of its view) / (global views).

Letters: b examples; t patches taken, not all of which are masked; k prototypes.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def masked_cross_entropy(
    targets: Float[Array, "b t k"],
    logits: Float[Array, "b t k"],
    weight: Float[Array, "b t"],
    *,
    temperature: float,
) -> Float[Array, " b"]:
    """The loss above for each example; targets of masked patches sum to one over k.

    Patches of weight zero are those that are not masked.
    """
    scores = logits.astype(jnp.float32) / temperature
    loss = jax.nn.logsumexp(scores, axis=-1) - jnp.sum(targets * scores, axis=-1)
    return jnp.where(weight > 0, weight * loss, 0).sum(-1)
