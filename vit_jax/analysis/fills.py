"""What takes the place of a part of an image that is to tell nothing.

Letters: b images; H, W, C pixels and channels.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float

from vit_jax import sections


def fill_images(
    images: Float[Array, "b H W C"], name: str, *, size: tuple[float, float]
) -> Float[Array, "b H W C"]:
    """Images of which all is filled.

    Args:
      name: 'mean', each image's own mean colour; 'zero', what normalisation maps the mean colour of
        the training's images to, where it is theirs; 'blur'.
      size: height and width in pixels of the parts; a blur's standard deviation. RISE
        (arXiv:1806.07421) blurs by 5 pixels, which would leave larger parts readable.
    """
    fill = sections.choose(FILLS, name, where="fill")
    return jnp.broadcast_to(fill(images, size), images.shape)


def _blur(images, size):
    for axis, sigma in ((1, size[0]), (2, size[1])):
        places = jnp.arange(images.shape[axis])
        weights = jnp.exp(-((places[:, None] - places) ** 2) / (2 * sigma**2))
        weights = weights / weights.sum(axis=1, keepdims=True)  # nothing comes from outside
        images = jnp.moveaxis(jnp.tensordot(weights, images, axes=(1, axis)), 0, axis)
    return images


FILLS = {
    "mean": lambda images, size: images.mean(axis=(1, 2), keepdims=True),
    "zero": lambda images, size: jnp.zeros_like(images),
    "blur": _blur,
}
