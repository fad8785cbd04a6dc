"""The random augmentation of an example, put together from its settings.

    crop -> flip -> policy -> colour jitter -> grey -> blur -> solarise -> erasing -> Cutout

is the order of timm's create_transform, torchvision's classification presets, DeiT III, DINO and
big_vision's configs, as far as each has these steps. Erasing stands last there too, after the
normalisation, which here follows on the device; see `erasing` for what that changes.

Every draw comes from the generator passed in, which the pipeline derives from the example's
position in the endless stream; so an augmented example depends on nothing else.

Letters: h, w, c = height, width, channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax import sections
from vit_jax.data.augment import geometry, jitter
from vit_jax.data.augment.build_crop import CROPS, build_crop
from vit_jax.data.augment.erasing import build_cutout, build_erasing
from vit_jax.data.augment.multi_crop import build_multi_crop
from vit_jax.data.augment.policies import build_policy
from vit_jax.data.dialects import dialect_of
from vit_jax.data.examples import Example, Transform
from vit_jax.data.images.decode import Encoded
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError

COLOURS = {
    "color_jitter": jitter.build_color_jitter,
    "grayscale": jitter.build_grayscale,
    "gaussian_blur": jitter.build_gaussian_blur,
    "solarize": jitter.build_solarize,
}


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Mirrors left and right with a probability; see `geometry.flip`."""

    probability: float
    keypoint_order: tuple[int, ...] | None = None

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        if rng.random() >= self.probability:
            return example
        return geometry.flip(example, keypoint_order=self.keypoint_order)


