"""The data of a planned run: its own account, or what config and caller tell of it."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax import experiment, sections
from vit_jax.data import pipeline
from vit_jax.data.augment.build import build_augment
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.learner import Info

DEFAULT_CHANNELS = 3  # where neither data nor config nor command line tells
# A row of a batch beside its image, as `data.batching.batches` makes it.
ROW = {"label": ((), "int32"), "mask": ((), "bool"), "index": ((), "int32")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What the caller says of data that is not at hand."""

    num_examples: int | None = None
    num_classes: int | None = None
    channels: int | None = None

    def check(self, found: Info) -> None:
        """Raises `InputError` where opened data is otherwise."""
        actual = dict(
            num_examples=found.num_examples,
            num_classes=len(found.class_names),
            channels=found.preprocessing.channels,
        )
        for name, value in actual.items():
            if getattr(self, name) not in (None, value):
                raise InputError(
                    f"{name} was told to be {getattr(self, name)}, but the data says {value}; "
                    "allowed: the same, or nothing."
                )


def describe_data(config: Mapping[str, Any], seed: int, told: Told, notes: list[str]) -> Info:
    """The data's own account of itself; if it cannot be opened, what config and caller tell.

    `num_examples` is 0 where nobody knows it.
    """
    section = config["data"]
    try:
        data = experiment.build_data(section, seed=seed)
        # One row shows what a batch is made of.
        row = dataclasses.replace(data.train, batch_size=1)
        info = Info.of(dataclasses.replace(data, train=row))
        info = dataclasses.replace(info, batch_size=data.train.batch_size)
    except InputError:
        given = _checked(section, seed)
        if (problem := _why_closed(given)) is None:
            raise
    else:
        told.check(info)
        return info
    notes.append(f"the data cannot be opened: {problem}")
    num_classes = told.num_classes or config["task"].get("num_classes")
    if not num_classes:
        raise InputError(
            f"{problem.rstrip('.')}, so that the number of classes is not known; allowed: "
            "--num_classes=N for a plan without the data."
        )
    channels = given.get("channels") or told.channels
    if channels is None:
        channels = DEFAULT_CHANNELS
        notes.append(f"images are taken to have {channels} channels; --channels=N says otherwise")
    if not told.num_examples:
        notes.append("the size of the data is not known; --num_examples=N tells it")
    fields = {field.name for field in dataclasses.fields(Preprocessing)} & given.keys()
    size = given["image_size"]
    size = sections.pair(size)
    own = {name: given[name] for name in fields} | dict(image_size=size, channels=channels)
    preprocessing = Preprocessing(**own)
    return Info(
        class_names=tuple(str(k) for k in range(num_classes)),
        preprocessing=preprocessing,
        num_examples=told.num_examples or 0,
        batch=_row(given, preprocessing) | ROW,
        batch_size=given["batch_size"],
    )


def _row(
    given: Mapping[str, Any], preprocessing: Preprocessing
) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> shape and type of what augmentation makes of an image, here of a black one."""
    transform = sections.call(
        build_augment,
        given.get("augment") or {},
        where="config.data.augment",
        preprocessing=preprocessing,
    )
    black = {"image": np.zeros(preprocessing.image_shape, np.uint8)}
    made = transform(black, np.random.default_rng(0))
    return {name: (x.shape, str(x.dtype)) for name, x in made.items()}


def _checked(section: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The keys of `config.data` once their names and types are found right."""
    keep = functools.wraps(pipeline.build)(lambda **given: given)
    return sections.call(keep, section, where="config.data", seed=seed)


def _why_closed(given: Mapping[str, Any]) -> str | None:
    try:
        pipeline.Origin.of(given).open(given.get("train", "train"))
    except InputError as error:
        return str(error)
    return None
