"""Classification, measured in full: overall, by class, and what is taken for what.

Letters: n examples; k classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from vit_jax.evaluation.bootstrap import interval_of_mean
from vit_jax.evaluation.protocol import TEST, Protocol, Report, SplitOutputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Protocol):
    """Accuracy by the model's own head."""

    reads: ClassVar[tuple[str, ...]] = ("logits",)

    def metric_names(self) -> list[str]:
        return ["top1", "top5"]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        test = outputs[TEST]
        hits = {f"top{k}": top_k_hits(test.logits, test.label, k=k) for k in (1, 5)}
        return Report(
            metrics={name: float(hit.mean()) for name, hit in hits.items()},
            intervals={name: interval_of_mean(hit) for name, hit in hits.items()},
        )


def top_k_hits(
    logits: Float[np.ndarray, "n k"], label: Int[np.ndarray, " n"], *, k: int
) -> Bool[np.ndarray, " n"]:
    """Is the label among the k largest logits? Of equal ones the first counts as the larger."""
    own = np.take_along_axis(logits, label[:, None], axis=1)
    is_before = (logits == own) & (np.arange(logits.shape[1]) < label[:, None])
    return ((logits > own) | is_before).sum(axis=1) < k
