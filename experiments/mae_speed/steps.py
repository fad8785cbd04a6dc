"""What is timed: three training steps of one encoder, through the project's own `Learner`.

mae: a quarter of the patches in the encoder, all of them in the decoder (arXiv:2111.06377).
full: the same network and loss, but mask tokens in the encoder in place of the patches that are
  gone ("encoder w/ [M]" of Tables 1c and 2), so that it sees as many tokens as the image has.
labels: classification by the same encoder.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.models.mae import MaskedAutoencoder
from vit_jax.tasks import classification, mae
from vit_jax.train import optimizer, sharding

CLASSES, SIDE = 1000, 224
NUM_STEPS = 10**6
REFERENCE = "full"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One encoder, with the images of a step."""

    model: dict[str, Any]  # keys of the ViT's builder
    batch: int
    dtype: str = "bfloat16"
    decoder: dict[str, int] = field(default_factory=dict)  # by default the paper's


SETTINGS = {
    # The decoder costs a token 8 % of what the encoder costs it, as the paper's does of L/16.
    "cpu": Setting(
        model=dict(size="Ti", patch_size=16),
        batch=16,
        dtype="float32",
        decoder=dict(width=96, depth=4, num_heads=3),
    ),
    "B16": Setting(model=dict(size="B", patch_size=16), batch=256),
    "L16": Setting(model=dict(size="L", patch_size=16), batch=128),
    "H14": Setting(model=dict(size="H", patch_size=14), batch=64),
}


class MaskTokensInEncoder(MaskedAutoencoder):
    """Its decoder gets all patches from the encoder, and so has no place for its own mask token."""

    @nn.compact
    def __call__(self, image, masking, *, train=False):
        tokens = self.backbone(image, masked=masking.masked, train=train).tokens
        front, patches = (
            tokens[:, : len(self.backbone.prefix)],
            tokens[:, self.backbone.num_prefix :],
        )
        places = jnp.broadcast_to(jnp.arange(patches.shape[1]), masking.restore.shape)
        return self.decoder(front, patches, places, train=train)


def learners(setting: Setting, seed: int) -> dict[str, Learner]:
    """By the names above; AdamW alike in all, positions fixed as in MAE."""
    info = make_info()
    model = dict(dtype=setting.dtype, position_initial="sincos2d", activation="gelu")
    model |= setting.model
    painting = mae.build(model=model, info=info, decoder=setting.decoder)
    encoder, decoder = painting.network.backbone, painting.network.decoder
    full = MaskTokensInEncoder(backbone=encoder.clone(mask_token=True), decoder=decoder)
    tasks = {
        "mae": painting,
        "full": dataclasses.replace(painting, network=full),
        "labels": classification.build(model=model, info=info),
    }
    update = optimizer.build(
        num_steps=NUM_STEPS,
        learning_rate=1.5e-4,
        schedule="constant",
        b2=0.95,
        weight_decay=0.05,
        rate_patterns=((".*position_embedding", 0.0), (".*", 1.0)),
    )
    made = dict(info=info, mesh=sharding.make_mesh(), optimizer=update)
    settings = TrainSettings(num_steps=NUM_STEPS, seed=seed)
    return {name: Learner(task=task, settings=settings, **made) for name, task in tasks.items()}


def make_info() -> Info:
    shape = (SIDE, SIDE, 3)
    scalars = dict(label=((), "int32"), index=((), "int32"), mask=((), "bool"))
    return Info(
        class_names=tuple(map(str, range(CLASSES))),
        preprocessing=Preprocessing(image_size=shape[:2], channels=3, mean=(0.5,), std=(0.5,)),
        num_examples=1,
        num_steps=NUM_STEPS,
        batch=dict(image=(shape, "uint8"), **scalars),
    )


def random_batch(size: int, seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    return dict(
        image=random.integers(256, size=(size, SIDE, SIDE, 3), dtype=np.uint8),
        label=random.integers(CLASSES, size=size, dtype=np.int32),
        index=np.arange(size, dtype=np.int32),
        mask=np.ones(size, bool),
    )


class Step:
    """A compiled step and the state that it goes on from."""

    def __init__(self, learner: Learner, rows: dict[str, Any]):
        self.compiled = learner.compile_step(len(rows["mask"]))
        self.state = learner.init_state()
        (self.batch,) = sharding.to_devices([rows], learner.mesh)

    def run(self, steps: int) -> None:
        """Returns when they are done."""
        for _ in range(steps):
            self.state, self.metrics = self.compiled.call(self.state, self.batch)
        jax.block_until_ready(self.state)

    def loss(self) -> float:
        return float(self.metrics["loss"].compute())
