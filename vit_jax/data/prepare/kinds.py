"""Opens an input by its specification, e.g. open_input('folder:photos').

folder:PATH          {split}/{class}/FILE
tar:PATH             a tar, or a folder of one tar a split, as ImageNet is distributed
webdataset:PATTERN   shards, e.g. 'train-{000000..000012}.tar'
tfrecord:PATH        a TFDS data set prepared as TFRecord
"""

from collections.abc import Callable

from vit_jax import sections
from vit_jax.data.prepare.folder import index_folder
from vit_jax.data.prepare.index import Input
from vit_jax.data.prepare.tar import index_tar
from vit_jax.data.prepare.tfrecord import index_tfrecord
from vit_jax.data.prepare.webdataset import index_webdataset

KINDS: dict[str, Callable[..., Input]] = {
    "folder": index_folder,
    "tar": index_tar,
    "webdataset": index_webdataset,
    "tfrecord": index_tfrecord,
}


def open_input(
    spec: str,
    *,
    labels: tuple[str, ...] | None = None,
    split: str | None = None,
    image_key: str | None = None,
    label_key: str | None = None,
) -> Input:
    """Looks an input through.

    Args:
      spec: KIND:PATH, see above.
      labels: class names, see `tar.py` and `webdataset.py`.
      split: what to call the only split of a tar or of WebDataset shards.
      image_key, label_key: tfrecord only: which features are the image and the label.

    Raises:
      InputError: with what was found and what is allowed, also for an option without effect.
    """
    kind, _, path = spec.partition(":")
    indexer = sections.choose(KINDS, kind, where="--from")
    options = {"labels": labels, "split": split, "image_key": image_key, "label_key": label_key}
    return sections.call_chosen(
        indexer, options, where="prepare", choice=f"--from={kind}:...", path=path
    )
