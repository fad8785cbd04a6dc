"""Principal components of filters, and similarity of positions, against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_like

from vit_jax.analysis.embeddings import (
    axis_contrast,
    neighbour_contrast,
    patch_filters,
    position_embeddings,
    position_similarity,
)
from vit_jax.errors import InputError
from vit_jax.layers import position
from vit_jax.layers.resize import resize_positions
from vit_jax.models import vit

TINY = dict(num_classes=5, patch_size=4, width=8, depth=1, mlp_dim=12, num_heads=2)


def model_and_variables(shape=(8, 12, 3), **settings):
    model = vit.build(**{**TINY, **settings})
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), image)["params"]
    return model, {"params": random_like(params)}


def test_filters_are_the_directions_of_most_variance():
    kernel = normal(2, 3, 2, 50)
    found = patch_filters({"params": {"patch_embedding": {"kernel": kernel}}}, 5)
    assert found.shape == (5, 2, 3, 2)
    filters = np.asarray(kernel, np.float64).reshape(12, 50).T
    values, vectors = np.linalg.eigh(np.cov(filters, rowvar=False))
    for i in range(5):  # eigh's order is ascending
        direction = found[i].reshape(-1)
        assert abs(direction @ vectors[:, -1 - i]) == pytest.approx(1, abs=1e-4)
        assert direction[np.abs(direction).argmax()] > 0
        variance = (filters @ direction).var(ddof=1)
        assert variance == pytest.approx(values[-1 - i], rel=1e-4)


def test_there_are_no_more_filters_than_pixels():
    kernel = normal(2, 2, 1, 8)
    found = patch_filters({"params": {"patch_embedding": {"kernel": kernel}}})
    assert found.shape == (4, 2, 2, 1)
    with pytest.raises(InputError, match="no patch_embedding; allowed"):
        patch_filters({"params": {}})


@pytest.mark.parametrize("name", ["sincos1d", "sincos2d"])
def test_similarity_of_fixed_positions_is_that_of_their_formula(name):
    model, variables = model_and_variables(position_embedding=name)
    table = np.asarray(position.FIXED[name]((2, 3), 8))
    found = position_similarity(position_embeddings(model, variables, (2, 3)), (2, 3))
    for a in range(6):
        for b in range(6):
            cosine = table[a] @ table[b] / np.linalg.norm(table[a]) / np.linalg.norm(table[b])
            assert found[a // 3, a % 3, b // 3, b % 3] == pytest.approx(cosine, abs=1e-5)


@pytest.mark.parametrize("pool, num_prefix", [("cls", 1), ("gap", 0)])
def test_learned_positions_are_those_of_the_patches(pool, num_prefix):
    model, variables = model_and_variables(pool=pool)
    stored = np.asarray(variables["params"]["position_embedding"])
    found = position_embeddings(model, variables, (2, 3))
    np.testing.assert_array_equal(found, stored[0, num_prefix:])


def test_kept_positions_are_resized_as_the_model_does():
    model, variables = model_and_variables(position_grid=(4, 4), pool="gap")
    stored = variables["params"]["position_embedding"]
    expected = resize_positions(stored, old_grid=(4, 4), new_grid=(2, 3), num_prefix=0)
    np.testing.assert_array_equal(position_embeddings(model, variables, (2, 3)), expected[0])


def test_rows_and_columns_make_similarity_a_sum_of_both():
    """With equal norms the cosine is the mean of that of the rows and that of the columns."""
    model, variables = model_and_variables(position_embedding="learned2d")
    tables = variables["params"]["position_embedding"]
    unit = {n: t / jnp.linalg.norm(t, axis=-1, keepdims=True) for n, t in tables.items()}
    variables = {"params": variables["params"] | {"position_embedding": unit}}
    found = position_similarity(position_embeddings(model, variables, (2, 3)), (2, 3))
    rows, columns = (np.asarray(unit[n] @ unit[n].T) for n in ("rows", "columns"))
    expected = (rows[:, None, :, None] + columns[None, :, None, :]) / 2
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", ["relative", "rope", "none"])
def test_positions_that_add_nothing_to_tokens_are_refused(name):
    model, variables = model_and_variables(position_embedding=name)
    with pytest.raises(InputError, match=f"'{name}', which adds nothing.*allowed: learned, "):
        position_embeddings(model, variables, (2, 3))


def similarity_of(law, grid=(4, 5)):
    """A similarity that is a function of the rows and columns between two patches."""
    rows, columns = (abs(x[:, :, None, None] - x) for x in np.indices(grid))
    return law(rows, columns).astype(float)


def test_contrasts_are_of_what_they_say():
    near = similarity_of(lambda r, c: r + c == 1)
    assert neighbour_contrast(near) == 1 and axis_contrast(near) == 0
    aligned = similarity_of(lambda r, c: (r == 0) | (c == 0))
    assert axis_contrast(aligned) == 1
    fading = similarity_of(lambda r, c: 1 - 0.1 * (r + c))
    assert axis_contrast(fading) == pytest.approx(0) and neighbour_contrast(fading) > 0
    far = similarity_of(lambda r, c: r + c >= 4)  # 7 steps are the most, so half of them are 3.5
    assert neighbour_contrast(far) == -1
    constant = similarity_of(lambda r, c: np.ones_like(r))
    assert axis_contrast(constant) == neighbour_contrast(constant) == 0


def test_filters_that_are_not_finite_are_refused():
    kernel = np.full((2, 2, 3, 8), np.nan)
    with pytest.raises(InputError, match="patch_embedding has numbers that are not finite"):
        patch_filters({"params": {"patch_embedding": {"kernel": kernel}}})


def test_a_single_patch_has_no_neighbours():
    with pytest.raises(InputError, match="grid is 1x1; allowed: two patches"):
        neighbour_contrast(np.ones((1, 1, 1, 1)))


def test_a_line_has_no_rows_and_columns_to_compare():
    with pytest.raises(InputError, match="grid is 1x4; allowed"):
        axis_contrast(np.ones((1, 4, 1, 4)))
