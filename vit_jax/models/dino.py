"""The network of DINO (arXiv:2104.14294) and DINOv2 (arXiv:2304.07193): a backbone and its heads.

A head is a multilayer perceptron down to a bottleneck, whose output is brought to length one, and
then a linear layer whose rows have a direction and a magnitude of their own (weight normalisation,
arXiv:1602.07868). Its outputs are the logits of "prototypes", which no label names.

Letters: b examples; g global, l local and v = g + l views; H, W and h, w pixels; C channels; m
patches of a global view, t patches taken of all g; c width; d bottleneck; k prototypes.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.layers.stem import STEMS
from vit_jax.models import vit

SMALLEST_NORM = 1e-12  # of what is divided by its norm, as PyTorch's `normalize` has it
# Settings of the ViT that are not all allowed -> those that are, and why not the others.
ALLOWED = {
    "stem": (
        (None, *(name for name in STEMS if not name.startswith("conv"))),
        "a stem's batch norm would need statistics of student and teacher, of views of two sizes",
    ),
    "position_embedding": (
        tuple(name for name in vit.POSITIONS if name != "relative"),
        "relative positions are kept for one grid, and views are of two sizes",
    ),
}


class DinoOutput(NamedTuple):
    representation: Float[Array, "b v c"]  # the backbone's, the global views' first
    logits: Float[Array, "b v k"]  # of those
    patch_logits: Float[Array, "b t k"] | None  # of the patches taken; None where none are


class ProjectionHead(nn.Module):
    """`depth` dense layers with GELU between them, length one, and the prototypes.

    Attributes:
      depth: dense layers before the prototypes.
      hidden_dim: width of all but the last of those.
      bottleneck_dim: d, the width of the last.
      num_prototypes: k.
      normalise_last: the prototypes' magnitudes stay one; otherwise they are learned.
      dtype: of the computation; logits are float32.
    """

    depth: int
    hidden_dim: int
    bottleneck_dim: int
    num_prototypes: int
    normalise_last: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b k"]:
        normal = nn.initializers.truncated_normal(stddev=0.02)
        for i in range(self.depth):
            is_last = i + 1 == self.depth
            width = self.bottleneck_dim if is_last else self.hidden_dim
            x = nn.Dense(width, kernel_init=normal, dtype=self.dtype, name=f"layer_{i + 1}")(x)
            x = x if is_last else nn.gelu(x, approximate=False)
        x = unit_length(x.astype(jnp.float32))
        return Prototypes(self.num_prototypes, self.normalise_last, self.dtype, name="last")(x)


class Prototypes(nn.Module):
    """A linear layer without bias, each of whose columns is magnitude times direction."""

    num_prototypes: int
    normalise: bool
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "*b d"]) -> Float[Array, "*b k"]:
        shape = (x.shape[-1], self.num_prototypes)
        # Uniform in ±1/√d, what PyTorch begins a linear layer with: the public code leaves it so.
        uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
        kernel = unit_length(self.param("kernel", uniform, shape), axis=0)
        if not self.normalise:
            kernel *= self.param("magnitude", nn.initializers.ones, shape[1:])
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        return jnp.matmul(x, kernel, preferred_element_type=jnp.float32)


class DinoNetwork(nn.Module):
    """Student or teacher: the teacher is given no local views and nothing to mask.

    Attributes:
      backbone: a `VisionTransformer` without a head of its own.
      head: of the views' representations.
      patch_head: of the patches; None where `head` is for both, as DINOv2 found enough for short
        runs.
    """

    backbone: nn.Module
    head: nn.Module
    patch_head: nn.Module | None = None

    def __call__(
        self,
        global_images: Float[Array, "b g H W C"],
        local_images: Float[Array, "b l h w C"] | None = None,
        *,
        masked: Bool[Array, "b g m"] | None = None,
        taken: Int[Array, "b t"] | None = None,
        train: bool = False,
    ) -> DinoOutput:
        """Global views go through the backbone in one call, local ones in another.

        Args:
          masked: patches of the global views that the mask token replaces.
          taken: of the g·m patches of an example those whose logits are wanted.
        """
        b, g = global_images.shape[:2]
        # Examples stay in front, so that views are on the device of their example.
        flat = None if masked is None else masked.reshape(b * g, -1)
        output = self.backbone(_flat(global_images), masked=flat, train=train)
        found = [output.representation.reshape(b, g, -1)]
        if local_images is not None:
            local = self.backbone(_flat(local_images), train=train)
            found.append(local.representation.reshape(*local_images.shape[:2], -1))
        representation = jnp.concatenate(found, axis=1)
        patch_logits = None
        if taken is not None:
            patches = output.tokens[:, self.backbone.num_prefix :]
            patches = patches.reshape(b, -1, patches.shape[-1])
            patches = jnp.take_along_axis(patches, taken[..., None], axis=1)
            patch_logits = (self.patch_head or self.head)(patches)
        return DinoOutput(representation, self.head(representation), patch_logits)


def build_backbone(
    model: Mapping[str, Any], image_size: tuple[int, int], *, has_mask_token: bool
) -> vit.VisionTransformer:
    """The ViT that `config.task.model` describes, for global views of this size and smaller ones.

    Learned positions are kept for the global views' grid, and resized for local ones.
    """
    where = "config.task.model"
    settings = {"name": "vit", "position_grid": None, "mask_token": has_mask_token, **model}
    if (name := settings.pop("name")) != "vit":
        raise InputError(f"{where}.name is {name!r}; allowed for dino: 'vit'.")
    if settings["mask_token"] != has_mask_token:
        raise InputError(
            f"{where}.mask_token is {settings['mask_token']}; allowed: {has_mask_token}, as "
            f"config.task.patch_loss is{'' if has_mask_token else ' not'} set."
        )
    backbone = sections.call(vit.build, settings, where=where, num_classes=0)
    for key, (allowed, reason) in ALLOWED.items():
        if (found := getattr(backbone, key)) not in allowed:
            raise InputError(
                f"{where}.{key} is {found!r}; allowed for dino, since {reason}: "
                f"{', '.join(map(repr, allowed))}."
            )
    if backbone.position_embedding not in vit.RESIZED or backbone.position_grid is not None:
        return backbone
    return backbone.clone(position_grid=backbone.grid(image_size))


def build_head(
    *,
    dtype: Any,
    hidden_dim: int = 2048,
    bottleneck_dim: int = 256,
    num_prototypes: int = 65536,
    depth: int = 3,
    normalise_last: bool = True,
) -> ProjectionHead:
    """The head that `config.task.head` describes, see `ProjectionHead`."""
    counts = dict(
        hidden_dim=hidden_dim,
        bottleneck_dim=bottleneck_dim,
        num_prototypes=num_prototypes,
        depth=depth,
    )
    for name, count in counts.items():
        sections.positive_int(count, f"config.task.head.{name}")
    sections.check_ranges("config.task.head", num_prototypes=(num_prototypes, 2, math.inf))
    return ProjectionHead(**counts, normalise_last=normalise_last, dtype=dtype)


def unit_length(x: Float[Array, "*b d"], axis: int = -1) -> Float[Array, "*b d"]:
    """Divided by its Euclidean norm; zeros stay zeros, with a finite gradient."""
    square = jnp.sum(x * x, axis=axis, keepdims=True)
    return x / jnp.sqrt(jnp.maximum(square, SMALLEST_NORM**2))


def _flat(images: Float[Array, "b v h w C"]) -> Float[Array, "_ h w C"]:
    return images.reshape(-1, *images.shape[2:])
