"""The data of an experiment, from its config: `build(**config.data, seed=...)`.

The batches themselves are made in `batches.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vit_jax import sections
from vit_jax.data.augment.build import Chain, build_augment
from vit_jax.data.batching.batches import DEFAULT_PREFETCH, Batch, EvalData, TrainData
from vit_jax.data.batching.order import Order
from vit_jax.data.batching.rows import hinted
from vit_jax.data.examples import Source, Transform, UnreadableExample
from vit_jax.data.images.decode import pixels
from vit_jax.data.images.preprocessing import DEFAULT_CROP_FRACTION, Preprocessing
from vit_jax.data.sources.fields import listed
from vit_jax.data.sources.mixture import Mixture
from vit_jax.data.sources.origin import Origin
from vit_jax.data.videos.clips import Clip, FrameSampling
from vit_jax.errors import InputError

__all__ = [
    "Batch",
    "DataSet",
    "EvalData",
    "EvalSettings",
    "Origin",
    "Splits",
    "TrainData",
    "build",
    "open_alike",
]


@dataclass(frozen=True, kw_only=True)
class EvalSettings:
    """An entry of `config.evals`.

    Attributes:
      split: see `splits.GRAMMAR`.
      every_steps: training steps between evaluations; 0 for after the last step only.
      batch_size: None is that of the training.
      source, data_dir, image_key, label_key, labels: see `origin.Origin`; what is None is as in
        the training, or, with a source of its own, as that source has it.
    """

    split: str
    every_steps: int = 0
    batch_size: int | None = None
    source: str | None = None
    data_dir: str | None = None
    image_key: str | None = None
    label_key: str | None = None
    labels: Mapping[str, Any] | None = None

    def __post_init__(self):
        if self.every_steps < 0:
            raise InputError(f"every_steps is {self.every_steps}; allowed: 0 or more.")
        if self.batch_size is not None:
            sections.positive_int(self.batch_size, "batch_size")

    def origin(self, training: Origin) -> Origin:
        keys = ("source", "data_dir", "image_key", "label_key", "labels")
        return training.changed(**{name: getattr(self, name) for name in keys})


@dataclass(frozen=True, kw_only=True)
class Splits:
    """What evaluations are opened from: a model's own data, or any other.

    Attributes:
      origin: of what an evaluation leaves open; None where only it can tell, as with published
        weights.
      training_split: of `origin`; None likewise.
      preprocessing: of evaluation.
      class_names: the model's.
      reading: further settings of `EvalData`, e.g. num_workers.
    """

    origin: Origin | None
    training_split: str | None
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    reading: Mapping[str, Any] = field(default_factory=dict)

    def open(
        self,
        settings: EvalSettings,
        *,
        batch_size: int,
        own_classes: bool = False,
        transform: Transform | None = None,
    ) -> EvalData:
        """The batches of an evaluation.

        Args:
          settings: an entry of `config.evals`.
          batch_size: of an entry that has none.
          own_classes: labels are positions in the source's classes, whatever the model's are.
          transform: see `EvalData`.
        """
        origin = settings.origin(self.origin or self._named(settings))
        if own_classes:
            source = origin.open(settings.split, class_names=self.class_names)
        else:
            source = open_alike(origin, settings.split, self.class_names)
        return EvalData(
            source=source,
            preprocessing=self.preprocessing,
            batch_size=batch_size,
            transform=transform,
            **self.reading,
        )

    def _named(self, settings: EvalSettings) -> Origin:
        if settings.source is None:
            raise InputError(
                f"the evaluation on {settings.split!r} has no source, and the model brings none; "
                "allowed: a source, e.g. folder:DIR."
            )
        return Origin(source=settings.source)


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What `config.data` describes.

    Attributes:
      origin: where the examples come from.
      split: of the training.
      preprocessing: of evaluation; stored with checkpoints.
      class_names: one a class.
      train: the training batches.
      clip: of videos.
    """

    origin: Origin
    split: str
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    train: TrainData
    clip: Clip | None = None

    @property
    def splits(self) -> Splits:
        """To be evaluated on, read as the training is."""
        names = ("num_workers", "num_threads", "prefetch", "process_index", "process_count")
        names += ("max_objects", "skip_bad_examples")
        return Splits(
            origin=self.origin,
            training_split=self.split,
            preprocessing=self.preprocessing,
            class_names=self.class_names,
            reading={name: getattr(self.train, name) for name in names} | {"clip": self.clip},
        )

    def evaluation(self, settings: EvalSettings, *, batch_size: int | None = None) -> EvalData:
        """The batches that an entry of `config.evals` describes."""
        size = batch_size or settings.batch_size or self.train.batch_size
        return self.splits.open(settings, batch_size=size)


