"""Is a run of DINO collapsing? What is measured at each step, and what the numbers say.

The loss alone does not tell: it is small where one prototype wins for every image, and a constant
where all prototypes are alike. Section 5.3 of arXiv:2104.14294 tells the two by the entropy of the
targets, 0 or log K. What both have in common is that a target tells nothing of its image,

    information = entropy of the mean target - mean entropy of the targets >= 0,

whereas a run that has only just begun may have either entropy but has some information. Both are
of a (micro)batch, whose number of rows bounds the information: of very few rows it tells little.

Letters: b examples; g global views; k prototypes, K their number; c channels.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax.core import Mean
from vit_jax.losses import collapse

# Planted without centring (digits, ViT of width 32, 256 prototypes), information falls from 1.0 to
# 0.03 nats in 80 steps; the same run with a centre stays above 0.14.
LEAST_INFORMATION = 0.1  # nats
# There few prototypes win: the mean target's entropy falls below 0.12 of log K. A random start has
# 0.5, and a batch of 32 images that all differ 0.3 or more up to 65,536 prototypes.
LEAST_MEAN_ENTROPY = 0.25  # of log K
# Early in healthy runs targets may come near to uniform, but then the student is not there yet.
MOST_ENTROPY, LEAST_KL = 0.98, 0.05  # of log K; nats
# Directions that are spread evenly have 1, those of an untrained ViT-S on images 0.5, rank 14.
LEAST_STD = 0.03
LEAST_RANK = 1.2  # 1 is that of images that are all alike


def measure(
    representation: Float[Array, "b g c"],
    targets: Float[Array, "b g k"],
    view_loss: Float[Array, " b"],
    mask: Bool[Array, " b"],
) -> dict[str, Mean]:
    """Metrics of a (micro)batch, from what the teacher finds of its global views.

    teacher_entropy, teacher_entropy_share: of a view's target, in nats and as a share of log K.
    mean_target_entropy_share: of the mean target of the batch.
    target_information: of a target on its view, see above, in nats.
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
        "target_information": mean_entropy - collapse.mean_of(entropy[:, None], mask)[0],
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
    found = {name.removeprefix("train/"): value for name, value in metrics.items()}
    if "target_information" not in found:
        return []
    checks = (_few_prototypes(found, centring), _uniform(found, centring), _alike(found))
    return [sentence for sentence in checks if sentence]


def _few_prototypes(found: Mapping[str, float], centring: str) -> str:
    entropy, information = found["mean_target_entropy_share"], found["target_information"]
    if entropy > LEAST_MEAN_ENTROPY or information > LEAST_INFORMATION:
        return ""
    cause = {
        "none": "nothing centres the targets: set config.task.centring to 'centre' or 'sinkhorn'",
        "centre": "the centre is too slow for the teacher: lower config.task.centre_momentum, "
        "raise config.task.momentum or lower config.optimizer.learning_rate",
        "sinkhorn": "the teacher moves too fast: raise config.task.momentum or lower "
        "config.optimizer.learning_rate",
    }[centring]
    return (
        "collapse: the same few prototypes win for every image (the mean target has "
        f"{entropy:.2f} of the largest entropy, a target tells {information:.2g} nats of its "
        f"image); likely {cause}."
    )


def _uniform(found: Mapping[str, float], centring: str) -> str:
    entropy, kl = found["teacher_entropy_share"], found["teacher_student_kl"]
    if entropy < MOST_ENTROPY or kl > LEAST_KL or found["target_information"] > LEAST_INFORMATION:
        return ""
    weaker = " or raise config.task.centre_momentum" if centring == "centre" else ""
    return (
        f"collapse: targets are uniform (entropy {entropy:.3f} of the largest) and the student "
        f"has learned that (divergence {kl:.2g} nats); likely the targets are not sharp enough: "
        "lower config.task.teacher_temperature and warmup_teacher_temperature (0.04 at first; "
        f"above 0.07 is unstable){weaker}."
    )


def _alike(found: Mapping[str, float]) -> str:
    std, rank = found["feature_std"], found["effective_rank"]
    if std > LEAST_STD and rank > LEAST_RANK:
        return ""
    return (
        f"collapse: all images have nearly the same representation (standard deviation {std:.2g} "
        f"where evenly spread ones have 1, effective rank {rank:.2f}); likely the steps are too "
        "long: lower config.optimizer.learning_rate or clip_norm, or spread representations by "
        "config.task.koleo_weight (0.1 in DINOv2)."
    )
