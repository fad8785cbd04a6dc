"""Augmentation policies: which operations are drawn, how often and how strongly.

RandAugment (arXiv:1909.13719), AutoAugment (arXiv:1805.09501) and the 3-Augment of DeiT III
(arXiv:2204.07118), by the laws of three libraries that share the names and differ in the rest:

                     big_vision             torchvision            timm
    RandAugment
      operations     16 with Cutout         14 with Identity       15, neither of both
      drawn          uniformly, one after another, with replacement, in all three
      done           always                 always                 with `probability`, 0.5
      level          any, 10 is usual       0 to num_bins - 1      up to 10, or with noise
                                                                   `magnitude_std` cut to 0..10
    AutoAugment
      policies       v0                     imagenet, cifar10,     original, originalr, v0,
                                            svhn                   v0r
      levels         of RandAugment, but    position in 10 bins    of RandAugment; Posterize as
                     translates 250 px                             the policy's name says
    3-Augment        (none)                 as in DeiT's code      the same
    interpolation    nearest                nearest                bilinear or bicubic, drawn
                                                                   for each operation
    fill             128                    0                      128
    coordinates      TensorFlow's           Pillow's               Pillow's
    arithmetic       float32, cut           Pillow's               Pillow's

How a level becomes an amount stands in `levels.py`, pixels in `operations.py`. In timm's r policies
Posterize removes more bits at higher levels. timm's recipes usually set the fill to the mean of
the data and name one interpolation: both can be set here. big_vision's contrast and solarize do
something else than their names say, see `tensorflow_colour.py`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax import sections
from vit_jax.data.augment import autoaugment_tables, levels
from vit_jax.data.augment.policy_laws import AutoAugment, Fill, RandAugment, Style, three_augment
from vit_jax.data.augment.warp import PILLOW
from vit_jax.data.examples import Transform
from vit_jax.errors import InputError

MOST_MAGNITUDE = 1000  # far beyond any use; levels of much more overflow
_WHERE = "augment.policy"
_MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY")
_ENHANCED = ("Color", "Contrast", "Brightness", "Sharpness")
_TIMM_MOVES = ("SolarizeAdd", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
_UNCHANGED = ("AutoContrast", "Equalize", "Invert", "Rotate")

BIG_VISION_OPERATIONS = (
    *_UNCHANGED,
    "Posterize",
    "Solarize",
    *_ENHANCED,
    *_MOVES,
    "Cutout",
    "SolarizeAdd",
)
TORCHVISION_OPERATIONS = (
    "Identity",
    *_MOVES,
    "Rotate",
    *_ENHANCED,
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)
TIMM_OPERATIONS = (*_UNCHANGED, "Posterize", "Solarize", *_ENHANCED, *_TIMM_MOVES)
TIMM_INCREASING = (
    *_UNCHANGED,
    "PosterizeIncreasing",
    "SolarizeIncreasing",
    *(f"{name}Increasing" for name in _ENHANCED),
    *_TIMM_MOVES,
)
# Per dialect: table and what its names are in `levels.py`, where they differ.
AUTOAUGMENT = {
    "big_vision": {"v0": (autoaugment_tables.V0, {})},
    "torchvision": {
        "imagenet": (autoaugment_tables.IMAGENET, {}),
        "cifar10": (autoaugment_tables.CIFAR10, {}),
        "svhn": (autoaugment_tables.SVHN, {}),
    },
    "timm": {
        "original": (autoaugment_tables.IMAGENET, {"Posterize": "PosterizeOriginal"}),
        "originalr": (autoaugment_tables.IMAGENET, {"Posterize": "PosterizeIncreasing"}),
        "v0": (autoaugment_tables.V0, {"TranslateY": "TranslateYRel"}),
        "v0r": (
            autoaugment_tables.V0,
            {"TranslateY": "TranslateYRel", "Posterize": "PosterizeIncreasing"},
        ),
    },
}
AUTOAUGMENT_BINS = 10  # of torchvision, whatever RandAugment uses


def build_policy(
    *,
    name: str,
    dialect: str,
    policy: str | None = None,
    num_ops: int | None = None,
    magnitude: float | None = None,
    num_bins: int | None = None,
    probability: float | None = None,
    increasing: bool | None = None,
    magnitude_std: float | None = None,
    magnitude_max: float | None = None,
    interpolation: str | None = None,
    fill: int | tuple[int, int, int] | None = None,
) -> Transform:
    """Returns `policy(example, rng) -> example`; it can be pickled.

    Args:
      name: 'randaugment', 'autoaugment' or 'three_augment'.
      dialect: 'big_vision', 'torchvision' or 'timm'; see the table at the top of this file.
      policy: of autoaugment: which table.
      num_ops: of randaugment: how many operations, 2 by default.
      magnitude: of randaugment: their level; by default 9 in torchvision, else 10.
      num_bins: of randaugment in torchvision: how many levels there are, by default 31.
      probability: of randaugment in timm: of doing an operation that was drawn, by default 0.5.
      increasing: of randaugment in timm: whether a higher level always changes more; default False.
      magnitude_std: in timm: normal noise on each level; above 100, uniform between 0 and it.
      magnitude_max: of randaugment in timm: the limit of a level, by default 10.
      interpolation: in torchvision and timm: 'nearest', 'bilinear' or 'bicubic'.
      fill: what appears at the border, one value or one a channel.

    DeiT's rand-m9-mstd0.5-inc1 is randaugment of timm with magnitude=9, magnitude_std=0.5 and
    increasing=True.

    Raises:
      InputError: for a value out of range, or a key that the chosen policy does not use.
    """
    builders = sections.choose(BUILDERS, name, where=f"{_WHERE}.name")
    builder = sections.choose(builders, dialect, where=f"{_WHERE}.dialect with name={name!r}")
    given = {
        "policy": policy,
        "num_ops": num_ops,
        "magnitude": magnitude,
        "num_bins": num_bins,
        "probability": probability,
        "increasing": increasing,
        "magnitude_std": magnitude_std,
        "magnitude_max": magnitude_max,
        "interpolation": interpolation,
        "fill": fill,
    }
    _check(**{key: value for key, value in given.items() if key not in ("policy", "increasing")})
    return sections.call_chosen(builder, given, where=_WHERE, choice=f"{name} of {dialect}")


def _big_vision_randaugment(
    *, num_ops: int = 2, magnitude: float = 10, fill: Fill = 128
) -> RandAugment:
    style = Style(
        dialect="big_vision", policy="randaugment", interpolations=("nearest",), fill=fill
    )
    return _always(BIG_VISION_OPERATIONS, num_ops, magnitude, style)


def _torchvision_randaugment(
    *,
    num_ops: int = 2,
    magnitude: int = 9,
    num_bins: int = 31,
    interpolation: str = "nearest",
    fill: Fill = 0,
) -> RandAugment:
    if not isinstance(magnitude, int) or not 0 <= magnitude < num_bins:
        raise InputError(
            f"{_WHERE}.magnitude is {magnitude!r}; allowed in torchvision: a whole number from 0 "
            f"to num_bins - 1 = {num_bins - 1}."
        )
    style = Style(
        dialect="torchvision",
        policy="randaugment",
        interpolations=(interpolation,),
        fill=fill,
        bins=num_bins,
    )
    return _always(TORCHVISION_OPERATIONS, num_ops, magnitude, style)


def _check(
    *,
    num_ops: int | None,
    magnitude: float | None,
    num_bins: int | None,
    probability: float | None,
    magnitude_std: float | None,
    magnitude_max: float | None,
    interpolation: str | None,
    fill: Fill | None,
):
    whole = {"num_ops": (num_ops, 1, 101), "num_bins": (num_bins, 2, 10_001)}
    for key, (value, *_unused) in whole.items():
        if not isinstance(value, int | None):
            raise InputError(f"{_WHERE}.{key} is {value!r}; allowed: a whole number.")
    sections.check_ranges(
        _WHERE,
        **whole,
        magnitude=(magnitude, 0, MOST_MAGNITUDE),
        magnitude_std=(magnitude_std, 0, math.inf),
        magnitude_max=(magnitude_max, sections.TINY, math.inf),
    )
    if probability is not None and not 0 <= probability <= 1:
        raise InputError(f"{_WHERE}.probability is {probability}; allowed: 0 to 1.")
    if interpolation is not None:
        sections.choose(PILLOW, interpolation, where=f"{_WHERE}.interpolation")
    values = (fill,) if isinstance(fill, int) else fill or ()
    if not all(isinstance(value, int) and 0 <= value <= 255 for value in values):
        raise InputError(f"{_WHERE}.fill is {fill!r}; allowed: whole numbers from 0 to 255.")


def _always(names: tuple[str, ...], num_ops: int, magnitude: float, style: Style) -> RandAugment:
    return RandAugment(
        names=names, num_ops=num_ops, magnitude=magnitude, probability=1.0, style=style
    )


def _timm_randaugment(
    *,
    num_ops: int = 2,
    magnitude: float = 10,
    probability: float = 0.5,
    increasing: bool = False,
    magnitude_std: float = 0.0,
    magnitude_max: float = levels.LEVEL_UNIT,
    interpolation: str | None = None,
    fill: Fill = 128,
) -> RandAugment:
    style = _timm_style("randaugment", interpolation, fill, magnitude_std, magnitude_max)
    return RandAugment(
        names=TIMM_INCREASING if increasing else TIMM_OPERATIONS,
        num_ops=num_ops,
        magnitude=magnitude,
        probability=probability,
        style=style,
    )


def _big_vision_autoaugment(*, policy: str = "v0", fill: Fill = 128) -> AutoAugment:
    style = Style(
        dialect="big_vision", policy="autoaugment", interpolations=("nearest",), fill=fill
    )
    return _autoaugment(policy, style)


def _torchvision_autoaugment(
    *, policy: str = "imagenet", interpolation: str = "nearest", fill: Fill = 0
) -> AutoAugment:
    style = Style(
        dialect="torchvision",
        policy="autoaugment",
        interpolations=(interpolation,),
        fill=fill,
        bins=AUTOAUGMENT_BINS,
    )
    return _autoaugment(policy, style)


def _timm_autoaugment(
    *,
    policy: str = "original",
    magnitude_std: float = 0.0,
    interpolation: str | None = None,
    fill: Fill = 128,
) -> AutoAugment:
    style = _timm_style("autoaugment", interpolation, fill, magnitude_std, levels.LEVEL_UNIT)
    return _autoaugment(policy, style)


def _autoaugment(policy: str, style: Style) -> AutoAugment:
    where = f"{_WHERE}.policy with dialect={style.dialect!r}"
    table, renamed = sections.choose(AUTOAUGMENT[style.dialect], policy, where=where)
    pairs = tuple(tuple((renamed.get(name, name), *rest) for name, *rest in pair) for pair in table)
    return AutoAugment(table=pairs, style=style)


def _timm_style(
    policy: str, interpolation: str | None, fill: Fill, std: float, limit: float
) -> Style:
    return Style(
        dialect="timm",
        policy=policy,
        interpolations=(interpolation,) if interpolation else ("bilinear", "bicubic"),
        fill=fill,
        magnitude_std=std,
        magnitude_max=limit,
    )


def _three_augment() -> Transform:
    return three_augment


BUILDERS: Mapping[str, Mapping[str, Callable[..., Any]]] = {
    "randaugment": {
        "big_vision": _big_vision_randaugment,
        "torchvision": _torchvision_randaugment,
        "timm": _timm_randaugment,
    },
    "autoaugment": {
        "big_vision": _big_vision_autoaugment,
        "torchvision": _torchvision_autoaugment,
        "timm": _timm_autoaugment,
    },
    "three_augment": {"torchvision": _three_augment, "timm": _three_augment},
}
