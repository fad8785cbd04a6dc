"""Learners of toy tasks on chosen meshes, and their compiled steps."""

import contextlib

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from toys import IMAGE_SHAPE, NUM_CLASSES, classification, image_batch

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.train import sharding
from vit_jax.train.optimizer import Optimizer


def mesh_of(data=1, fsdp=1, tensor=1):
    """A mesh over the first devices, as many as it needs."""
    sizes = (data, fsdp, tensor)
    return Mesh(np.asarray(jax.devices()[: np.prod(sizes)]).reshape(sizes), sharding.AXES)


def learner_on(mesh, model=None, *, tx=None, shape=IMAGE_SHAPE, mixing=None, **settings):
    """Classification by a tiny ViT with these settings of its builder, or by `Linear`."""
    rows = image_batch(1, shape=shape)
    task = classification(model, **({} if mixing is None else dict(mixing=mixing)))
    return Learner(
        info=Info(
            class_names=tuple(map(str, range(NUM_CLASSES))),
            preprocessing=Preprocessing(image_size=shape[:2], channels=shape[2]),
            num_examples=1000,
            num_steps=10,
            batch={name: (x.shape[1:], str(x.dtype)) for name, x in rows.items()},
        ),
        mesh=mesh,
        task=task,
        optimizer=Optimizer(tx or optax.adamw(1e-3), lambda step: 1e-3),
        settings=TrainSettings(num_steps=10, **settings),
    )


def compiled_step(learner, batch_size):
    """The training step as a user's machine compiles it, which conftest.py forgoes."""
    with optimised():
        return learner.compile_step(batch_size).call


@contextlib.contextmanager
def optimised():
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
