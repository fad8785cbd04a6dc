"""Attention maps against a NumPy forward pass; rollout and distance against loops and formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import spearmanr
from toys import normal, random_like

from vit_jax import models
from vit_jax.analysis.attention import (
    attention_distance,
    attention_maps,
    attention_rollout,
    distance_trend,
    pixels_of_patch,
)
from vit_jax.errors import InputError
from vit_jax.models import vit

TINY = dict(num_classes=5, patch_size=4, width=8, depth=3, mlp_dim=12, num_heads=2, unroll=1)
IMAGE = (8, 12, 3)  # two rows of three patches


@functools.cache
def model_and_variables(shape=IMAGE, **settings):
    model = vit.build(**{**TINY, **settings})
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    return model, {name: random_like(tree) for name, tree in variables.items()}


def maps_in_numpy(model, variables, images):
    """From the tokens between the blocks and the parameters alone, head by head, in float64."""
    run = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))
    _, kept = run(variables, images)
    after = np.asarray(kept["intermediates"]["encoder"]["blocks"]["tokens"][0], np.float64)
    shallow = model.clone(depth=1, final_norm="none")
    blocks = variables["params"]["encoder"]["blocks"]
    # A block whose branches end in zeros passes on what came in.
    silent = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[:1]), blocks)
    params = variables["params"] | {"encoder": {"blocks": silent}}
    first = jax.jit(shallow.apply)({**variables, "params": params}, images).tokens
    before = [np.asarray(first, np.float64), *after[:-1]]
    maps = []
    for i, x in enumerate(before):
        p = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i], np.float64), blocks)
        centred = x - x.mean(-1, keepdims=True)
        y = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
        y = y * p["attention_norm"]["scale"] + p["attention_norm"]["bias"]
        heads = []
        for h in range(TINY["num_heads"]):
            q, k = (
                y @ p["attention"][n]["kernel"][:, h] + p["attention"][n]["bias"][h]
                for n in ("query", "key")
            )
            scores = q @ k.swapaxes(1, 2)
            if model.position_embedding == "relative":
                table = p["attention"]["relative_positions"]["embedding"]
                for one in range(6):
                    for other in range(6):
                        a, b = model.num_prefix + one, model.num_prefix + other
                        scores[:, a, b] += q[:, a] @ table[one - other + 5]
            weights = np.exp(scores / np.sqrt(q.shape[-1]))
            heads.append(weights / weights.sum(-1, keepdims=True))
        maps.append(np.stack(heads, 1))
    return np.stack(maps)


@pytest.mark.parametrize(
    "settings",
    [
        dict(attention_implementation="xla"),
        dict(attention_implementation="pallas", pool="map", num_registers=2),
        dict(position_embedding="relative", pool="cls_gap", unroll=3),
        dict(position_embedding="learned2d", pool="gap", remat="full"),
        dict(stem="resnet_root", patch_size=2, pool="gap"),
    ],
    ids=str,
)
def test_maps_equal_the_definition_whatever_kernel_computes_the_model(settings):
    shape = (16, 24, 3) if "stem" in settings else IMAGE
    model, variables = model_and_variables(shape, **settings)
    images = normal(2, *shape)
    found = attention_maps(model, variables, images)
    expected = maps_in_numpy(model, variables, images)
    n = model.num_prefix + 6
    assert found.shape == (3, 2, 2, n, n) and np.ptp(expected) > 0.1
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_layers_are_chosen_from_either_end():
    model, variables = model_and_variables()
    images = normal(2, *IMAGE)
    every = attention_maps(model, variables, images)
    some = attention_maps(model, variables, images, layers=(-1, 0))
    np.testing.assert_allclose(some, every[np.array([2, 0])], rtol=1e-6)
    for layer in (3, -4):
        with pytest.raises(InputError, match=f"layers has {layer}; allowed: -3 to 2"):
            attention_maps(model, variables, images, layers=(layer,))


def test_rotations_count():
    """Patches in reverse have rows and columns of the maps in reverse, but for positions."""
    images = normal(1, 4, 12, 3)
    swapped = images.reshape(1, 4, 3, 4, 3)[:, :, ::-1].reshape(images.shape)
    differences = []
    for name in ("none", "rope"):
        model, variables = model_and_variables((4, 12, 3), pool="gap", position_embedding=name)
        one, other = (attention_maps(model, variables, x, layers=(0,)) for x in (images, swapped))
        differences.append(np.abs(one - other[..., ::-1, ::-1]).max())
    assert differences[0] < 1e-5 and differences[1] > 1e-2


@pytest.mark.parametrize(
    "model",
    [
        models.build("mixer", size="S", patch_size=16, num_classes=2),
        models.build("resnet", num_classes=2, depth=50),
    ],
    ids=lambda model: type(model).__name__,
)
def test_models_without_attention_are_refused(model):
    with pytest.raises(InputError, match=f"a {type(model).__name__} has no attention.*allowed"):
        attention_maps(model, {}, jnp.zeros((1, 32, 32, 3)))


# rollout


def random_maps(layers, b, h, n, seed=0):
    scores = np.exp(np.random.default_rng(seed).normal(size=(layers, b, h, n, n)))
    return jnp.asarray(scores / scores.sum(-1, keepdims=True), jnp.float32)


@pytest.mark.parametrize("residual", [0.5, 0.2, 0.0])
def test_rollout_equals_plain_loops(residual):
    maps = random_maps(3, 2, 4, 5)
    found = attention_rollout(maps, residual=residual)
    for b in range(2):
        rolled = np.eye(5)
        for i in range(3):
            passed = np.zeros((5, 5))
            for q in range(5):
                for k in range(5):
                    weight = (1 - residual) * np.mean([maps[i, b, h, q, k] for h in range(4)])
                    passed[q] += (weight + residual * (q == k)) * rolled[k]
            rolled = passed
        np.testing.assert_allclose(found[b], rolled, rtol=1e-5, atol=1e-6)


def test_rollout_of_tokens_that_attend_to_themselves_is_the_identity():
    maps = jnp.broadcast_to(jnp.eye(4), (6, 1, 2, 4, 4))
    np.testing.assert_allclose(attention_rollout(maps)[0], np.eye(4), atol=1e-6)
    np.testing.assert_allclose(attention_rollout(random_maps(9, 2, 3, 7)).sum(-1), 1, rtol=1e-5)
    with pytest.raises(InputError, match="residual is 1.0; allowed"):
        attention_rollout(maps, residual=1.0)


# distance


def test_distance_of_known_maps_is_its_closed_form():
    n = 12
    uniform = jnp.full((1, 1, 1, n, n), 1 / n)
    # On a line of n places the mean distance of two, themselves included, is (n² - 1) / (3n).
    for grid, patch_size in (((1, n), (7, 5)), ((n, 1), (5, 9))):
        found = attention_distance(uniform, grid, patch_size)
        np.testing.assert_allclose(found, 5 * (n**2 - 1) / (3 * n), rtol=1e-5)
    identity = jnp.eye(n)[None, None, None]
    np.testing.assert_array_equal(attention_distance(identity, (3, 4), (2, 2)), [[0.0]])


@pytest.mark.parametrize("step, pixels", [((0, 1), 6), ((1, 0), 4), ((1, 1), np.hypot(4, 6))])
def test_distance_of_one_step_is_that_of_a_patch(step, pixels):
    """On a torus, but from queries whose step stays inside; heads and layers are kept apart."""
    rows, columns = 3, 4
    maps = np.zeros((2, 1, 2, 12, 12))
    maps[:] = np.eye(12)
    for row in range(rows):
        for column in range(columns):
            to = ((row + step[0]) % rows) * columns + (column + step[1]) % columns
            is_inside = row + step[0] < rows and column + step[1] < columns
            if is_inside:
                maps[1, 0, 1, row * columns + column] = np.eye(12)[to]
    inside = (rows - step[0]) * (columns - step[1]) / 12
    found = attention_distance(jnp.asarray(maps), (rows, columns), (4, 6))
    np.testing.assert_allclose(found, [[0, 0], [0, pixels * inside]], rtol=1e-6)


def test_tokens_in_front_are_left_out_of_distances():
    maps = np.asarray(random_maps(2, 3, 2, 6))
    framed = np.zeros((2, 3, 2, 8, 8))
    framed[..., 2:, 2:] = 0.3 * maps  # the rest of each query's weight is on the class token
    framed[..., 0] = 0.7
    whole = attention_distance(jnp.asarray(maps), (2, 3), (4, 4))
    left = attention_distance(jnp.asarray(framed), (2, 3), (4, 4), num_prefix=2)
    np.testing.assert_allclose(left, whole, rtol=1e-5)


def test_another_grid_is_refused():
    maps = random_maps(2, 2, 2, 6)
    for grid, num_prefix in (((2, 2), 0), ((2, 3), 1), ((1, 6), 2)):
        with pytest.raises(InputError, match="but there are 6; allowed: the grid"):
            attention_distance(maps, grid, (4, 4), num_prefix=num_prefix)


def test_trend_is_spearmans_and_nothing_where_all_layers_are_alike():
    up = jnp.array([[1.0, 2.0], [2.0, 3.0], [5.0, 5.0]])
    assert distance_trend(up) == pytest.approx(1) and distance_trend(up[::-1]) == pytest.approx(-1)
    assert distance_trend(jnp.full((4, 2), 3.0)) == 0


def test_distance_is_averaged_over_images():
    maps = random_maps(2, 4, 2, 6)
    alone = [attention_distance(maps[:, i : i + 1], (2, 3), (4, 4)) for i in range(4)]
    together = attention_distance(maps, (2, 3), (4, 4))
    np.testing.assert_allclose(together, np.mean(alone, axis=0), rtol=1e-5)


def test_trend_is_the_rank_correlation_of_depth_and_distance():
    rising = jnp.asarray([[1.0, 3.0], [2.0, 2.5], [9.0, 9.5], [10.0, 9.0]])
    assert distance_trend(rising) == pytest.approx(1)
    assert distance_trend(rising[::-1]) == pytest.approx(-1)
    means = np.random.default_rng(0).normal(size=9)
    found = distance_trend(jnp.stack([means, means], axis=1))
    assert found == pytest.approx(spearmanr(np.arange(9), means).statistic, abs=1e-6)
    with pytest.raises(InputError, match="1 layer.*allowed: 2 or more"):
        distance_trend(rising[:1])


def test_a_patch_of_a_hybrid_is_as_large_as_its_stem_makes_it():
    assert pixels_of_patch(vit.build(**TINY)) == (4, 4)
    hybrid = vit.build(**{**TINY, "patch_size": (1, 2)}, stem="conv_1gf")
    assert pixels_of_patch(hybrid) == (16, 32)


def test_no_layers_have_no_rollout():
    with pytest.raises(InputError, match="maps of 0 layers; allowed: 1 or more"):
        attention_rollout(np.zeros((0, 1, 2, 5, 5)))


def test_a_head_that_looks_at_no_patch_has_no_distance(recwarn):
    maps = random_maps(1, 1, 2, 5)
    maps = np.array(maps)
    maps[0, 0, 0, 2] = np.eye(5)[0]  # all on the token in front
    found = attention_distance(maps, (2, 2), (4, 4), num_prefix=1)
    assert np.isnan(found[0, 0]) and np.isfinite(found[0, 1]) and not recwarn.list
