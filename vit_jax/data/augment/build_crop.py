"""The settings of a crop: which keys each kind uses, and what a dialect puts where none is set."""

from dataclasses import replace
from typing import Any, TypedDict

from vit_jax import sections
from vit_jax.data.augment.crops import RANDOM, InceptionCrop, ResizedWindow, Shift, Unmoved
from vit_jax.data.augment.geometry import PADDING_MODES
from vit_jax.data.dialects import TORCHVISION, dialect_of
from vit_jax.data.images.preprocessing import (
    DEFAULT_CROP_FRACTION,
    Preprocessing,
)
from vit_jax.data.images.resampling import Resample
from vit_jax.errors import InputError

Crop = Unmoved | Shift | InceptionCrop | ResizedWindow

_RESAMPLED = ("interpolation", "antialias", "scaled_decode")
_AREAS = ("min_area", "max_area", "aspect_ratios")
_PADDED = ("padding", "padding_mode")
# The keys that each crop uses.
CROPS = {
    "none": (),
    "centre": (),
    "inception": (*_AREAS, *_RESAMPLED),
    "resize_small": ("short_side", *_RESAMPLED),
    "simple": (*_PADDED, *_RESAMPLED),
    "shift": _PADDED,
}
SIMPLE_PADDING = 4  # pixels; DeiT III, whose code reflects


class _Common(TypedDict):
    """What all crops that resample have; see `InceptionCrop`."""

    size: tuple[int, int]
    channels: int
    resamples: tuple[Resample, ...]
    min_visible: float
    scaled_decode: bool


def build_crop(
    *,
    preprocessing: Preprocessing,
    dialect: str | None,
    crop: str,
    min_visible: float,
    settings: dict[str, Any],
) -> Crop:
    """Returns `crop(example, rng) -> example`; its settings are those of `build_augment`.

    Args:
      preprocessing: what evaluation does.
      dialect: whose law and resampling where `settings` do not say.
      crop: a key of `CROPS`.
      min_visible: see `geometry`.
      settings: of the keys in `CROPS`; None is unset.
    """
    used = sections.choose(CROPS, crop, where="augment.crop")
    _refuse_unused(crop, used, settings)
    if crop in ("none", "centre"):
        if crop == "centre":
            preprocessing = replace(preprocessing, resize="crop")
        return Unmoved(preprocessing=preprocessing, min_visible=min_visible)
    settings = {key: settings[key] for key in used}
    if crop == "shift":
        return _shift(preprocessing, min_visible, **settings)
    builders = {"inception": _inception, "resize_small": _resize_small, "simple": _simple}
    resampling = {key: settings.pop(key) for key in _RESAMPLED}
    common = _Common(
        size=preprocessing.image_size,
        channels=preprocessing.channels,
        resamples=_resamples(preprocessing, dialect, crop, **resampling),
        min_visible=min_visible,
        scaled_decode=bool(resampling["scaled_decode"]),
    )
    return builders[crop](common, dialect, **settings)


def _inception(
    common: _Common,
    dialect: str | None,
    *,
    min_area: float | None,
    max_area: float | None,
    aspect_ratios: tuple[float, float] | None,
) -> InceptionCrop:
    own = dialect_of(dialect, where="augment.dialect") or TORCHVISION
    low = own.crop_area[0] if min_area is None else sections.number(min_area, "augment.min_area")
    high = own.crop_area[1] if max_area is None else sections.number(max_area, "augment.max_area")
    if not 0 < low <= high <= 1:
        raise InputError(
            f"augment.min_area and max_area are {low} and {high}; they are shares of "
            "the image area with 0 < min_area <= max_area <= 1."
        )
    ratio = own.crop_ratio if aspect_ratios is None else tuple(aspect_ratios)
    if len(ratio) != 2 or not 0 < ratio[0] <= ratio[1]:
        raise InputError(
            f"augment.aspect_ratios is {ratio}; allowed: (least, largest), above 0 and in order."
        )
    return InceptionCrop(
        **common,
        law=own.crop_law,
        area=(low, high),
        ratio=ratio,
        attempts=own.crop_attempts,
    )


