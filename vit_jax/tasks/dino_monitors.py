"""Is a run of DINO collapsing? What is measured at each step, and what the numbers say.

The loss alone does not tell: it is small where one prototype wins for every image, and a constant
where all prototypes are alike. Section 5.3 of arXiv:2104.14294 tells the two by the entropy of the
targets, 0 or log K. What these have in common, with each other and with targets of any entropy in
between, is that a target tells nothing of its image,

    information = entropy of the mean target - mean entropy of the targets >= 0.

A run that has only just begun may have little of it, too, but there the student does not predict
its targets yet. The same is measured of the targets of masked patches (iBOT), by names with
"patch_" in front. All this is of a (micro)batch, whose number of images bounds information and rank
and the entropy of the mean target; of few images no conclusion is drawn.

Letters: b examples; g global views; t patches taken; k prototypes, K their number; c channels.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from vit_jax.core import Mean
from vit_jax.losses import collapse

# All limits come from a few small runs (digits, ViT of width 32, batches of 32 images), and are
# where these collapsed or did not; others may differ, so what they give is a warning. Without
# centring, information fell from 1.0 to 0.03 nats in 80 steps, and with a centre stayed above 0.14.
LEAST_INFORMATION = 0.1  # nats
# There few prototypes win: the mean target's entropy falls below 0.12 of log K. A random start has
# 0.5, and a batch of 32 images that all differ 0.3 or more up to 65,536 prototypes.
LEAST_MEAN_ENTROPY = 0.25  # of log K
# Targets of a healthy run may tell little for a while, but then the student is not there yet.
LEAST_KL = 0.05  # nats
MOST_ENTROPY = 0.98  # of log K; above they are called uniform
# Directions that are spread evenly have 1; those of an untrained ViT-S on images had 0.5, and rank
# 14 of 384 channels.
LEAST_STD = 0.03
LEAST_RANK = 1.2  # 1 is that of images that are all alike
# So few images, each a class of its own, can come near to the limits of entropy and rank.
FEWEST_IMAGES = 16
# What the rank is computed of: an eigenvalue problem of this size costs a step little.
RANK_CHANNELS = 64


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
    feature_std: of the representations, see `losses.collapse`.
    effective_rank: of the representations or, where they have more than 64 channels, of their
      products with 64 random vectors, always the same: then at most 64.
    images_compared: those of the (micro)batch.
    """
    b, g, _ = targets.shape
    representation, targets, view_loss = jax.lax.stop_gradient((representation, targets, view_loss))
    is_row = jnp.broadcast_to(mask[:, None], (b, g))
    entropy = collapse.entropy(targets)
    rows, is_row = representation.reshape(b * g, -1), is_row.reshape(-1)
    number = mask.sum()
    # Of a batch as a whole: weighs as much as its rows.
    whole = {
        "feature_std": collapse.feature_std(rows, is_row),
        "effective_rank": collapse.effective_rank(collapse.sketch(rows, RANK_CHANNELS), is_row),
        "images_compared": number,
    }
    return {
        "teacher_entropy": Mean.of(entropy.mean(-1), mask),
        **_of_targets(targets, entropy, is_row.reshape(b, g)),
        # A target is in as many pairs as any other, so the mean over pairs is that over views.
        "teacher_student_kl": Mean.of(view_loss - entropy.mean(-1), mask),
        **{name: Mean.of(value, number) for name, value in whole.items()},
    }


def measure_patches(
    targets: Float[Array, "b t k"],
    weight: Float[Array, "b t"],
    patch_loss: Float[Array, " b"],
    mask: Bool[Array, " b"],
) -> dict[str, Mean]:
    """The same of the targets of masked patches, whose weight is above 0, and of the loss that has
    these weights: patch_teacher_entropy_share, patch_mean_target_entropy_share,
    patch_target_information and patch_teacher_student_kl."""
    targets, patch_loss = jax.lax.stop_gradient((targets, patch_loss))
    weight = jnp.where(mask[:, None], weight, 0)
    entropy = collapse.entropy(targets)
    # The loss and so the divergence are sums with these weights, which are not one in all.
    total = jnp.where(mask, patch_loss, 0) - jnp.where(weight > 0, weight * entropy, 0).sum(-1)
    found = _of_targets(targets, entropy, weight > 0)
    found["teacher_student_kl"] = Mean(total.sum(), weight.sum())
    return {f"patch_{name}": value for name, value in found.items()}


