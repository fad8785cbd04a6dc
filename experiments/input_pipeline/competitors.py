"""What is compared: each a function of `Settings` that yields batches without end.

Every one reads the same files, cuts a random box of 8 % to 100 % of the area, resizes it to
224 × 224, mirrors half of the images and makes batches, in random order; `bare` only decodes.
Each imports its own library, so that it runs where only that is installed.
"""

import itertools
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIN_AREA = 0.08  # torchvision's default; big_vision's is 0.05


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Attributes:
    folder: of the images, folder/train/CLASS/FILE.
    cores: how many the process may use; as many workers or threads are started.
    batch_size, size: images a batch, and pixels of a side.
    seed: of order and augmentation, where a library takes one.
    """

    folder: Path
    cores: int
    batch_size: int
    size: int
    seed: int

    def files(self) -> list[str]:
        return sorted(map(str, (self.folder / "train").glob("*/*.jpg")))


def bare(settings: Settings) -> Iterator[int]:
    """libjpeg-turbo by simplejpeg in threads: reads and decodes whole files, nothing else."""
    import simplejpeg

    def decode(path: str) -> int:
        return simplejpeg.decode_jpeg(Path(path).read_bytes()).size

    order = itertools.cycle(settings.files())
    with ThreadPoolExecutor(settings.cores) as pool:
        while True:
            yield sum(pool.map(decode, itertools.islice(order, settings.batch_size)))


def tf_data_float32(settings: Settings) -> Iterator[Any]:
    """tf.data as big_vision: decode_jpeg_and_inception_crop | flip_lr | value_range, float32."""
    return _tf_data(settings, is_float=True)


def tf_data_uint8(settings: Settings) -> Iterator[Any]:
    """tf.data as big_vision but for value_range, which is left to the device: uint8."""
    return _tf_data(settings, is_float=False)


def _tf_data(settings: Settings, *, is_float: bool) -> Iterator[Any]:
    import tensorflow as tf

    tf.random.set_seed(settings.seed)

    def transform(path):
        data = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.image.extract_jpeg_shape(data),
            tf.zeros([0, 0, 4], tf.float32),
            area_range=(MIN_AREA, 1.0),
            min_object_covered=0,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.stack([begin[0], begin[1], size[0], size[1]])
        image = tf.image.decode_and_crop_jpeg(data, window, channels=3)
        image = tf.image.resize(image, (settings.size, settings.size), "bilinear")
        image = tf.image.random_flip_left_right(tf.cast(image, tf.uint8))
        return tf.cast(image, tf.float32) / 127.5 - 1 if is_float else image

    options = tf.data.Options()
    options.threading.private_threadpool_size = settings.cores
    options.threading.max_intra_op_parallelism = 1
    options.experimental_optimization.inject_prefetch = False
    files = settings.files()
    data = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files)).repeat()
    data = data.map(transform, num_parallel_calls=tf.data.AUTOTUNE)
    data = data.batch(settings.batch_size, drop_remainder=True).prefetch(2)
    return data.with_options(options).as_numpy_iterator()


def torchvision_pillow(settings: Settings) -> Iterator[Any]:
    """torchvision's ImageFolder, RandomResizedCrop, flip; torch's worker processes; uint8."""
    _load_torchvision()
    from torchvision import datasets, transforms

    steps = [
        transforms.RandomResizedCrop(settings.size, scale=(MIN_AREA, 1.0)),
        transforms.RandomHorizontalFlip(),
        transforms.PILToTensor(),
    ]
    folder = datasets.ImageFolder(str(settings.folder / "train"), transforms.Compose(steps))
    return _torch(settings, folder, collate=None)


def timm_pillow(settings: Settings) -> Iterator[Any]:
    """timm's ImageDataset, transforms (bilinear, no colours), fast_collate; torch's worker
    processes; uint8."""
    _load_torchvision()
    from timm.data import ImageDataset
    from timm.data.loader import fast_collate
    from timm.data.transforms_factory import transforms_imagenet_train

    transform = transforms_imagenet_train(
        settings.size,
        scale=(MIN_AREA, 1.0),
        color_jitter=None,
        interpolation="bilinear",
        use_prefetcher=True,  # leaves normalisation to the device, as its loader does
    )
    folder = ImageDataset(str(settings.folder / "train"), transform=transform)
    return _torch(settings, folder, collate=fast_collate)


def _torch(settings: Settings, dataset: Any, *, collate: Callable | None) -> Iterator[Any]:
    import torch

    class Endless(torch.utils.data.Sampler):
        """Epoch after epoch without a pause, which a loader otherwise makes between them."""

        def __iter__(self):
            draw = random.Random(settings.seed)
            while True:
                yield from draw.sample(range(len(dataset)), len(dataset))

    torch.manual_seed(settings.seed)
    return iter(
        torch.utils.data.DataLoader(
            dataset,
            sampler=Endless(),
            batch_size=settings.batch_size,
            num_workers=settings.cores,
            collate_fn=collate,
        )
    )


def _load_torchvision():
    """Lets a torchvision that was built for another torch be imported for its transforms."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        from references import load_timm  # of tests/, which run.py puts on the path

        load_timm()


def ours_big_vision(settings: Settings) -> Iterator[Any]:
    """This project in big_vision's dialect, by threads: linear without antialiasing, uint8."""
    _decode_whole_images()
    return _ours(settings, "big_vision", num_threads=settings.cores)


def ours_by_part(settings: Settings) -> Iterator[Any]:
    """The same where libjpeg-turbo 3 is found, which decodes little more than the crop."""
    from vit_jax.data.images import turbojpeg

    if not turbojpeg.is_available():
        raise SystemExit("libjpeg-turbo 3 is not here: pip install turbojpeg")
    return _ours(settings, "big_vision", num_threads=settings.cores)


def ours_processes(settings: Settings) -> Iterator[Any]:
    """As ours_by_part, by worker processes instead of threads."""
    return _ours(settings, "big_vision", num_workers=settings.cores)


def ours_torchvision(settings: Settings) -> Iterator[Any]:
    """This project in torchvision's dialect, by threads: antialiased by Pillow, uint8."""
    _decode_whole_images()
    return _ours(settings, "torchvision", num_threads=settings.cores)


def _decode_whole_images():
    """As on a machine without libjpeg-turbo 3."""
    from vit_jax.data.images import turbojpeg

    turbojpeg.is_available = lambda: False


def _ours(settings: Settings, dialect: str, **workers: int) -> Iterator[Any]:
    from vit_jax.data import pipeline

    data = pipeline.build(
        source=f"folder:{settings.folder}",
        batch_size=settings.batch_size,
        image_size=settings.size,
        channels=3,
        dialect=dialect,
        resize="crop",
        augment=dict(crop="inception", min_area=MIN_AREA, flip_probability=0.5),
        seed=settings.seed,
        **workers,
    )
    return data.train.iterate()


COMPETITORS = dict(
    bare=bare,
    tf_data_float32=tf_data_float32,
    tf_data_uint8=tf_data_uint8,
    torchvision_pillow=torchvision_pillow,
    timm_pillow=timm_pillow,
    ours_big_vision=ours_big_vision,
    ours_by_part=ours_by_part,
    ours_processes=ours_processes,
    ours_torchvision=ours_torchvision,
)
