"""Pixels to numbers around 0 and back."""

import jax.numpy as jnp
import numpy as np

from vit_jax.tasks import pixels

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.1)


def test_both_are_their_definition_and_inverse():
    image = np.random.default_rng(0).integers(256, size=(2, 3, 4, 5, 3), dtype=np.uint8)
    found = pixels.normalise(jnp.asarray(image), MEAN, STD)
    expected = (np.float64(image) / 255 - MEAN) / STD
    # float32 has 24 bits, of numbers up to 7 here.
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(pixels.unit_range(found, MEAN, STD), image / 255, atol=1e-6)
