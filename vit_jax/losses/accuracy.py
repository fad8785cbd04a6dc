"""How many examples a classifier gets right.

Letters: b examples; k classes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from vit_jax.core import Batch, Mean


def of_batch(logits: Float[Array, "b k"], batch: Batch) -> dict[str, Mean]:
    """`top_k` of a batch's `label`, or `any_of` of its `labels`."""
    if "label" in batch:
        return top_k(logits, batch["label"], batch["mask"])
    return any_of(logits, batch["labels"], batch["mask"])


def top_k(logits: Float[Array, "b k"], label: Int[Array, " b"], mask: Array) -> dict[str, Mean]:
    """top1 and, for more than five classes, top5: is the label among the highest logits?

    The rank of the label is the number of classes that score higher, or equally with a smaller
    index, as a stable sort would have it. NaN ranks as higher: a broken model scores nothing.
    """
    own = jnp.take_along_axis(logits, label[:, None], axis=-1)
    is_before = ~(logits <= own)
    is_before |= (logits == own) & (jnp.arange(logits.shape[-1]) < label[:, None])
    rank = is_before.sum(-1)
    ks = [1] if logits.shape[-1] <= 5 else [1, 5]
    return {f"top{k}": Mean.of(rank < k, mask) for k in ks}


def any_of(
    logits: Float[Array, "b k"], labels: Float[Array, "b k"], mask: Array
) -> dict[str, Mean]:
    """top1: is the highest logit one of the labels? Rows without labels do not count.

    The accuracy of ImageNet ReaL (arXiv:2006.07159).
    """
    best = jnp.argmax(jnp.where(jnp.isnan(logits), jnp.inf, logits), -1)
    is_right = jnp.take_along_axis(labels, best[:, None], axis=-1)[:, 0] > 0
    is_right &= ~jnp.isnan(logits).any(-1)  # a broken model scores nothing
    return {"top1": Mean.of(is_right, mask & labels.any(-1))}
