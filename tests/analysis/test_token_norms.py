"""Norms of tokens against the tokens; outliers that were planted are found, and no others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import normal, random_like

from vit_jax import models
from vit_jax.analysis.token_norms import find_outliers, token_norms
from vit_jax.errors import InputError
from vit_jax.models import vit


def test_norms_are_those_of_each_layers_tokens():
    settings = dict(num_classes=2, patch_size=4, width=8, mlp_dim=8, num_heads=2, unroll=1)
    model = vit.build(**settings, depth=2, num_registers=1, final_norm="none")
    images = normal(2, 8, 12, 3)
    variables = random_like(jax.eval_shape(model.init, jax.random.key(0), images))
    found = token_norms(model, variables, images)
    assert found.shape == (2, 2, 1 + 1 + 6)
    tokens = np.asarray(jax.jit(model.apply)(variables, images).tokens)
    np.testing.assert_allclose(found[-1], np.sqrt((tokens**2).sum(-1)), rtol=1e-5)
    first = jax.tree.map(lambda leaf: leaf[:1], variables["params"]["encoder"])
    shallow = {"params": variables["params"] | {"encoder": first}}
    tokens = np.asarray(jax.jit(model.clone(depth=1).apply)(shallow, images).tokens)
    np.testing.assert_allclose(found[0], np.sqrt((tokens**2).sum(-1)), rtol=1e-5)
    mixer = models.build("mixer", size="S", patch_size=16, num_classes=2)
    with pytest.raises(InputError, match="a Mixer has no attention"):
        token_norms(mixer, {}, jnp.zeros((1, 32, 32, 3)))


@pytest.mark.parametrize("share", [0.0, 0.001, 0.02, 0.2])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_planted_outliers_are_found_and_no_others(share, scale):
    """Log-normal norms, and some that are eight times as large."""
    rng = np.random.default_rng(0)
    norms = scale * np.exp(0.25 * rng.normal(size=20_000))
    count = int(share * len(norms))
    norms[:count] *= 8
    found = find_outliers(norms)
    # Of those that were made eight times as large, in logarithms 8.3 widths, a few were the lowest
    # of all; the median moves with them.
    assert found.share == pytest.approx(share, abs=0.02 * share)
    # Five widths, 0.25 each; a fifth of outliers moves the low side's percentiles.
    assert np.log(found.cut / scale) == pytest.approx(5 * 0.25, abs=0.05 + 2 * share)


def test_a_cut_of_ones_own_is_taken_and_bad_norms_are_refused():
    norms = np.array([[1.0, 2.0], [150.0, 151.0]])
    assert find_outliers(norms, cut=150.0) == (150.0, 0.25)
    for bad in (np.array([]), np.array([1.0, 0.0])):
        with pytest.raises(InputError, match="allowed: norms above 0"):
            find_outliers(bad)