def _resize_small(
    common: _Common,
    dialect: str | None,
    *,
    short_side: int | None,
) -> ResizedWindow:
    least = max(common["size"])
    if short_side is None:
        short_side = round(least / DEFAULT_CROP_FRACTION)
    if sections.positive_int(short_side, "augment.short_side") < least:
        raise InputError(f"augment.short_side is {short_side}; allowed: {least} pixels or more.")
    return ResizedWindow(
        **common,
        short_side=short_side,
        padding=0,
        padding_mode="constant",
        dialect=dialect,
    )


def _simple(
    common: _Common,
    dialect: str | None,
    *,
    padding: int | None,
    padding_mode: str | None,
) -> ResizedWindow:
    padding = SIMPLE_PADDING if padding is None else padding
    mode = _padding_mode(
        padding,
        "reflect" if padding_mode is None else padding_mode,
        "simple",
        common["size"],
    )
    return ResizedWindow(
        **common,
        short_side=max(common["size"]),
        padding=padding,
        padding_mode=mode,
        dialect=dialect,
    )


def _shift(
    preprocessing: Preprocessing,
    min_visible: float,
    *,
    padding: int | None,
    padding_mode: str | None,
) -> Shift:
    mode = _padding_mode(
        padding,
        "constant" if padding_mode is None else padding_mode,
        "shift",
        preprocessing.image_size,
    )
    return Shift(
        preprocessing=preprocessing, padding=padding, padding_mode=mode, min_visible=min_visible
    )


def _resamples(
    preprocessing: Preprocessing,
    dialect: str | None,
    crop: str,
    *,
    interpolation: str | None,
    antialias: bool | None,
    scaled_decode: bool | None,
) -> tuple[Resample, ...]:
    """What to draw from: as set, else as the dialect has it, else as evaluation does it."""
    own = dialect_of(dialect, where="augment.dialect")
    if antialias is None:
        antialias = own.antialias if own else preprocessing.antialias
    if interpolation is None:
        default = "train_interpolation" if crop == "inception" else "crop_interpolation"
        interpolation = getattr(own, default) if own else preprocessing.interpolation
    names = RANDOM if interpolation == "random" else (interpolation,)
    if scaled_decode and (not antialias or "area" in names):
        raise InputError(
            "augment.scaled_decode averages pixels, which needs antialias=True and an "
            "interpolation other than 'area'."
        )
    where = "augment.interpolation"
    return tuple(Resample(name, antialias).check(where=where) for name in names)


def _refuse_unused(crop: str, used: tuple[str, ...], settings: dict[str, Any]):
    unused = [name for name, value in settings.items() if value is not None and name not in used]
    if unused:
        others = [name for name, keys in CROPS.items() if set(unused) <= set(keys)]
        raise InputError(
            f"augment.{', augment.'.join(unused)} has no effect with crop={crop!r}; leave it out"
            + "".join(f" or set crop={name!r}" for name in others)
            + "."
        )


def _padding_mode(padding: int | None, mode: str, crop: str, size: tuple[int, int]) -> str:
    """`mode`, where it and the padding are possible."""
    sections.choose(dict.fromkeys(PADDING_MODES), mode, where="augment.padding_mode")
    whole = isinstance(padding, int) and not isinstance(padding, bool)
    # A reflection cannot be wider than what is reflected.
    limit = min(size) - 1 if mode == "reflect" else min(size)
    if not whole or not 1 <= padding <= limit:
        raise InputError(
            f"augment.padding is {padding!r}; crop={crop!r} needs 1 to {limit} pixels for images "
            f"of {size[0]}x{size[1]} and padding_mode={mode!r}."
        )
    return mode
