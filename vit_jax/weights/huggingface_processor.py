"""Hugging Face's preprocessor_config.json, read and written."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax import sections
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError

logger = logging.getLogger(__name__)

Config = Mapping[str, Any]
Settings = dict[str, Any]

# Pillow's numbers
RESAMPLES = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}


def read_preprocessing(config: Config, processor: Config) -> Settings:
    """What preprocessor_config.json says, in the terms of `Preprocessing`.

    Where there is no such file, images are stretched to the config's size and normalised with
    mean and standard deviation 0.5, as the original ViT.
    """
    if "num_patches" in config:  # NaFlex: any grid of so many
        own = math.isqrt(config["num_patches"]) * config["patch_size"]
    else:
        own = config["image_size"]
    size = _sides(processor.get("crop_size") or processor.get("size") or own)
    size = size or _sides(own)  # {'shortest_edge': n}, and nothing cut
    number = str(processor.get("resample", 2))
    names = {str(key): name for key, name in RESAMPLES.items()}
    where = "preprocessor_config.json: resample"
    values: Settings = dict(
        image_size=size,
        channels=config.get("num_channels", 3),
        interpolation=sections.choose(names, number, where=where),
    )
    if not processor.get("do_normalize", True):
        values |= dict(mean=(0.0,), std=(1.0,))
    elif "image_mean" in processor:
        values |= dict(mean=tuple(processor["image_mean"]), std=tuple(processor["image_std"]))
    if processor.get("do_center_crop", False):
        resized = processor.get("size", {})
        is_edge = isinstance(resized, Mapping) and "shortest_edge" in resized
        edge = resized["shortest_edge"] if is_edge else min(_sides(resized) or size)
        values |= dict(resize="crop", crop_fraction=min(1.0, min(size) / edge))
    return values


def write_preprocessing(preprocessing: Preprocessing) -> Settings:
    """preprocessor_config.json for transformers' ViTImageProcessor or CLIPImageProcessor."""
    (height, width), channels = preprocessing.image_size, preprocessing.channels
    numbers = {name: number for number, name in RESAMPLES.items()}
    if not preprocessing.antialias:
        raise InputError("preprocessor_config.json cannot express antialias=False; allowed: True.")
    values: Settings = dict(
        image_processor_type="ViTImageProcessor",
        do_resize=True,
        size=dict(height=height, width=width),
        resample=numbers[preprocessing.interpolation],
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=_per_channel(preprocessing.mean, channels),
        image_std=_per_channel(preprocessing.std, channels),
    )
    if preprocessing.resize == "crop":
        values |= dict(
            image_processor_type="CLIPImageProcessor",
            size=dict(shortest_edge=_shortest_edge(preprocessing)),
            do_center_crop=True,
            crop_size=dict(height=height, width=width),
        )
    return values


def _shortest_edge(preprocessing: Preprocessing) -> int:
    """To which theirs resizes before it cuts; whole pixels, of an image that is cut to a square."""
    (height, width), fraction = preprocessing.image_size, preprocessing.crop_fraction
    if height != width:  # theirs would scale by the shorter side, and fill with black
        raise InputError(
            f"preprocessor_config.json cannot express a crop to {height}x{width}; allowed: a "
            "square, or resize 'stretch'."
        )
    edge = round(height / fraction)
    if not math.isclose(edge, height / fraction, rel_tol=1e-6):
        logger.warning("crop_fraction %g becomes %d / %d, in whole pixels", fraction, height, edge)
    return edge


def _per_channel(values: Sequence[float], channels: int) -> list[float]:
    return list(values) * (channels if len(values) == 1 else 1)


def _sides(size: Any) -> tuple[int, int] | None:
    """(height, width) of the forms that a size takes in these files."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping):
        return (size["height"], size["width"]) if "height" in size else None
    return tuple(size)
