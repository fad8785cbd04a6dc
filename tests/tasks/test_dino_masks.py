"""The law of the masks: how many patches, which shapes, and that an example keeps its own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.tasks.dino_masks import PatchLoss, block_mask

GRID = (9, 14)


@pytest.fixture(scope="module")
def masks():
    """bool[100 numbers of patches, rows, columns]."""
    keys = jax.random.split(jax.random.key(0), 100)
    return np.asarray(jax.jit(jax.vmap(lambda k, n: block_mask(k, n, GRID)))(keys, jnp.arange(100)))


def test_exactly_as_many_patches_as_asked_for(masks):
    assert masks.sum((1, 2)).tolist() == list(range(100))


def test_masks_are_blocks_and_not_noise(masks):
    """Of the masked patches' neighbours to the right far more are masked than by chance."""
    for number in (20, 60):
        inside = masks[number : number + 10]
        together = (inside[:, :, 1:] & inside[:, :, :-1]).sum() / inside[:, :, :-1].sum()
        assert together > 0.7 and together > 1.3 * inside.mean()


def test_every_patch_is_masked_at_times(masks):
    assert masks[30:].any(0).all()


@pytest.fixture(scope="module")
def hidden():
    """Of 500 examples with two views each."""
    law = PatchLoss(mask_probability=0.4, mask_ratio=(0.1, 0.3))
    keys = jax.random.split(jax.random.key(1), 500)
    return jax.tree.map(np.asarray, jax.jit(lambda keys: law.hide(keys, 2, GRID))(keys))


def test_ratio_and_probability_are_as_asked_for(hidden):
    share = hidden.masked.mean(-1)
    some = share[share > 0]
    assert abs((share > 0).mean() - 0.4) < 4 * np.sqrt(0.4 * 0.6 / 1000)
    # One patch is 0.008; floor takes half of one in the mean.
    assert some.min() >= 0.1 - 0.008 and some.max() <= 0.3
    np.testing.assert_allclose(some.mean(), 0.2 - 0.004, atol=4 * 0.2 / np.sqrt(12 * 400))
    assert abs(np.corrcoef(share[:, 0], share[:, 1])[0, 1]) < 4 / np.sqrt(500)


def test_what_is_taken_holds_all_that_is_masked(hidden):
    assert hidden.taken.shape[-1] == int(0.3 * 9 * 14)
    taken = np.take_along_axis(hidden.masked, hidden.taken, axis=-1)
    np.testing.assert_array_equal(taken, hidden.is_masked)
    np.testing.assert_array_equal(hidden.is_masked.sum(-1), hidden.masked.sum(-1))
