"""Small models, tasks, states and batches for the tests of the step, the loop and evaluation.

Letters: b examples; c features; k classes.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from vit_jax.core import Aux, Mean, Task, TrainState
from vit_jax.data.mixing import Mixing
from vit_jax.models import vit
from vit_jax.tasks.classification import Classification

NUM_CLASSES = 7
IMAGE_SHAPE = (8, 8, 3)
TINY = dict(width=8, depth=2, mlp_dim=16, num_heads=2, patch_size=4, pool="gap", unroll=1)


@struct.dataclass
class Logits:
    logits: jax.Array
    representation: jax.Array | None = None


class Linear(nn.Module):
    """The smallest classifier: compiles in no time."""

    num_classes: int = NUM_CLASSES

    @nn.compact
    def __call__(self, image, *, train=False):
        pixels = image.reshape(len(image), -1)
        return Logits(nn.Dense(self.num_classes)(pixels), pixels)


def classification(model=None, *, num_classes=NUM_CLASSES, **settings):
    """Classification by `Linear`, or by a tiny ViT with these settings of its builder."""
    module = Linear(num_classes)
    if model is not None:
        module = vit.build(num_classes=num_classes, **{**TINY, **model})
    return Classification(
        **{"mean": (0.5,), "std": (0.25,), **settings}, model=module, num_classes=num_classes
    )


def image_batch(size=16, *, seed=0, masked=(), shape=IMAGE_SHAPE, num_classes=NUM_CLASSES):
    """uint8 noise with labels; the rows in `masked` must not count."""
    rng = np.random.default_rng(seed)
    batch = {
        "image": rng.integers(0, 256, (size, *shape), dtype=np.uint8),
        "label": rng.integers(0, num_classes, size, dtype=np.int32),
        "mask": ~np.isin(np.arange(size), masked),
        "index": np.arange(size, dtype=np.int32) + 1000 * seed,
    }
    return jax.tree.map(jnp.asarray, batch)


def new_state(task, tx, batch, *, seed=0, ema=False):
    """A fresh state; every parameter random, since a head of zeros has no gradient below it."""
    variables = dict(jax.eval_shape(task.init, jax.random.key(seed), batch))
    params = random_like(variables.pop("params"), seed)
    return TrainState(
        step=jnp.int32(0),
        rng=jax.random.key(seed + 1),
        params=params,
        opt_state=tx.init(params),
        model_state=random_like(variables, seed),
        task_state=task.init_task_state(params),
        ema_params=jax.tree.map(jnp.copy, params) if ema else None,
    )


def empty_state(step=0):
    """Of nothing but a step."""
    return TrainState(
        step=np.int32(step), rng=None, params={}, opt_state=(), model_state={}, task_state={}
    )


def normal(*shape, seed=0, scale=1.0):
    """Gaussian noise made by NumPy, which compiles nothing."""
    return jnp.asarray(np.random.default_rng(seed).normal(0, scale, shape), jnp.float32)


def random_like(params, seed=0, scale=0.3):
    """Gaussian noise in the shapes of `params`; around one for the scales of norms."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        centre = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(rng.normal(centre, scale, leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(draw, params)


def random_params(module, *inputs, seed=0, scale=0.3, **settings):
    """Parameters of `module` for these inputs, all of them random: zeros would hide mistakes."""
    init = functools.partial(module.init, **settings)
    return random_like(jax.eval_shape(init, jax.random.key(0), *inputs)["params"], seed, scale)


def plain_sgd(rate=1.0):
    """The update is minus the gradient, so gradients can be read off the parameters."""
    return optax.sgd(rate)


class Normalised(nn.Module):
    """Batch norm, then one linear output."""

    @nn.compact
    def __call__(self, x, *, train):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="norm")(x)
        return nn.Dense(1, name="out")(x)[:, 0]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Regression(Task):
    """y = w·norm(x); its task state is a running centre of x, moved by the summed carry.

    Batches hold `x` f32[b, c], `y` f32[b], `mask` and `index`.
    """

    def init(self, rng, batch):
        return Normalised().init(rng, batch["x"], train=False)

    def init_task_state(self, params):
        channels = params["out"]["kernel"].shape[0]
        return {"centre": jnp.zeros(channels), "seen": jnp.zeros(())}

    def loss(self, params, state, batch, rng, *, train):
        prediction, model_state = Normalised().apply(
            {"params": params, **state.model_state},
            batch["x"],
            train=train,
            mutable=list(state.model_state) if train else [],
        )
        weights = jnp.asarray(batch["mask"], jnp.float32)
        loss = Mean.of((prediction - batch["y"]) ** 2, weights)
        centre = Mean((batch["x"] * weights[:, None]).sum(0), weights.sum())
        return loss, Aux(model_state, {}, {"centre": centre})

    def update_task_state(self, state, carry):
        old = state.task_state
        return {
            "centre": 0.5 * old["centre"] + 0.5 * carry["centre"].compute(),
            # Shows which parameters the task is given: those before or after the update.
            "seen": state.params["out"]["kernel"].sum(),
        }

    def predict(self, variables, batch, rng):
        return {"y": Normalised().apply(variables, batch["x"], train=False)}


def regression_batch(size=8, *, seed=0, channels=3):
    rng = np.random.default_rng(seed)
    batch = {
        "x": rng.normal(1, 2, (size, channels)).astype(np.float32),
        "y": rng.normal(size=size).astype(np.float32),
        "mask": np.ones(size, bool),
        "index": np.arange(size, dtype=np.int32) + 100 * seed,
    }
    return jax.tree.map(jnp.asarray, batch)


def restore_newest(checkpointer, target):
    """(state, step) of the newest sound checkpoint; None where there is none."""
    step = checkpointer.newest()
    return None if step is None else (checkpointer.restore(step, target), step)


def assert_trees_close(left, right, *, rtol, atol):
    pairs = zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True)
    for (path, a), b in pairs:
        np.testing.assert_allclose(
            np.asarray(a), np.asarray(b), rtol=rtol, atol=atol, err_msg=jax.tree_util.keystr(path)
        )


def assert_trees_equal(left, right):
    """Bit for bit, dtypes included; typed random keys by their data."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(left), jax.tree.leaves(right), strict=True)
    for (path, a), b in pairs:
        name = jax.tree_util.keystr(path)
        assert a.dtype == b.dtype and a.shape == b.shape, name
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes(), name


MIXUP = Mixing(mixup_alpha=1.0)
