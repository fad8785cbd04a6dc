"""How alike the features of layers are, of one model or of two: linear CKA (arXiv:1905.00414).

Of two layers' features X and Y of the same examples, with K = XXᵀ and L = YYᵀ,

    CKA(X, Y) = HSIC(K, L) / sqrt(HSIC(K, K) · HSIC(L, L))

which is 1 where they are the same but for a rotation and a scale, whatever their widths. Two
estimates of HSIC:

    biased    tr(K H L H) / (n - 1)², H = 1 - 11ᵀ/n subtracts means (there, equation 3)
    unbiased  [tr(K' L') + 1ᵀK'1 · 1ᵀL'1 / ((n - 1)(n - 2)) - 2/(n - 2) · 1ᵀK'L'1] / (n (n - 3)),
              K' and L' being K and L with zeros on their diagonals (arXiv:2010.15327, equation 3);
              its mean over minibatches estimates HSIC of all examples in the memory of one.

Letters: n examples of a minibatch, m in all; k, l layers.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vit_jax.errors import InputError

FEWEST = 4  # examples, below which the unbiased estimate divides by zero


def linear_cka(
    first: Sequence[Float[np.ndarray, "m _"]],
    second: Sequence[Float[np.ndarray, "m _"]],
    *,
    batch_size: int | None = None,
) -> Float[np.ndarray, "k l"]:
    """CKA of each layer of `first` with each of `second`.

    The reference is the definition with HSIC in plain loops, in tests/analysis/test_similarity.py.

    Args:
      first, second: features of the same examples in the same order, of any widths.
      batch_size: of minibatches, over which unbiased estimates are averaged; what is left at the
        end is left out. None is the biased estimate of all examples at once, in m² numbers a layer.

    Returns:
      NaN where features of a layer do not vary.
    """
    sizes = {len(features) for features in (*first, *second)}
    if len(sizes) != 1:
        raise InputError(f"layers have features of {sorted(sizes)} examples; allowed: of the same.")
    (total,) = sizes
    n, fewest = (total, 2) if batch_size is None else (batch_size, FEWEST)
    if not fewest <= n <= total:
        raise InputError(f"CKA of {n} of {total} examples; allowed: {fewest} to {total}.")
    kernel = _centred if batch_size is None else _unbiased
    cross, ours, theirs = 0.0, 0.0, 0.0
    for begin in range(0, total - n + 1, n):
        rows = slice(begin, begin + n)
        one, other = (
            np.stack([kernel(features[rows]).ravel() for features in layers])
            for layers in (first, second)
        )
        cross = cross + one @ other.T
        ours, theirs = ours + (one**2).sum(axis=1), theirs + (other**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return cross / np.sqrt(np.outer(ours, theirs))


def _centred(features: Float[np.ndarray, "n _"]) -> Float[np.ndarray, "n n"]:
    """HKH: tr(KHLH) is the sum of products of two such, as H = H²."""
    x = np.asarray(features, np.float64)
    # The mean of equal numbers may be one bit off, which would make a pattern of what has none.
    varies = np.ptp(x, axis=0) > np.finfo(np.float64).eps * np.abs(x).max(axis=0)
    x = np.where(varies, x - x.mean(axis=0), 0)
    return x @ x.T


def _unbiased(features: Float[np.ndarray, "n _"]) -> Float[np.ndarray, "n n"]:
    """K' less row and column terms, so that n (n - 3) HSIC is the sum of products of two such.

    This U-centring (Székely and Rizzo 2014, arXiv:1310.2926, section 3.1) turns the three terms at
    the top of this file into one.
    """
    kernel = _centred(features)  # means change nothing, but large ones would cost digits
    n = len(kernel)
    np.fill_diagonal(kernel, 0)
    rows = kernel.sum(axis=1) / (n - 2)
    kernel = kernel - rows[:, None] - rows + kernel.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(kernel, 0)
    return kernel
