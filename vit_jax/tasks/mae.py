"""Masked autoencoding (arXiv:2111.06377): to paint what was taken away.

A random part of an image's patches is taken out before the encoder, which so sees, and pays for,
the visible ones alone; a light decoder predicts the pixels of those that are gone.

Letters: b examples; h, w, c pixels and channels; m patches; k numbers of a patch; r representation.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vit_jax import models, sections
from vit_jax.core import Aux, Batch, Mean, Outputs, Task, TrainState, Tree, Variables
from vit_jax.errors import InputError
from vit_jax.losses.masked_reconstruction import Scale, masked_error, patchify, unpatchify
from vit_jax.models.mae import MaskedAutoencoder, Masking, build_decoder
from vit_jax.models.vit import POOLS, POSITIONS, VisionTransformer
from vit_jax.tasks import pixels
from vit_jax.tasks.randomness import MASKS, evaluation_keys, example_keys

# Settings of the ViT that are not all allowed -> those that are, and why not the others.
ALLOWED = {
    "stem": ((None,), "convolutions see across patches"),
    "position_embedding": (
        tuple(name for name in POSITIONS if name != "relative"),
        "relative positions are known of whole grids alone",
    ),
    "pool": (tuple(name for name in POOLS if name != "map"), "the loss trains no pooling"),
    "final_norm": (("tokens",), "the decoder reads the encoder's tokens, normalised"),
    "representation_dim": ((None,), "the loss does not train that layer"),
    "mask_token": ((False,), "masked patches are taken out, not replaced"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoding(Task):
    """Batches hold `image` uint8[b, h, w, c], `mask` bool[b] and `index` int32[b].

    Attributes:
      network: its backbone is the model.
      mean, std: of a channel, in units of the range [0, 1].
      num_visible: patches of each image.
      normalise_targets: is each patch predicted relative to its own mean and deviation?
    """

    network: MaskedAutoencoder
    mean: tuple[float, ...]
    std: tuple[float, ...]
    num_visible: int
    normalise_targets: bool = True
    model_path: tuple[str, ...] = ("backbone",)

    @property
    def model(self) -> VisionTransformer:
        return self.network.backbone

    def init(self, rng: Array, batch: Batch) -> Variables:
        image = self.normalise(batch["image"])
        return self.network.init(rng, image, self.masking(jax.random.split(rng, len(image))))

    def loss(
        self, params: Tree, state: TrainState, batch: Batch, rng: Array, *, train: bool
    ) -> tuple[Mean, Aux]:
        """As `losses.masked_reconstruction`; the metric `pixel_mse` is of pixels from 0 to 1."""
        keys = example_keys(state, batch["index"], purpose=MASKS, train=train)
        image, masking = self.normalise(batch["image"]), self.masking(keys)
        prediction = self.network.apply(
            {"params": params}, image, masking, train=train, rngs={"dropout": rng}
        )
        prediction, patches = prediction.astype(jnp.float32), self.patches(image)
        target = Scale.of(patches).normalise(patches) if self.normalise_targets else patches
        loss = masked_error(prediction, target, masking.masked)
        painted, original = map(self.pixels, (self.painted(prediction, image), image))
        error = masked_error(self.patches(painted), self.patches(original), masking.masked)
        metrics = {"pixel_mse": Mean.of(error, batch["mask"])}
        return Mean.of(loss, batch["mask"]), Aux(state.model_state, metrics, {})

    def predict(self, variables: Variables, batch: Batch, rng: Array) -> Outputs:
        """What is not read of this costs nothing, since compilers leave it out.

        Of the whole image the representation f32[b, r]. Of the one with masks, which are those of
        the evaluation's loss if `rng` is the state's: `masked` bool[b, h, w], and `reconstruction`
        f32[b, h, w, c], the image with painted patches in masked places, in pixels from 0 to 1.
        """
        params, image = variables["params"], self.normalise(batch["image"])
        whole = self.model.apply({"params": params["backbone"]}, image)
        masking = self.masking(evaluation_keys(rng, batch["index"], purpose=MASKS))
        prediction = self.network.apply({"params": params}, image, masking)
        painted = self.painted(prediction.astype(jnp.float32), image)
        masked = jnp.broadcast_to(masking.masked[..., None], self.patches(image).shape)
        masked = unpatchify(masked, self.model.patch_size, image.shape[1:3])
        return {
            "representation": whole.representation,
            "reconstruction": self.pixels(jnp.where(masked, painted, image)),
            "masked": masked[..., 0],
        }

    def masking(self, keys: Key[Array, " b"]) -> Masking:
        num_patches = math.prod(self.network.decoder.grid)
        noise = jax.vmap(lambda key: jax.random.uniform(key, (num_patches,)))(keys)
        return Masking.of(noise, self.num_visible)

    def patches(self, image: Float[Array, "b h w c"]) -> Float[Array, "b m k"]:
        return patchify(image, self.model.patch_size)

    def painted(
        self, prediction: Float[Array, "b m k"], image: Float[Array, "b h w c"]
    ) -> Float[Array, "b h w c"]:
        """All patches as predicted; a normalised one gets the true patch's mean and deviation."""
        if self.normalise_targets:
            prediction = Scale.of(self.patches(image)).restore(prediction)
        return unpatchify(prediction, self.model.patch_size, image.shape[1:3])

    def normalise(self, image: Array) -> Float[Array, "b h w c"]:
        """uint8 to float32 with the stated mean and standard deviation."""
        return pixels.normalise(image, self.mean, self.std)

    def pixels(self, image: Float[Array, "b h w c"]) -> Float[Array, "b h w c"]:
        """The inverse, but from 0 to 1."""
        return pixels.unit_range(image, self.mean, self.std)