def _of_targets(
    targets: Float[Array, "*n k"], entropy: Float[Array, "*n"], counts: Bool[Array, "*n"]
) -> dict[str, Mean]:
    largest, number = math.log(targets.shape[-1]), counts.sum()
    mean_entropy = collapse.entropy(collapse.mean_of(targets, counts))
    information = mean_entropy - collapse.mean_of(entropy[..., None], counts)[0]
    return {
        "teacher_entropy_share": Mean.of(entropy / largest, counts),
        "mean_target_entropy_share": Mean.of(mean_entropy / largest, number),
        "target_information": Mean.of(information, number),
    }


def diagnose(metrics: Mapping[str, float], *, centring: str) -> list[str]:
    """What has gone wrong, a sentence each, by the metrics of a line of the log."""
    found = {name.removeprefix("train/"): value for name, value in metrics.items()}
    if not found.get("images_compared", 0) >= FEWEST_IMAGES:  # NaN where no image could be read
        return []
    of_patches = {
        name.removeprefix("patch_"): value
        for name, value in found.items()
        if name.startswith("patch_")
    }
    checks = [_equal_targets(found, centring, "images"), _alike(found)]
    if "target_information" in of_patches:
        checks.append(_equal_targets(of_patches, centring, "masked patches"))
    return [sentence for sentence in checks if sentence]


def _equal_targets(found: Mapping[str, float], centring: str, things: str) -> str:
    """Of which kind the collapse is, if the targets of all `things` are the same."""
    if not found["target_information"] <= LEAST_INFORMATION:  # NaN where no patch was masked
        return ""
    if found["mean_target_entropy_share"] <= LEAST_MEAN_ENTROPY:
        return _few_prototypes(found, centring, things)
    if found["teacher_student_kl"] > LEAST_KL:
        return ""
    if found["teacher_entropy_share"] >= MOST_ENTROPY and centring != "sinkhorn":
        return _uniform(found, centring, things)
    return _constant(found, centring, things)


SLOWER_TEACHER = "raise config.task.momentum or lower config.optimizer.learning_rate"


def _few_prototypes(found: Mapping[str, float], centring: str, things: str) -> str:
    cause = {
        "none": "nothing centres the targets: set config.task.centring to 'centre' or 'sinkhorn'",
        "centre": "the centre is too slow for the teacher: lower config.task.centre_momentum, "
        + SLOWER_TEACHER,
        "sinkhorn": f"the teacher moves too fast: {SLOWER_TEACHER}",
    }[centring]
    return (
        f"collapse: the same few prototypes win for all {things} (the mean target has "
        f"{found['mean_target_entropy_share']:.2f} of the largest entropy, and a target tells "
        f"{found['target_information']:.2g} nats of what it is of); likely {cause}."
    )


def _uniform(found: Mapping[str, float], centring: str, things: str) -> str:
    weaker = " or raise config.task.centre_momentum" if centring == "centre" else ""
    return (
        f"collapse: the targets of all {things} are uniform (entropy "
        f"{found['teacher_entropy_share']:.3f} of the largest) and the student has learned that "
        f"(divergence {found['teacher_student_kl']:.2g} nats); likely they are not sharp enough: "
        "lower config.task.teacher_temperature and warmup_teacher_temperature (0.04 at first; "
        f"above 0.07 is unstable){weaker}."
    )


def _constant(found: Mapping[str, float], centring: str, things: str) -> str:
    """Sinkhorn's even shares turn logits that are all alike into targets that are uniform."""
    also = ", or spread representations by config.task.koleo_weight (0.1 in DINOv2)"
    return (
        f"collapse: the targets of all {things} are the same (entropy "
        f"{found['teacher_entropy_share']:.2f} of the largest, and they tell "
        f"{found['target_information']:.2g} nats) and the student has learned that (divergence "
        f"{found['teacher_student_kl']:.2g} nats); likely the teacher's logits are all alike since "
        f"it moves too fast: {SLOWER_TEACHER}{also if centring == 'sinkhorn' else ''}."
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