@dataclass(frozen=True)
class FastDct:
    """Has an image that is still encoded decoded with the fast DCT; see `decode.Encoded`."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        image = example.get("image")
        if not isinstance(image, Encoded):
            return example
        return {**example, "image": image.with_fast_dct()}


@dataclass(frozen=True, kw_only=True)
class Chain:
    """One step after another."""

    steps: tuple[Transform, ...]

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for step in self.steps:
            example = step(example, rng)
        return example


def build_augment(
    *,
    preprocessing: Preprocessing,
    dialect: str | None = None,
    crop: str = "none",
    min_area: float | None = None,
    max_area: float | None = None,
    aspect_ratios: tuple[float, float] | None = None,
    short_side: int | None = None,
    padding: int | None = None,
    padding_mode: str | None = None,
    interpolation: str | None = None,
    antialias: bool | None = None,
    scaled_decode: bool | None = None,
    min_visible: float = 0.0,
    flip_probability: float = 0.0,
    keypoint_order: tuple[int, ...] | None = None,
    policy: Mapping[str, Any] | None = None,
    color_jitter: Mapping[str, Any] | None = None,
    grayscale: Mapping[str, Any] | None = None,
    gaussian_blur: Mapping[str, Any] | None = None,
    solarize: Mapping[str, Any] | None = None,
    erasing: Mapping[str, Any] | None = None,
    cutout: Mapping[str, Any] | None = None,
    multi_crop: Mapping[str, Any] | None = None,
) -> Transform:
    """Returns `transform(example, rng) -> example`, which can be pickled.

    Its 'image' is uint8 of preprocessing.image_shape; with `multi_crop` there are 'global_images'
    and 'local_images' instead.

    Args:
      preprocessing: what evaluation does; gives the size and the channels.
      dialect: 'big_vision', 'torchvision' or 'timm', see `dialects`; None is that of
        `preprocessing`, and where there is none, crops are torchvision's and resampled as in
        evaluation.
      crop: 'none', 'centre', 'inception', 'resize_small', 'simple' or 'shift',
        see `crops`.
      min_area, max_area: for 'inception': the box's share of the image area; None is the
        dialect's.
      aspect_ratios: for 'inception': least and largest width / height; None is the dialect's.
      short_side: for 'resize_small': pixels; None is the size / 0.875, 256 for 224.
      padding: for 'shift' and 'simple': pixels on each side; None is 4 for 'simple'.
      padding_mode: the same: 'constant' (zeros) or 'reflect'; None is zeros for 'shift' and
        'reflect' for 'simple'.
      interpolation: for 'inception', 'resize_small', 'simple': see `resampling`, or 'random' for
        a coin between bilinear and bicubic; None is the dialect's.
      antialias: for the same; None is the dialect's.
      scaled_decode: for the same: whether JPEGs may be decoded at a half, quarter or eighth of
        their size where that is enough; faster, nearly the same pixels. None is no.
      min_visible: objects of which a crop leaves less than this share are dropped.
      flip_probability: of mirroring left and right; 0.5 is usual, 0 for text and digits.
      keypoint_order: of keypoints in the mirror, see `geometry.flip`.
      policy: the keys of `policies.build_policy`; `dialect` among them where none is set here.
      color_jitter, grayscale, gaussian_blur, solarize: the keys of `jitter.build_...`.
      erasing, cutout: the keys of `erasing.build_erasing` and `build_cutout`.
      multi_crop: the keys of `multi_crop.build_multi_crop`; takes crop='inception'.

    Raises:
      InputError: for a value out of range, or one that has no effect.
    """
    _check_dialect(dialect, crop, used_too=(policy, erasing))
    dialect = preprocessing.dialect if dialect is None else dialect
    if not 0 <= sections.number(min_visible, "augment.min_visible") <= 1:
        raise InputError(f"augment.min_visible is {min_visible}; allowed: 0 to 1.")
    cut = build_crop(
        preprocessing=preprocessing,
        dialect=dialect,
        crop=crop,
        min_visible=min_visible,
        settings=dict(
            min_area=min_area,
            max_area=max_area,
            aspect_ratios=aspect_ratios,
            short_side=short_side,
            padding=padding,
            padding_mode=padding_mode,
            interpolation=interpolation,
            antialias=antialias,
            scaled_decode=scaled_decode,
        ),
    )
    flips = _flips(flip_probability, keypoint_order)
    policies = _policies(policy, dialect, preprocessing.channels)
    colours = dict(
        color_jitter=color_jitter,
        grayscale=grayscale,
        gaussian_blur=gaussian_blur,
        solarize=solarize,
    )
    coloured = _colours(colours)
    erased = _erased(erasing, cutout, preprocessing, dialect)
    if preprocessing.channels not in (1, 3) and (policies or coloured):
        raise InputError(
            f"augment has colour settings for images of {preprocessing.channels} channels; a "
            "policy, color_jitter, grayscale, gaussian_blur and solarize are for 1 or 3."
        )
    row = dialect_of(dialect, where="augment.dialect")
    decoded = (FastDct(),) if row and row.fast_dct else ()
    if multi_crop is None:
        steps = (*decoded, cut, *flips, *policies, *coloured, *erased)
        return Chain(steps=steps) if len(steps) > 1 else cut
    _check_multi_crop(
        crop,
        min_area=(min_area, "; set multi_crop.global_area"),
        max_area=(max_area, "; set multi_crop.global_area"),
        gaussian_blur=(gaussian_blur, "; set multi_crop.blur"),
        solarize=(solarize, "; set multi_crop.solarize"),
        scaled_decode=(scaled_decode, ", which decodes an image once for all its views"),
    )
    crops = sections.call(
        build_multi_crop,
        multi_crop,
        where="config.data.augment.multi_crop",
        crop=cut,
        before=(*flips, *policies, *coloured),
        after=erased,
    )
    return Chain(steps=(*decoded, crops)) if decoded else crops


def _check_dialect(dialect: str | None, crop: str, *, used_too: tuple[Any, ...]):
    dialect_of(dialect, where="augment.dialect")
    used = "interpolation" in CROPS.get(crop, ()) or any(one is not None for one in used_too)
    if dialect is not None and not used:
        raise InputError(
            f"augment.dialect has no effect with crop={crop!r}, no policy and no erasing; leave "
            "it out."
        )


def _flips(probability: float, keypoint_order: tuple[int, ...] | None) -> tuple[Transform, ...]:
    if not 0 <= sections.number(probability, "augment.flip_probability") <= 1:
        raise InputError(f"augment.flip_probability is {probability}; allowed: 0 to 1.")
    if probability == 0 and keypoint_order is not None:
        raise InputError("augment.keypoint_order has no effect with flip_probability=0.")
    return (Flip(probability=probability, keypoint_order=keypoint_order),) if probability else ()


def _policies(
    policy: Mapping[str, Any] | None, dialect: str | None, channels: int
) -> tuple[Transform, ...]:
    if policy is None:
        return ()
    fill = policy.get("fill")
    if isinstance(fill, tuple | list) and len(fill) != channels:
        raise InputError(
            f"augment.policy.fill is {fill} for images of {channels} channels; allowed: one number "
            "of 0 to 255, or one a channel."
        )
    given = {} if dialect is None else {"dialect": dialect}
    return (sections.call(build_policy, policy, where="config.data.augment.policy", **given),)


def _colours(settings: Mapping[str, Mapping[str, Any] | None]) -> tuple[Transform, ...]:
    return tuple(
        sections.call(COLOURS[name], section, where=f"config.data.augment.{name}")
        for name, section in settings.items()
        if section is not None
    )


def _erased(
    erasing: Mapping[str, Any] | None,
    cutout: Mapping[str, Any] | None,
    preprocessing: Preprocessing,
    dialect: str | None,
) -> tuple[Transform, ...]:
    where, given = "config.data.augment", {"preprocessing": preprocessing}
    steps = []
    if erasing is not None:
        given_too = {**given, "dialect": dialect}
        steps.append(sections.call(build_erasing, erasing, where=f"{where}.erasing", **given_too))
    if cutout is not None:
        steps.append(sections.call(build_cutout, cutout, where=f"{where}.cutout", **given))
    return tuple(steps)


def _check_multi_crop(crop: str, **unused: tuple[Any, str]):
    """Refuses what multi-crop does not use: name=(value, what to do instead)."""
    if crop != "inception":
        raise InputError(f"augment.crop is {crop!r}; multi_crop needs crop='inception'.")
    for name, (value, instead) in unused.items():
        if value is not None:
            raise InputError(f"augment.{name} has no effect with multi_crop{instead}.")
