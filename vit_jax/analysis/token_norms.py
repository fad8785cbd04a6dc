"""Norms of tokens by layer: a few that are far too large stand for registers (arXiv:2309.16588).

Section 2 there: of large models some 2 % of the patches, where the image is plain, leave the last
layers with norms several times those of the others; they hold what is known of the whole image, and
little of their place. The histogram of norms has two humps, between which the paper cuts by eye, at
150 for DINOv2's g. A hump of 2 % is too small to be told by a fit of two, so the cut here is from
the large one alone, of the logarithms: its median and five times its lower side's width. Of a
normal distribution 3 in 10 million lie above it.

Letters: l layers; b images; n tokens.
"""

import functools
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vit_jax.analysis.heads import check_has_attention, rolled
from vit_jax.core import Variables
from vit_jax.errors import InputError

WIDTHS = 5.0
ONE_WIDTH_BELOW = 15.87  # percent of a normal distribution lie below its mean less one deviation


class Outliers(NamedTuple):
    """Norms that are far too large.

    Attributes:
      cut: they are above it.
      share: of all norms.
    """

    cut: float
    share: float


def token_norms(
    model: nn.Module, variables: Variables, images: Float[Array, "b H W C"]
) -> Float[Array, "l b n"]:
    """Euclidean norms of what each layer gives, before the encoder's last norm.

    The patches are the last tokens: norms[..., model.num_prefix:].
    """
    return _norms(check_has_attention(model), variables, images)


@functools.partial(jax.jit, static_argnames="model")
def _norms(model, variables, images):
    _, kept = rolled(model).apply(variables, images, mutable=["intermediates"])
    (tokens,) = kept["intermediates"]["encoder"]["blocks"]["tokens"]
    return jnp.linalg.norm(tokens.astype(jnp.float32), axis=-1)


def find_outliers(norms: Float[np.ndarray, " ..."], *, cut: float | None = None) -> Outliers:
    """Norms that are far too large among those of a layer's patches, of many images.

    Args:
      cut: in place of the one that is found; see the top of this file.
    """
    norms = np.asarray(norms, np.float64).ravel()
    if not norms.size or not (norms > 0).all():
        raise InputError("there are no norms, or some that are 0; allowed: norms above 0.")
    if cut is None:
        low, middle = np.percentile(np.log(norms), [ONE_WIDTH_BELOW, 50])
        cut = np.exp(middle + WIDTHS * (middle - low))
    return Outliers(float(cut), float((norms > cut).mean()))
