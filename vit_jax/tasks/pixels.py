"""From pixels to what a network takes and back, on the device.

Letters: b examples, or examples and their views; h, w, c pixels and channels.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


def normalise(
    image: Num[Array, "*b h w c"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "*b h w c"]:
    """(image / 255 - mean) / std in float32; mean and std in units of the range [0, 1]."""
    scale, shift = 1 / (255 * jnp.asarray(std)), jnp.asarray(mean)
    return (image.astype(jnp.float32) - 255 * shift) * scale


def unit_range(
    image: Float[Array, "*b h w c"], mean: Sequence[float], std: Sequence[float]
) -> Float[Array, "*b h w c"]:
    """The inverse of `normalise`, but with pixels from 0 to 1."""
    return image * jnp.asarray(std) + jnp.asarray(mean)