def open_alike(origin: Origin, split: str, class_names: tuple[str, ...]) -> Source:
    """A split to evaluate on, whose labels are positions in `class_names`.

    Raises:
      InputError: where they are not, or where parts of a mixture would not open `split`.
    """
    for k, part in enumerate(() if isinstance(origin.source, str) else origin.source):
        if part.get("split") is not None:  # it would score what the training saw
            raise InputError(
                f"the evaluation on {split!r} takes data.source, whose part {k} is bound to split "
                f"{part['split']!r}; allowed: a `source` of the evaluation's own, or parts that "
                "name no split."
            )
    source = origin.open(split, class_names=class_names)
    if source.class_names != class_names:
        raise InputError(
            f"{source.name} has classes {listed(source.class_names)}, but the training has "
            f"{listed(class_names)}; allowed: the same, or `labels` that lead to them."
        )
    return source


def build(
    *,
    source: str | Sequence[Mapping[str, Any]],
    train: str = "train",
    batch_size: int,
    image_size: tuple[int, int] | int,
    channels: int | None = None,
    data_dir: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
    labels: Mapping[str, Any] | None = None,
    merge_classes: bool = False,
    frames: Mapping[str, Any] | None = None,
    augment: Mapping[str, Any] | None = None,
    resize: str = "stretch",
    crop_fraction: float = DEFAULT_CROP_FRACTION,
    interpolation: str | None = None,
    dialect: str | None = None,
    antialias: bool | None = None,
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.5,),
    shuffle: bool = True,
    repeats: int = 1,
    max_objects: int | None = None,
    num_workers: int | None = None,
    num_threads: int | None = None,
    prefetch: int = DEFAULT_PREFETCH,
    skip_bad_examples: bool = False,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> DataSet:
    """Builds the data of an experiment; the keys of `config.data` are these arguments.

    Args:
      source, data_dir, image_key, label_key, labels, merge_classes: see `origin.Origin`.
      train: the split to train on, see `splits.GRAMMAR`.
      batch_size: examples of the global batch, over all processes.
      image_size: (height, width) in pixels, or one number for a square.
      channels: None is as many as the first image of `train` has.
      frames: for videos: the keys of `clips.FrameSampling`.
      augment: the keys of `augment.build_augment`; None is no augmentation.
      resize, crop_fraction, interpolation, mean, std: see `preprocessing.Preprocessing`.
      dialect, antialias: see there, too; `augment` follows the dialect, unless it names its own.
      shuffle, seed, repeats: see `order.Order`.
      max_objects, num_workers, num_threads, prefetch, skip_bad_examples: see `batches.Reader`.
      process_index, process_count: this host and the number of hosts.
    """
    origin = Origin(
        source=source,
        data_dir=data_dir,
        image_key=image_key,
        label_key=label_key,
        labels=labels,
        merge_classes=merge_classes,
    )
    examples = origin.open(train)
    preprocessing = Preprocessing(
        image_size=sections.pair(image_size),
        channels=_channels(examples, skip_bad_examples) if channels is None else channels,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        mean=mean,
        std=std,
        dialect=dialect,
        antialias=antialias,
    )
    is_mixture = isinstance(examples, Mixture)
    order = Order(
        lengths=examples.lengths if is_mixture else (len(examples),),
        weights=examples.weights if is_mixture else None,
        seed=seed,
        shuffle=shuffle,
        repeats=repeats,
    )
    transform = sections.call(
        build_augment, augment or {}, where="config.data.augment", preprocessing=preprocessing
    )
    clip = None
    if frames is not None:
        clip = Clip(sections.call(FrameSampling, frames, where="config.data.frames"))
        transform = Chain(steps=(clip, transform))
    elif "video" in examples.fields:
        raise InputError(f"{examples.name} has videos; set data.frames=dict(clip_length=T).")
    data = TrainData(
        source=examples,
        transform=transform,
        order=order,
        batch_size=batch_size,
        num_workers=num_workers,
        num_threads=num_threads,
        prefetch=prefetch,
        process_index=process_index,
        process_count=process_count,
        max_objects=max_objects,
        skip_bad_examples=skip_bad_examples,
    )
    return DataSet(
        origin=origin,
        split=train,
        preprocessing=preprocessing,
        class_names=examples.class_names,
        train=data,
        clip=clip,
    )


def _channels(source: Source, skip_bad_examples: bool) -> int:
    """Channels of the first image, or of the first readable one where skipping is allowed."""
    if "video" in source.fields:
        return 3
    for i in range(len(source)):
        try:
            return pixels(source[i]["image"]).shape[2]
        except UnreadableExample as error:
            if not skip_bad_examples:
                raise hinted(error) from error
    raise InputError(f"{source.name} has no readable image among its {len(source)}.")
