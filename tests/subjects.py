"""Models that nothing has trained, with all parameters random, as subjects of a page."""

import functools

import numpy as np
from learners import mesh_of
from toys import random_like

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.data.pipeline import EvalSettings
from vit_jax.experiment import build_learner
from vit_jax.explain import examples
from vit_jax.explain.subject import Subject
from vit_jax.learner import Info
from vit_jax.restoring import Restored

SMALL = dict(width=8, depth=2, mlp_dim=12, num_heads=2, patch_size=4, unroll=1)
MODELS = {
    "class token": dict(name="vit", pool="cls", **SMALL),
    "pooled, with registers": dict(name="vit", pool="gap", num_registers=2, **SMALL),
    "hybrid": dict(name="vit", pool="gap", stem="resnet_root", position_embedding="rope", **SMALL)
    | dict(patch_size=1),
    "Mixer": dict(
        name="mixer",
        patch_size=4,
        width=8,
        depth=2,
        token_mlp_dim=4,
        channel_mlp_dim=8,
        unroll=1,
    ),
    "ResNet": dict(name="resnet", stages=(1, 1), width_factor=0.5),
}
SIZE = (8, 12)  # digits, stretched: two rows of three patches


@functools.cache
def restored(name):
    """Of ten classes, on one device."""
    config = {
        "task": {"name": "classification", "model": MODELS[name]},
        "data": {"source": "digits"},
        "optimizer": {"name": "sgd", "learning_rate": 0.0},
        "train": {"num_steps": 1},
        "mesh": {},
    }
    info = Info(
        class_names=tuple(map(str, range(10))),
        preprocessing=Preprocessing(image_size=SIZE, channels=1),
        num_examples=0,
        batch={"image": ((*SIZE, 1), "uint8"), "label": ((), "int32")},
    )
    learner = build_learner(config, mesh_of(), info, 1)
    state = learner.init_state()
    state = state.replace(params=random_like(state.params, scale=0.5), opt_state=())
    return Restored(learner, state, config)


def subject(name, *, shown=3, many=12, **settings):
    model, test = restored(name), EvalSettings(split="test")
    some = examples.of_split(model, test, count=shown, is_spread=False)
    sample = examples.of_split(model, test, count=many, is_spread=True)
    given = dict(batch_size=2) | settings
    return Subject(restored=model, name=name, examples=some, many=sample, **given)


def is_picture(path):
    """A PNG that is neither empty nor of one colour."""
    from PIL import Image

    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))
    return image.format == "PNG" and min(pixels.shape[:2]) > 80 and pixels.std() > 10
