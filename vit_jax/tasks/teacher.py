"""The teacher of a distillation: which network it is, and how it sees the student's images.

It is trained already and stands still, other than DINO's; teacher_source.py reads its weights.

Teacher and student are shown the same pixels: the same crop, mixed with the same partner at the
same ratio (arXiv:2106.05237, section 3.1, "consistent"). Mixing is done on pixels, before each of
the two normalises them in its own way. Images of another size than the teacher's are resized on the
device by `layers.resize.resize_images`, antialiased where they shrink; grey ones are repeated where
it takes three channels.

Letters: b examples; h, w, c pixels and channels of the student's images, H, W, C of the teacher's;
k classes.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Num

from vit_jax import models, sections
from vit_jax.core import Variables
from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.tasks import pixels

WHERE = "config.task.teacher"
INTERPOLATIONS = ("bilinear", "bicubic")  # of those that images are read with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Teacher:
    """A network that is no longer trained; its arrays are in the state.

    Attributes:
      model: with a head for the student's classes; computes in its own dtype.
      image_shape: (H, W, C).
      mean, std: of the pixels in units of the range [0, 1], one number or one a channel.
      interpolation: of `INTERPOLATIONS`.
    """

    model: nn.Module
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"

    def logits(self, variables: Variables, image: Num[Array, "b h w c"]) -> Float[Array, "b k"]:
        """What it says of pixels, without randomness and without a gradient."""
        output = self.model.apply(variables, self.see(image), train=False)
        return jax.lax.stop_gradient(output.logits)

    def see(self, image: Num[Array, "b h w c"]) -> Float[Array, "b H W C"]:
        """Pixels as the network takes them."""
        *size, channels = self.image_shape
        image = image.astype(jnp.float32)
        image = resize.resize_images(image, tuple(size), method=self.interpolation)
        image = jnp.broadcast_to(image, (*image.shape[:3], channels))
        return pixels.normalise(image, self.mean, self.std)

    def unknown(self) -> Variables:
        """NaN in the shapes of its variables: a training without its teacher breaks at once."""
        image = jnp.zeros((1, *self.image_shape))
        shapes = jax.eval_shape(self.model.init, jax.random.key(0), image)
        return jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """`config.task.teacher`. Before a run begins, its source completes what is left open.

    Attributes:
      source: what `weights.load` takes: a file, a folder, a run's workdir, hf:owner/name, a URL.
      architecture, part, positions, old_grid: see `weights.load`.
      same_classes: its classes are the data's in the data's order, although it names them
        otherwise.
      model: `name` and settings of the model's builder, such as dtype='bfloat16'.
      image_size: (height, width) or one number, for which its weights are loaded.
      channels: of the images that it takes.
      mean, std: with which it normalises them.
      interpolation: of images that are not of its size: 'bilinear' or 'bicubic'.
      class_names: one a row of its head; None where the source states none.
    """

    source: str
    architecture: str | None = None
    part: str | None = None
    positions: str = "bicubic"
    old_grid: tuple[int, int] | None = None
    same_classes: bool = False
    model: Mapping[str, Any] | None = None
    image_size: tuple[int, int] | int | None = None
    channels: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    class_names: Sequence[str] | None = None

    def build(self, info: Any) -> Teacher:
        """The teacher, for data of which `info` tells `class_names` and `preprocessing`."""
        missing = [name for name in COMPLETED if getattr(self, name) is None]
        if missing:
            raise InputError(
                f"{WHERE} lacks {', '.join(missing)}; allowed: a section that its source has "
                "completed."
            )
        settings = dict(self.model)
        self._check_classes(settings.get("num_classes", 0), info.class_names)
        self._check_images(info.preprocessing.channels)
        return Teacher(
            model=models.build(settings.pop("name"), where=f"{WHERE}.model", **settings),
            image_shape=(*sections.pair(self.image_size), self.channels),
            mean=tuple(self.mean),
            std=tuple(self.std),
            interpolation=self.interpolation,
        )

    def _check_classes(self, number: int, wanted: Sequence[str]) -> None:
        if not number:
            raise InputError(
                f"{WHERE}.source is {self.source!r}, a model without a head; allowed: one with a "
                f"head for the data's {len(wanted)} classes."
            )
        names = None if self.same_classes else self.class_names
        if number != len(wanted) or (names is not None and tuple(names) != tuple(wanted)):
            raise InputError(
                f"{WHERE}.source is {self.source!r} with {number} classes{_some(self.class_names)},"
                f" but the data has {len(wanted)}{_some(wanted)}; allowed: the same classes in the "
                f"same order, or {WHERE}.same_classes=True where only their names differ."
            )

    def _check_images(self, found: int) -> None:
        sections.choose(
            dict.fromkeys(INTERPOLATIONS), self.interpolation, where=f"{WHERE}.interpolation"
        )
        if found not in (1, self.channels):
            raise InputError(
                f"{WHERE} takes images of {self.channels} channels, but the data's have {found}; "
                "allowed: as many, or grey images."
            )
        for name in ("mean", "std"):
            if len(getattr(self, name)) not in (1, self.channels):
                raise InputError(
                    f"{WHERE}.{name} is {getattr(self, name)}; allowed: one number, or one for "
                    f"each of {self.channels} channels."
                )


# What a source tells, and a teacher cannot do without.
COMPLETED = ("model", "image_size", "channels", "mean", "std", "interpolation")


def _some(names: Sequence[str] | None) -> str:
    """' (ant, bee, ...)'; nothing where there are no names."""
    if not names:
        return ""
    return f" ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})"
