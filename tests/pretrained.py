"""A tiny ViT with weights that hide nothing, for the tests of loading and saving."""

import jax
import jax.numpy as jnp
import numpy as np
from toys import random_like

from vit_jax import models
from vit_jax.data.images.preprocessing import Preprocessing

SIZE = (8, 8)
CLASSES = ("ant", "bee", "cat", "dog", "elk")
# Heads as timm's 'tiny' has them, by whose name alone its files tell them.
SETTINGS = dict(patch_size=4, width=12, depth=2, mlp_dim=20, num_heads=3)


def vit(size=SIZE, channels=3, **settings):
    """A model and its variables; every number in them random."""
    model = models.build("vit", **{"num_classes": len(CLASSES), **SETTINGS, **settings})
    image = jax.ShapeDtypeStruct((1, *size, channels), np.float32)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), image))
    return model, {name: random_like(tree) for name, tree in variables.items()}


def images(size=SIZE, channels=3, count=2):
    noise = np.random.default_rng(9).normal(size=(count, *size, channels))
    return jnp.asarray(noise, jnp.float32)


def logits(model, variables, image):
    return np.asarray(jax.jit(model.apply)(variables, image).logits)


def preprocessing(**settings):
    return Preprocessing(**{"image_size": SIZE, "channels": 3, **settings})
