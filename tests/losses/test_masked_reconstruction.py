"""The loss of masked patches against its loops.

Letters: b examples; m patches.
"""

import jax.numpy as jnp
import numpy as np
import numpy_mae
import pytest
from toys import normal

from vit_jax.losses.masked_reconstruction import Scale, masked_error, patchify, unpatchify

PATCH = (2, 3)
IMAGES = normal(3, 4, 9, 2)  # 2 rows and 3 columns of patches of 12 numbers
MASKED = jnp.asarray(np.random.default_rng(1).permuted([[True] * 4 + [False] * 2] * 3, axis=1))


def test_patches_are_those_of_loops_and_can_be_put_together_again():
    patches = patchify(IMAGES, PATCH)
    for found, image in zip(patches, IMAGES, strict=True):
        np.testing.assert_array_equal(found, numpy_mae.cut(image, PATCH))
    np.testing.assert_array_equal(unpatchify(patches, PATCH, (4, 9)), IMAGES)


@pytest.mark.parametrize("normalise", [True, False])
def test_error_equals_loops(normalise):
    patches, prediction = patchify(IMAGES, PATCH), normal(3, 6, 12, seed=1)
    target = Scale.of(patches).normalise(patches) if normalise else patches
    found = masked_error(prediction, target, MASKED)
    expected = [
        numpy_mae.loss(*row, patch=PATCH, normalise=normalise)
        for row in zip(*map(np.float64, (prediction, IMAGES)), np.asarray(MASKED), strict=True)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_what_is_visible_does_not_count():
    target, visible = normal(3, 6, 12), ~MASKED[..., None]
    prediction = normal(3, 6, 12, seed=1)
    changed = jnp.where(visible, np.nan, prediction)
    np.testing.assert_array_equal(
        masked_error(changed, target, MASKED), masked_error(prediction, target, MASKED)
    )


def test_scale_is_undone_and_an_even_patch_has_target_zero():
    patches = patchify(IMAGES, PATCH).at[:, 0].set(0.7)
    scale = Scale.of(patches)
    normalised = scale.normalise(patches)
    np.testing.assert_allclose(normalised[:, 0], 0, atol=1e-3)  # rounding over sqrt(1e-6)
    np.testing.assert_allclose(scale.restore(normalised), patches, rtol=1e-5, atol=1e-6)