def build(
    *,
    model: Mapping[str, Any],
    info: Any,
    decoder: Mapping[str, Any] | None = None,
    mask_ratio: float = 0.75,
    normalise_targets: bool = True,
) -> MaskedAutoencoding:
    """The task that `config.task` describes.

    Args:
      model: keys of the ViT's builder, the encoder's.
      info: the data set: its `preprocessing` (size, mean, std).
      decoder: keys of `models.mae.build_decoder`; the paper's by default.
      mask_ratio: share of patches that are taken out.
      normalise_targets: see `MaskedAutoencoding`.
    """
    if "image" not in info.batch:
        raise InputError(
            f"the data's examples have {', '.join(sorted(info.batch))}; allowed for mae: with "
            "image, so without config.data.augment.multi_crop."
        )
    backbone = build_backbone(model)
    num_patches = math.prod(backbone.grid(info.preprocessing.image_size))
    num_visible = int(num_patches * (1 - mask_ratio))  # as the public code rounds
    if not 0 < num_visible < num_patches:
        raise InputError(
            f"config.task.mask_ratio is {mask_ratio}, which leaves {num_visible} of {num_patches} "
            "patches visible; allowed: a share that leaves one or more, and masks one or more."
        )
    if normalise_targets and math.prod(backbone.patch_size) * info.preprocessing.channels == 1:
        raise InputError(
            "a patch is one number, which has no deviation to be normalised by; allowed: a larger "
            "config.task.model.patch_size, or normalise_targets=False."
        )
    made = sections.call(
        build_decoder,
        decoder or {},
        where="config.task.decoder",
        backbone=backbone,
        image_shape=info.preprocessing.image_shape,
    )
    return MaskedAutoencoding(
        network=MaskedAutoencoder(backbone=backbone, decoder=made),
        mean=tuple(info.preprocessing.mean),
        std=tuple(info.preprocessing.std),
        num_visible=num_visible,
        normalise_targets=normalise_targets,
    )


def build_backbone(model: Mapping[str, Any]) -> VisionTransformer:
    """The ViT; refuses what cannot be trained in this way."""
    if (name := model.get("name", "vit")) != "vit":
        raise InputError(
            f"config.task.model.name is {name!r}; allowed for mae: vit, since others cannot leave "
            "patches out."
        )
    backbone = models.of_task(model, num_classes=0)
    for name, (allowed, reason) in ALLOWED.items():
        if (found := getattr(backbone, name)) not in allowed:
            raise InputError(
                f"config.task.model.{name} is {found!r}; allowed for mae, since {reason}: "
                f"{', '.join(map(repr, allowed))}."
            )
    return backbone
