"""CKA against its definition in plain loops, and what it must not depend on."""

import numpy as np
import pytest

from vit_jax.analysis.similarity import linear_cka
from vit_jax.errors import InputError

N = 13


def layers(*widths, seed=0, count=N):
    """Features with means, scales and something in common."""
    rng = np.random.default_rng(seed)
    common = rng.normal(size=(count, 3))
    return [common @ rng.normal(size=(3, c)) + rng.normal(2, 0.5, (count, c)) for c in widths]


def hsic_biased(k, o):
    """tr(KHLH) / (n - 1)², entry by entry."""
    n = len(k)
    h = np.eye(n) - 1 / n
    total = 0.0
    for a in range(n):
        for b in range(n):
            total += (k @ h)[a, b] * (o @ h)[b, a]
    return total / (n - 1) ** 2


def hsic_unbiased(k, o):
    """arXiv:2010.15327, equation 3, sum by sum."""
    n = len(k)
    k, o = k - np.diag(np.diag(k)), o - np.diag(np.diag(o))
    trace = sum(k[a, b] * o[b, a] for a in range(n) for b in range(n))
    rows = sum(k[a, b] * o[b, c] for a in range(n) for b in range(n) for c in range(n))
    second = k.sum() * o.sum() / ((n - 1) * (n - 2))
    return (trace + second - 2 / (n - 2) * rows) / (n * (n - 3))


def test_cka_equals_its_definition():
    first, second = layers(4, 20), layers(7, 2, 5, seed=0)
    found = linear_cka(first, second)
    assert found.shape == (2, 3) and 0.1 < found.min() < found.max() < 0.999
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            k, o = x @ x.T, y @ y.T
            expected = hsic_biased(k, o) / np.sqrt(hsic_biased(k, k) * hsic_biased(o, o))
            np.testing.assert_allclose(found[i, j], expected, rtol=1e-9)


def test_minibatches_average_the_unbiased_estimate():
    first, second, size = layers(4, 20), layers(7, 3), 5
    found = linear_cka(first, second, batch_size=size)
    for i, x in enumerate(first):
        for j, y in enumerate(second):
            sums = np.zeros(3)
            for begin in (0, 5):  # the last three are left out
                k, o = (z[begin : begin + size] @ z[begin : begin + size].T for z in (x, y))
                sums += [hsic_unbiased(k, o), hsic_unbiased(k, k), hsic_unbiased(o, o)]
            np.testing.assert_allclose(found[i, j], sums[0] / np.sqrt(sums[1] * sums[2]), rtol=1e-9)


@pytest.mark.parametrize("batch_size", [None, 6])
def test_cka_asks_for_neither_rotation_nor_scale_nor_place(batch_size):
    (x,), (y,) = layers(6), layers(9, seed=1)
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(6, 6)))
    expected = linear_cka([x], [y], batch_size=batch_size)
    found = linear_cka([3 * x @ rotation + 100], [y], batch_size=batch_size)
    np.testing.assert_allclose(found, expected, rtol=1e-7)
    stretched = linear_cka([x * np.arange(1, 7)], [y], batch_size=batch_size)
    assert abs(stretched - expected) > 1e-3


@pytest.mark.parametrize("batch_size", [None, 6])
def test_a_model_is_like_itself(batch_size):
    every = layers(4, 6, 8)
    found = linear_cka(every, every, batch_size=batch_size)
    np.testing.assert_allclose(np.diag(found), 1, rtol=1e-12)
    np.testing.assert_allclose(found, found.T, rtol=1e-12)


def test_unbiased_estimates_of_unlike_features_are_near_zero():
    """Where the biased one is not: few examples of many features always look alike."""
    rng = np.random.default_rng(0)
    first, second = ([rng.normal(size=(200, 100))] for _ in range(2))
    assert linear_cka(first, second) > 0.3
    assert abs(linear_cka(first, second, batch_size=50)) < 0.05


@pytest.mark.parametrize("value", [1, 0.1, 1e6 / 3, -1e-3])
@pytest.mark.parametrize("batch_size", [None, 6])
def test_what_does_not_vary_is_like_nothing(value, batch_size):
    """Also where the mean of equal numbers is not that number, by rounding."""
    found = linear_cka([np.full((N, 3), value), *layers(4)], layers(5), batch_size=batch_size)
    assert np.isnan(found[0, 0]) and np.isfinite(found[1, 0])


@pytest.mark.parametrize(
    "second, batch_size, message",
    [
        (layers(3, count=N - 1), None, r"\[12, 13\] examples; allowed: of the same"),
        (layers(3), 3, "CKA of 3 of 13 examples; allowed: 4 to 13"),
        (layers(3), N + 1, "CKA of 14 of 13 examples"),
    ],
)
def test_what_cannot_be_compared_is_refused(second, batch_size, message):
    with pytest.raises(InputError, match=message):
        linear_cka(layers(4), second, batch_size=batch_size)
