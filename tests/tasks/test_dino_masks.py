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


def hide(law, num_views):
    keys = jax.random.split(jax.random.key(1), 500)
    run = jax.jit(lambda keys: law.hide(keys, num_views, GRID))
    return jax.tree.map(np.asarray, run(keys))


@pytest.fixture(scope="module")
def hidden():
    """Of 500 examples with two views each, of which 1.4 are to have masks."""
    return hide(PatchLoss(mask_probability=0.7, mask_ratio=(0.1, 0.3)), 2)


def test_ratio_and_probability_of_each_view_are_as_asked_for(hidden):
    for share in hidden.masked.mean(-1).T:
        some = share[share > 0]
        assert abs((share > 0).mean() - 0.7) < 4 * np.sqrt(0.7 * 0.3 / 500)
        # One patch is 0.008; floor takes half of one in the mean.
        assert some.min() >= 0.1 - 0.008 and some.max() <= 0.3
        np.testing.assert_allclose(some.mean(), 0.2 - 0.004, atol=4 * 0.2 / np.sqrt(12 * 350))
        # Uniform: a quarter of them in each quarter of the range.
        quarters = np.histogram(some, np.linspace(0.1 - 0.004, 0.3 - 0.004, 5))[0] / len(some)
        assert np.abs(quarters - 0.25).max() < 4 * np.sqrt(0.25 * 0.75 / 350)


def test_masks_are_spread_evenly_over_the_views_of_an_example(hidden):
    share = hidden.masked.mean(-1)
    both = share[(share > 0).all(-1)]
    assert (share > 0).any(-1).all() and 0.3 < len(both) / len(share) < 0.5
    # One has its ratio in the lower half of the range, the other in the upper; a patch is 0.008.
    assert both.min(-1).max() <= 0.2 and both.max(-1).min() >= 0.2 - 0.008
    assert 0.4 < (both[:, 0] > both[:, 1]).mean() < 0.6


def test_what_is_taken_holds_all_that_is_masked_with_equal_weights_of_views(hidden):
    # The largest sum: 0.2 and 0.3 of the patches.
    assert hidden.taken.shape[-1] == int(0.2 * 126) + int(0.3 * 126)
    masked = hidden.masked.reshape(500, -1)
    taken = np.take_along_axis(masked, hidden.taken, axis=-1)
    np.testing.assert_array_equal(taken, hidden.weight > 0)
    np.testing.assert_array_equal(taken.sum(-1), masked.sum(-1))
    for view in range(2):
        of_view = np.where(hidden.taken // 126 == view, hidden.weight, 0).sum(-1)
        np.testing.assert_allclose(of_view, 0.5 * hidden.masked[:, view].any(-1), rtol=1e-5)


def test_of_two_views_one_has_masks_with_the_usual_probability():
    """What DINOv2's defaults cost: logits of half a view's patches."""
    found = hide(PatchLoss(), 2)
    assert (found.masked.any(-1).sum(-1) == 1).all() and found.taken.shape[-1] == 63
    assert 0.4 < found.masked.any(-1)[:, 0].mean() < 0.6


def test_of_a_view_alone_and_of_all_views_any_may_have_masks():
    alone = hide(PatchLoss(mask_probability=0.4), 1)
    assert 0.3 < alone.masked.any(-1).mean() < 0.5 and alone.taken.shape[-1] == 63
    assert hide(PatchLoss(mask_probability=1.0), 2).masked.any(-1).all()
