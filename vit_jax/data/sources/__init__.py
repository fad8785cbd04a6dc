"""Opens a source by its specification, e.g. open_source('digits', 'train[:90%]').

    digits             1,797 handwritten digits that ship with scikit-learn; runs anywhere
    idx:PATH           MNIST-family IDX files in a folder
    npz:PATH           NumPy: a .npz file, or a folder of SPLIT_images.npy and SPLIT_labels.npy
    folder:PATH        {split}/{class}/*.{jpg,jpeg,png,webp,bmp}, classes of any depth
    videos:PATH        {split}/{class}/*.{mp4,m4v,mkv,webm,avi,mov,gif}
    manifest:PATH      a .csv or .jsonl file that lists images with labels, captions or boxes
    array_record:PATH  a folder of this project's own prepared files, the fastest to read
    tfds:NAME          a TFDS data set prepared as ArrayRecord
    hf:NAME[:CONFIG]   a data set of Hugging Face, on disk or on the hub

An opener returns {split: function that opens it}, so only what is named is read. Its keyword-only
arguments are the settings that its kind takes.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from vit_jax import sections
from vit_jax.data import splits
from vit_jax.data.examples import Source
from vit_jax.data.sources.array_record import open_array_record
from vit_jax.data.sources.arrays import open_digits, open_idx
from vit_jax.data.sources.folder import open_folder, open_videos
from vit_jax.data.sources.hugging_face import open_hugging_face
from vit_jax.data.sources.manifest import open_manifest
from vit_jax.data.sources.numpy_files import open_npz
from vit_jax.data.sources.tfds import open_tfds
from vit_jax.errors import InputError

OPENERS: dict[str, Callable[..., dict[str, Callable[[], Source]]]] = {
    "digits": open_digits,
    "idx": open_idx,
    "npz": open_npz,
    "folder": open_folder,
    "videos": open_videos,
    "manifest": open_manifest,
    "array_record": open_array_record,
    "tfds": open_tfds,
    "hf": open_hugging_face,
}


def open_source(
    spec: str,
    split: str,
    *,
    data_dir: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
) -> Source:
    """Returns the examples of a split.

    Args:
      spec: KIND or KIND:PATH, see above.
      split: see `splits.GRAMMAR`.
      data_dir: tfds only: the folder of prepared data sets; None is TFDS's own default.
      image_key, label_key: tfds and hf only: which features are the image and the label; None is
        'image' and 'label'.

    Raises:
      InputError: with what was found and what is allowed.
    """
    found = available(spec, data_dir=data_dir, image_key=image_key, label_key=label_key)
    return splits.select(found, split, name=spec)


def available(
    spec: str,
    *,
    data_dir: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
) -> dict[str, Callable[[], Source]]:
    """{split: function that opens it} of a source, see `open_source`."""
    kind, _, path = str(spec).partition(":")
    opener = sections.choose(OPENERS, kind, where="data.source")
    settings = dict(data_dir=data_dir, image_key=image_key, label_key=label_key)
    return opener(path, **_taken(kind, settings))


def _taken(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are set; InputError for one that this kind of source does not take."""
    given = {name: value for name, value in settings.items() if value is not None}
    takes = {k: set(inspect.signature(opener).parameters) for k, opener in OPENERS.items()}
    for name, value in given.items():
        if name not in takes[kind]:
            others = " and ".join(f"{k}:NAME" for k in OPENERS if name in takes[k])
            raise InputError(
                f"data.{name} is {value!r}, but it concerns {others} alone; leave it out for a "
                f"source of kind {kind!r}."
            )
    return given
