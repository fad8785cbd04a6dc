"""The fixed preprocessing of evaluation.

Images are uint8[h,w,c] arrays until they reach the device, where they are normalised; a
quarter of the bytes of float32 travel. `Preprocessing` also carries that normalisation,
so that what is stored with a checkpoint is all a prediction needs.

Letters: h, w, c = height, width, channels found; H, W = height and width asked for.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.data.dialects import dialect_of
from vit_jax.data.images.centre import centre_box, centre_crop, check_target, plan_of
from vit_jax.data.images.channels import fewer_channels, to_channels
from vit_jax.data.images.decode import Encoded
from vit_jax.data.images.resampling import Resample, resize
from vit_jax.errors import InputError

RESIZES = ("stretch", "crop")
DEFAULT_CROP_FRACTION = 0.875  # 224 / 256, the usual evaluation crop on ImageNet


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """Deterministic evaluation preprocessing: uint8[h,w,c] -> uint8[H,W,channels].

    Attributes:
      image_size: (H, W) in pixels.
      channels: 1 or 3, or as many as the images have.
      resize: 'stretch' resizes to image_size whatever the aspect ratio; 'crop' keeps the
        ratio, scales so that image_size / crop_fraction just fits, and cuts the centre.
      crop_fraction: for 'crop'. 0.875 is 224 / 256; 1 cuts as little as possible.
      interpolation: see `resampling`; None is bilinear, or what the dialect uses.
      dialect: 'big_vision', 'torchvision' or 'timm': whose rounding and resampling, see
        `augment.dialects`; None rounds no intermediate size and antialiases.
      antialias: whether shrinking antialiases; None is what the dialect does. Only big_vision
        leaves a choice.
      mean, std: of the pixels in units of the range [0, 1], one number or one a channel.
        Applied on the device, not here.
    """

    image_size: tuple[int, int]
    channels: int
    resize: str = "stretch"
    crop_fraction: float = DEFAULT_CROP_FRACTION
    interpolation: str | None = None
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.5,)
    dialect: str | None = None
    antialias: bool | None = None

    def __post_init__(self):
        _set(self, "channels", sections.positive_int(self.channels, "channels"))
        size = _listed(self.image_size, "image_size")
        if len(size) != 2:
            raise InputError(f"image_size is {self.image_size!r}; it must be (height, width).")
        _set(self, "image_size", tuple(sections.positive_int(side, "image_size") for side in size))
        for name in ("mean", "std"):
            _set(self, name, self._statistics(name))
        sections.choose(dict.fromkeys(RESIZES), self.resize, where="resize")
        self._fill_in_resampling()
        self._check_crop_fraction()

    def __call__(self, image: np.ndarray | Encoded) -> np.ndarray:
        """Raises InputError unless `image` is uint8[h,w,c] with c convertible to channels."""
        if isinstance(image, Encoded):
            dialect = dialect_of(self.dialect, where="dialect")
            is_fast = dialect is not None and dialect.fast_dct
            image = (image.with_fast_dct() if is_fast else image).decode()
        if image.ndim != 3 or image.dtype != np.uint8:
            raise InputError(f"An image must be uint8[h,w,c], got {image.dtype}{image.shape}.")
        return to_channels(self._resized(fewer_channels(image, self.channels)), self.channels)

    def _resized(self, image: np.ndarray) -> np.ndarray:
        """uint8[h,w,c] -> uint8[H,W,c]."""
        if self.resize == "stretch":
            return resize(image, self.image_size, self.interpolation, antialias=self.antialias)
        if self.dialect is None:
            box = centre_box(image.shape[:2], self.image_size, self.crop_fraction)
            return resize(image, self.image_size, self.interpolation, box=box)
        return centre_crop(
            image,
            self.image_size,
            crop_fraction=self.crop_fraction,
            dialect=self.dialect,
            resample=self.resample,
        )

    def window(self, size: tuple[int, int]) -> tuple[float, float, float, float]:
        """The (left, top, right, bottom) of what a call shows of an image of (h, w) = size."""
        h, w = size
        if self.resize == "stretch":
            return 0, 0, w, h
        if self.dialect is None:
            return centre_box(size, self.image_size, self.crop_fraction)
        plan = plan_of(
            size, self.image_size, crop_fraction=self.crop_fraction, dialect=self.dialect
        )
        down, right = h / plan.height, w / plan.width
        bottom, far = plan.top + self.image_size[0], plan.left + self.image_size[1]
        return plan.left * right, plan.top * down, far * right, bottom * down

    @property
    def resample(self) -> Resample:
        """How it makes pixels between pixels."""
        return Resample(self.interpolation, self.antialias)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, channels) of what a call returns."""
        return (*self.image_size, self.channels)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON types."""
        fields = dataclasses.asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`; InputError for unknown or missing keys."""
        return sections.call(cls, values, where="preprocessing")

    def _statistics(self, name: str) -> tuple[float, ...]:
        values = tuple(sections.number(v, name) for v in _listed(getattr(self, name), name))
        in_range = all(0 <= v <= 1 and (v > 0 or name == "mean") for v in values)
        if len(values) not in (1, self.channels) or not in_range:
            raise InputError(
                f"{name} is {list(values)}; it must be one number or {self.channels} (one a "
                "channel), in units of the pixel range [0, 1], and a std above 0."
            )
        return values

    def _fill_in_resampling(self):
        """Replaces what is unset by the dialect's own, and refuses what it does not have."""
        dialect = dialect_of(self.dialect, where="dialect")
        if self.antialias is False and self.dialect != "big_vision":
            raise InputError(
                f"antialias is False with dialect={self.dialect!r}, which always antialiases; "
                "leave it out or set dialect='big_vision'."
            )
        if self.interpolation is None:
            own = dialect and getattr(dialect, f"{self.resize}_interpolation")
            _set(self, "interpolation", own or "bilinear")
        if self.antialias is None:
            _set(self, "antialias", dialect.antialias if dialect else True)
        self.resample.check(where="interpolation")
        if self.interpolation == "area" and (self.antialias or self.dialect != "big_vision"):
            raise InputError(
                f"interpolation is 'area' with dialect={self.dialect!r} and antialias="
                f"{self.antialias}; it needs dialect='big_vision', and no antialias=True."
            )
        if self.resize == "crop":
            check_target(self.image_size, self.dialect)

    def _check_crop_fraction(self):
        if not 0 < sections.number(self.crop_fraction, "crop_fraction") <= 1:
            raise InputError(f"crop_fraction is {self.crop_fraction}; it must be in (0, 1].")
        if self.resize == "stretch" and self.crop_fraction != DEFAULT_CROP_FRACTION:
            raise InputError(
                f"crop_fraction={self.crop_fraction} has no effect with resize='stretch'; "
                "leave it out or set resize='crop'."
            )


def _listed(values: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise InputError(f"{name} is {values!r}; it must be a list of numbers.")
    return tuple(values)


def _set(instance: Any, name: str, value: Any):
    """Assigns within `__post_init__` of a frozen dataclass."""
    object.__setattr__(instance, name, value)
