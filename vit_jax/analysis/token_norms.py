"""Norms of tokens by layer: outliers that stand for registers (arXiv:2309.16588, section 2).

Letters: l layers; b images; n tokens.
"""

from typing import NamedTuple

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

from vit_jax.core import Variables


class Groups(NamedTuple):
    """Low and high norms.

    Attributes:
      cut: between them; None where there is one group alone.
      separation: distance of the groups' means, in their widths.
      share: of norms above the cut; 0 where there is none.
    """

    cut: float | None
    separation: float
    share: float


def token_norms(
    model: nn.Module, variables: Variables, images: Float[Array, "b H W C"]
) -> Float[Array, "l b n"]:
    """Of each layer's output, before the encoder's last norm; patches are the last tokens."""
    raise NotImplementedError


def find_groups(norms: Float[np.ndarray, " ..."], *, cut: float | None = None) -> Groups:
    """Are there outliers? `cut` in place of the one that is found."""
    raise NotImplementedError
