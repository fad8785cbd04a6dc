"""A tiny DINO: its data's description, batches, task and learner."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.tasks import dino
from vit_jax.train.optimizer import Optimizer

NUM_STEPS, NUM_EXAMPLES, BATCH_SIZE = 10, 32, 8
MODEL = dict(width=8, depth=1, mlp_dim=16, num_heads=2, patch_size=2, unroll=1)
HEAD = dict(hidden_dim=8, bottleneck_dim=4, num_prototypes=6, depth=2)
V2 = dict(centring="sinkhorn", koleo_weight=0.1, patch_loss=dict())
ROWS = {
    "global_images": ((2, 8, 8, 1), "uint8"),
    "local_images": ((3, 4, 4, 1), "uint8"),
    "mask": ((), "bool"),
    "index": ((), "int32"),
}


def info(**changed):
    return Info(
        **{
            "class_names": (),
            "preprocessing": Preprocessing(image_size=(8, 8), channels=1),
            "num_examples": NUM_EXAMPLES,
            "batch": ROWS,
            "batch_size": BATCH_SIZE,
            "num_steps": NUM_STEPS,
            **changed,
        }
    )


def batch(size=BATCH_SIZE, *, seed=0, masked=()):
    """Noise; the rows in `masked` must not count."""
    rng = np.random.default_rng(seed)
    views = ("global_images", "local_images")
    found = {n: rng.integers(0, 256, (size, *ROWS[n][0]), np.uint8) for n in views}
    found |= {
        "mask": ~np.isin(np.arange(size), masked),
        "index": np.arange(size, dtype=np.int32),
    }
    return jax.tree.map(jnp.asarray, found)


def task(*, model=None, head=None, of=None, **settings):
    """The task with these keys of `config.task`."""
    return dino.build(
        model={**MODEL, **(model or {})},
        head={**HEAD, **(head or {})},
        info=of or info(),
        **{"freeze_last_layer_epochs": 0.0, **settings},
    )


def learner(mesh, *, tx=None, accum_steps=1, **settings):
    return Learner(
        info=info(),
        mesh=mesh,
        task=task(**settings),
        optimizer=Optimizer(tx or optax.sgd(1.0), lambda step: 1.0),
        settings=TrainSettings(num_steps=NUM_STEPS, accum_steps=accum_steps),
    )


@functools.cache
def loss_of(task, *, train=True):
    """Jitted (params, state, batch) -> ((loss, aux), gradients of the loss's total)."""

    def total(params, state, batch):
        loss, aux = task.loss(params, state, batch, jax.random.key(0), train=train)
        return loss.total, (loss, aux)

    grad = jax.value_and_grad(total, has_aux=True)
    return jax.jit(lambda *given: (lambda found: (found[0][1], found[1]))(grad(*given)))
