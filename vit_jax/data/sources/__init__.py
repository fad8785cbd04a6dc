"""Opens a source by its specification, e.g. open_source('digits', 'train[:90%]').

    digits       1,797 handwritten digits that ship with scikit-learn; runs anywhere
    idx:PATH     MNIST-family IDX files in a folder
    tfds:NAME    a TFDS data set prepared as ArrayRecord
    folder:PATH  {split}/{class}/*.{jpg,jpeg,png,webp,bmp}

An opener returns {split: function that opens it}, so only what is named is read.
"""

from collections.abc import Callable
from functools import partial

from vit_jax import sections
from vit_jax.data import splits
from vit_jax.data.examples import Source
from vit_jax.data.sources.arrays import open_digits, open_idx
from vit_jax.data.sources.folder import open_folder
from vit_jax.data.sources.tfds import open_tfds
from vit_jax.errors import InputError

OPENERS: dict[str, Callable[..., dict[str, Callable[[], Source]]]] = {
    "digits": open_digits,
    "idx": open_idx,
    "tfds": open_tfds,
    "folder": open_folder,
}


def open_source(
    spec: str, split: str, *, data_dir: str | None = None, label_key: str = "label"
) -> Source:
    """Returns the examples of a split.

    Args:
      spec: KIND or KIND:PATH, see above.
      split: see `splits.GRAMMAR`.
      data_dir: tfds only: the folder of prepared data sets; None is TFDS's own default.
      label_key: tfds only: which feature is the label.

    Raises:
      InputError: with what was found and what is allowed.
    """
    kind, _, path = str(spec).partition(":")
    opener = sections.choose(OPENERS, kind, where="data.source")
    if kind == "tfds":
        opener = partial(opener, data_dir=data_dir, label_key=label_key)
    elif data_dir is not None or label_key != "label":
        raise InputError(
            f"data_dir={data_dir!r} and label_key={label_key!r} concern tfds:NAME alone; "
            f"leave both unset for source {spec!r}."
        )
    return splits.select(opener(path), split, name=spec)
