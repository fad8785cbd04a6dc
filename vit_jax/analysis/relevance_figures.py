"""Pictures of relevance, of its faithfulness, and of token norms.

Letters: b images; h, w, c pixels and channels; r, s rows and columns of cells; l layers; m patches.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.analysis.faithfulness import Faithfulness


def draw_relevances(
    images: UInt8[np.ndarray, "b h w c"],
    relevances: Mapping[str, Float[np.ndarray, "b r s"]],
    target: Path,
    *,
    captions: Sequence[str] | None = None,
    title: str = "",
) -> None:
    """A row for each image: itself, then a heat map over it for each method."""
    raise NotImplementedError


def draw_faithfulness(results: Mapping[str, Faithfulness], target: Path) -> None:
    """Deletion and insertion curves, with areas and standard errors in the legend."""
    raise NotImplementedError


def draw_token_norms(
    norms: Float[np.ndarray, "l b m"], target: Path, *, cut: float | None = None, title: str = ""
) -> None:
    """A histogram of patches' norms after the last layer, and norms by layer."""
    raise NotImplementedError
