"""Learned rows and columns, and relative positions, against loops over single numbers."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_params

from vit_jax.errors import InputError
from vit_jax.layers import attention, resize
from vit_jax.layers.attention import MultiHeadAttention, attend
from vit_jax.layers.position_tables import AxisPositions, RelativeKeys

GRID = (2, 3)
M, H, D = 6, 2, 4  # patches of the grid, heads, channels of a head


@pytest.mark.parametrize("grid", [(2, 3), (3, 2), (1, 4)])
def test_a_patch_has_the_vectors_of_its_column_and_its_row(grid):
    layer = AxisPositions(grid, 8)
    params = random_params(layer, grid=grid)
    found = layer.apply({"params": params}, grid)
    expected = [
        [*params["columns"][column], *params["rows"][row]]
        for row in range(grid[0])
        for column in range(grid[1])  # patches are numbered row by row
    ]
    np.testing.assert_array_equal(found, np.asarray(expected)[None])


def test_tables_are_resized_axis_by_axis():
    layer = AxisPositions(GRID, 8)
    params = random_params(layer, grid=GRID)
    found = layer.apply({"params": params}, (4, 5)).reshape(4, 5, 8)
    columns, rows = (resize.resize_axis(params[n], s) for n, s in (("columns", 5), ("rows", 4)))
    for row in range(4):
        for column in range(5):
            np.testing.assert_array_equal(found[row, column], [*columns[column], *rows[row]])


def test_resized_axes_are_those_of_a_resized_grid():
    """An image that varies along one axis alone is resized along that axis alone."""
    table = normal(3, 4)
    grid = np.repeat(np.asarray(table)[:, None], 5, 1).reshape(1, 15, 4)
    whole = resize.resize_positions(grid, old_grid=(3, 5), new_grid=(7, 5), num_prefix=0)
    alone = resize.resize_axis(table, 7)
    np.testing.assert_allclose(whole.reshape(7, 5, 4)[:, 0], alone, rtol=1e-5, atol=1e-6)


def test_two_axes_need_an_even_width():
    with pytest.raises(InputError, match="width is 7; allowed with learned2d positions: an even"):
        AxisPositions(GRID, 7).init(jax.random.key(0), GRID)


# relative positions


@pytest.mark.parametrize("num_prefix", [0, 2])
def test_scores_of_relative_keys_equal_loops(num_prefix):
    layer, query = RelativeKeys(num_prefix), normal(3, num_prefix + M, H, D)
    params = random_params(layer, query)
    table = np.asarray(params["embedding"], np.float64)
    assert table.shape == (2 * M - 1, D)
    expected = np.zeros((3, H, num_prefix + M, num_prefix + M))
    for q in range(M):
        for k in range(M):
            vector = table[q - k + M - 1]
            for b in range(3):
                for h in range(H):
                    score = np.asarray(query)[b, num_prefix + q, h] @ vector / math.sqrt(D)
                    expected[b, h, num_prefix + q, num_prefix + k] = score
    found = layer.apply({"params": params}, query)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_scores_depend_on_the_offset_alone():
    """The same queries one place further on have the same scores with keys one place further."""
    query = normal(1, M, H, D)
    params = random_params(RelativeKeys(0), query)
    shifted = jnp.concatenate([normal(1, 1, H, D, seed=1), query[:, :-1]], axis=1)
    one, other = (RelativeKeys(0).apply({"params": params}, x) for x in (query, shifted))
    np.testing.assert_allclose(one[:, :, :-1, :-1], other[:, :, 1:, 1:], rtol=1e-5, atol=1e-6)
    assert np.ptp(one) > 0.1


@pytest.mark.parametrize("mask", [None, "keys"])
def test_kernels_that_take_a_bias_equal_its_definition(mask):
    query, key, value = (normal(2, 5, H, D, seed=seed) for seed in range(3))
    bias = normal(2, H, 5, 5, seed=3)
    seen = np.array([True, True, False, True, True])
    mask = None if mask is None else jnp.broadcast_to(seen, (2, 1, 1, 5))
    scores = np.einsum("bnhd,bmhd->bhnm", query, key) / math.sqrt(D) + bias
    weights = np.exp(scores) * (1 if mask is None else seen)
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhnm,bmhd->bnhd", weights, value)
    for kernel in (*attention.TAKE_BIAS, "auto"):
        found = attend(query, key, value, mask=mask, bias=bias, implementation=kernel)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", sorted(attention.KERNELS.keys() - set(attention.TAKE_BIAS)))
def test_other_kernels_refuse_a_bias(kernel, monkeypatch):
    monkeypatch.setattr(attention, "cudnn_problem", lambda case: None)  # as on a GPU
    x = normal(2, M, H * D)
    layer = MultiHeadAttention(H, implementation=kernel, relative_prefix=0)
    message = f"is '{kernel}', but position_embedding 'relative' .*: auto, dense, xla"
    with pytest.raises(InputError, match=message):
        layer.init(jax.random.key(0), x)


def test_attention_adds_what_relative_keys_give():
    x = normal(2, 1 + M, H * D)
    layer = MultiHeadAttention(H, relative_prefix=1)
    params = random_params(layer, x)
    query, key, value = (
        np.einsum("bnc,chd->bnhd", x, params[n]["kernel"]) + params[n]["bias"]
        for n in ("query", "key", "value")
    )
    bias = RelativeKeys(1).apply({"params": params["relative_positions"]}, query)
    mixed = attend(query, key, value, bias=bias)
    expected = np.einsum("bnhd,hdc->bnc", mixed, params["out"]["kernel"]) + params["out"]["bias"]
    found = layer.apply({"params": params}, x)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
