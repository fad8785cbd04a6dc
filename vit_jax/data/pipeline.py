"""The data of an experiment, from its config: `build(**config.data, seed=...)`.

The batches themselves are made in `batches.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from vit_jax import sections
from vit_jax.data.augment.build import build_augment
from vit_jax.data.batches import DEFAULT_PREFETCH, SKIP_HINT, Batch, EvalData, TrainData
from vit_jax.data.decode import pixels
from vit_jax.data.examples import Source, UnreadableExample
from vit_jax.data.image import DEFAULT_CROP_FRACTION, Preprocessing
from vit_jax.data.sources import open_source
from vit_jax.errors import InputError

__all__ = ["Batch", "DataSet", "EvalData", "TrainData", "build"]


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """What `config.data` describes.

    Attributes:
      preprocessing: of evaluation; stored with checkpoints.
      class_names: one a class.
      train: the training batches.
      open_split: split -> its examples, in the same source.
    """

    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    train: TrainData
    open_split: Callable[[str], Source]

    def evaluation(
        self, split: str, *, batch_size: int | None = None, skip_bad_examples: bool | None = None
    ) -> EvalData:
        """The batches of `split` for evaluation; what is None is as in training."""
        train = self.train
        source = self.open_split(split)
        if source.class_names != self.class_names:
            raise InputError(f"{source.name} has other classes than {train.source.name}.")
        return EvalData(
            source=source,
            preprocessing=self.preprocessing,
            batch_size=train.batch_size if batch_size is None else batch_size,
            num_threads=train.num_threads,
            prefetch=train.prefetch,
            process_index=train.process_index,
            process_count=train.process_count,
            skip_bad_examples=(
                train.skip_bad_examples if skip_bad_examples is None else skip_bad_examples
            ),
        )


def build(
    *,
    source: str,
    train: str = "train",
    batch_size: int,
    image_size: tuple[int, int] | int,
    channels: int | None = None,
    data_dir: str | None = None,
    label_key: str | None = None,
    augment: Mapping[str, Any] | None = None,
    resize: str = "stretch",
    crop_fraction: float = DEFAULT_CROP_FRACTION,
    interpolation: str = "bilinear",
    mean: tuple[float, ...] = (0.5,),
    std: tuple[float, ...] = (0.5,),
    shuffle: bool = True,
    num_threads: int | None = None,
    prefetch: int = DEFAULT_PREFETCH,
    skip_bad_examples: bool = False,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
) -> DataSet:
    """Builds the data of an experiment; the keys of `config.data` are these arguments.

    Args:
      source, data_dir, label_key: see `sources.open_source`.
      train: the split to train on, see `splits.GRAMMAR`.
      batch_size: examples of the global batch, over all processes.
      image_size: (height, width) in pixels, or one number for a square.
      channels: None is as many as the first image of `train` has.
      augment: the keys of `augment.build_augment`; None is no augmentation.
      resize, crop_fraction, interpolation, mean, std: see `image.Preprocessing`.
      shuffle, seed: see `TrainData`.
      num_threads, prefetch, skip_bad_examples: see `batches.Reader`; prefetch counts batches.
      process_index, process_count: this host and the number of hosts.
    """
    open_split = partial(open_source, source, data_dir=data_dir, label_key=label_key)
    examples = open_split(train)
    preprocessing = Preprocessing(
        image_size=(image_size, image_size) if isinstance(image_size, int) else image_size,
        channels=_channels(examples, skip_bad_examples) if channels is None else channels,
        resize=resize,
        crop_fraction=crop_fraction,
        interpolation=interpolation,
        mean=mean,
        std=std,
    )
    transform = sections.call(
        build_augment, augment or {}, where="config.data.augment", preprocessing=preprocessing
    )
    data = TrainData(
        source=examples,
        transform=transform,
        image_shape=preprocessing.image_shape,
        batch_size=batch_size,
        seed=seed,
        shuffle=shuffle,
        num_threads=num_threads,
        prefetch=prefetch,
        process_index=process_index,
        process_count=process_count,
        skip_bad_examples=skip_bad_examples,
    )
    return DataSet(
        preprocessing=preprocessing,
        class_names=examples.class_names,
        train=data,
        open_split=open_split,
    )


def _channels(source: Source, skip_bad_examples: bool) -> int:
    """Channels of the first image, or of the first readable one where skipping is allowed."""
    for i in range(len(source)):
        try:
            return pixels(source[i]["image"]).shape[2]
        except UnreadableExample as error:
            if not skip_bad_examples:
                raise UnreadableExample(error.place, f"{error.reason}; {SKIP_HINT}") from error
    raise InputError(f"{source.name} has no readable image among its {len(source)}.")
