"""The masked autoencoder's loss (arXiv:2111.06377, section 3: reconstruction target).

For each example i, each masked patch j and each of its k = p·q·C numbers,

    target[i, j, k] = (pixel[i, j, k] - mean[i, j]) / sqrt(variance[i, j] + 1e-6)
    loss[i] = sum over masked j of (sum over k of (prediction - target)^2 / (p·q·C)) / masked j

with mean and variance over the numbers of the patch, or target = pixel without normalisation. The
variance is the unbiased one, divided by p·q·C - 1, as in the public code.

Letters: b examples; H, W pixels; C channels; p, q patch height and width; m patches.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

EPSILON = 1e-6  # added to the variance of a patch


def patchify(image: Float[Array, "b H W C"], patch_size: tuple[int, int]) -> Float[Array, "b m _"]:
    """The numbers of each patch, row by row of patches, and within one by row, column, channel."""
    (b, height, width, channels), (p, q) = image.shape, patch_size
    x = image.reshape(b, height // p, p, width // q, q, channels).swapaxes(2, 3)
    return x.reshape(b, -1, p * q * channels)


def unpatchify(
    patches: Shaped[Array, "b m _"], patch_size: tuple[int, int], image_size: tuple[int, int]
) -> Shaped[Array, "b H W C"]:
    """The inverse."""
    (height, width), (p, q) = image_size, patch_size
    x = patches.reshape(len(patches), height // p, width // q, p, q, -1).swapaxes(2, 3)
    return x.reshape(len(patches), height, width, -1)


class Scale(NamedTuple):
    """Of each patch its mean, and the square root of its variance plus `EPSILON`."""

    mean: Float[Array, "b m 1"]
    deviation: Float[Array, "b m 1"]

    @classmethod
    def of(cls, patches: Float[Array, "b m _"]) -> "Scale":
        variance = patches.var(axis=-1, keepdims=True, ddof=1)
        return cls(patches.mean(axis=-1, keepdims=True), jnp.sqrt(variance + EPSILON))

    def normalise(self, patches: Float[Array, "b m k"]) -> Float[Array, "b m k"]:
        return (patches - self.mean) / self.deviation

    def restore(self, patches: Float[Array, "b m k"]) -> Float[Array, "b m k"]:
        """The inverse."""
        return patches * self.deviation + self.mean


def masked_error(
    prediction: Float[Array, "b m k"], target: Float[Array, "b m k"], masked: Bool[Array, "b m"]
) -> Float[Array, " b"]:
    """`loss` above: the squared error, averaged over the numbers of the masked patches."""
    error = jnp.square(prediction - target).mean(axis=-1)
    return jnp.where(masked, error, 0).sum(axis=1) / masked.sum(axis=1)
