"""NumPy's own files as a source: PATH.npz, read whole, or a folder of .npy files, mapped.

    images, labels                  the split 'train'
    SPLIT_images, SPLIT_labels      e.g. val_images; as .npy files in a folder, or in an .npz
    x_SPLIT, y_SPLIT                the same in the words of Keras; .npz only
    class_names                     optional: one name a class

Letters: n = examples; h, w, c = height, width, channels; k = classes.
"""

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.examples import Example, Source
from vit_jax.data.sources import fields
from vit_jax.errors import InputError

_FORM = (
    "arrays images and labels, or for each split SPLIT_images and SPLIT_labels or x_SPLIT and "
    "y_SPLIT"
)
_Reader = Callable[[], np.ndarray]


class MappedFile:
    """An .npy file as an array that stays on disk; a pickle of it holds the path alone."""

    def __init__(self, file: Path):
        self.file = file
        self.array = np.load(file, mmap_mode="r", allow_pickle=False)

    def __getstate__(self) -> Path:
        return self.file

    def __setstate__(self, file: Path):
        self.__init__(file)


class NumpySource(Source):
    """Images uint8[n,h,w,c] or uint8[n,h,w], and labels int[n] or, of several a time, 0/1[n,k]."""

    def __init__(
        self,
        name: str,
        images: MappedFile | np.ndarray,
        labels: np.ndarray | None,
        class_names: tuple[str, ...],
    ):
        self.name, self.class_names = name, class_names
        self._field = None if labels is None else "label" if labels.ndim == 1 else "labels"
        self.fields = ("image", self._field) if self._field else ("image",)
        self._images, self._labels = images, labels

    def __len__(self) -> int:
        return len(self._array)

    def read(self, i: int) -> Example:
        image = self._array[i]
        # Copied: what a worker is to send away must not be a map of a file.
        example: Example = {"image": np.array(image if image.ndim == 3 else image[..., None])}
        if self._field == "label":
            example["label"] = int(self._labels[i])
        elif self._field == "labels":
            example["labels"] = fields.as_labels(np.flatnonzero(self._labels[i]))
        return example

    @property
    def _array(self) -> np.ndarray:
        is_mapped = isinstance(self._images, MappedFile)
        return self._images.array if is_mapped else self._images


class _Pair(NamedTuple):
    """The arrays of a split."""

    images: str
    labels: str | None


def open_npz(path: str) -> dict[str, Callable[[], Source]]:
    """The splits in an .npz file or in a folder of .npy files.

    Raises:
      InputError: for a missing file, arrays of other names, or of another shape or type.
    """
    file = Path(path).expanduser()
    if not path or not file.exists():
        raise InputError(
            f"Source 'npz:{path}' needs an existing .npz file, or a folder with SPLIT_images.npy "
            "and SPLIT_labels.npy: npz:PATH."
        )
    readers = _folder_readers(file) if file.is_dir() else _archive_readers(file)
    pairs = _pairs(list(readers))
    if not pairs:
        found = ", ".join(readers) or "(nothing)"
        raise InputError(f"{file} holds {found}; expected: {_FORM}.")
    names = partial(_class_names, file, readers, list(pairs.values()))
    return {
        split: partial(_open_split, file, f"npz:{path} {split}", readers, pair, names)
        for split, pair in pairs.items()
    }


def _pairs(names: list[str]) -> dict[str, _Pair]:
    """{split: its arrays}."""
    pairs = {}
    for name in names:
        if name == "images":
            split, labels = "train", "labels"
        elif name.endswith("_images"):
            split = name.removesuffix("_images")
            labels = f"{split}_labels"
        elif name.startswith("x_"):
            split = name.removeprefix("x_")
            labels = f"y_{split}"
        else:
            continue
        if split in pairs:
            raise InputError(f"{name} and {pairs[split].images} are both the split {split!r}.")
        pairs[split] = _Pair(name, labels if labels in names else None)
    return pairs


def _folder_readers(folder: Path) -> dict[str, _Reader]:
    files = sorted(folder.glob("*.npy"))
    return {file.stem: partial(_load, file, lambda file=file: MappedFile(file)) for file in files}


def _archive_readers(file: Path) -> dict[str, _Reader]:
    def read(name: str) -> Any:
        with np.load(file, allow_pickle=False) as archive:
            return archive[name]

    def names() -> list[str]:
        with np.load(file, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise ValueError("it is one array, no .npz")
            return archive.files

    return {name: partial(_load, file, partial(read, name)) for name in _load(file, names)}


def _load(file: Path, read: Callable[[], Any]) -> Any:
    try:
        return read()
    except (OSError, ValueError, EOFError, KeyError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"Cannot read {file}: {error}.") from error


def _values(loaded: Any) -> np.ndarray:
    return loaded.array if isinstance(loaded, MappedFile) else loaded


def _open_split(
    file: Path,
    name: str,
    readers: Mapping[str, _Reader],
    pair: _Pair,
    class_names: Callable[[], tuple[str, ...]],
) -> Source:
    images = readers[pair.images]()
    array = _values(images)
    if array.dtype != np.uint8 or array.ndim not in (3, 4) or not len(array):
        raise InputError(
            f"{pair.images} in {file} is {array.dtype}{list(array.shape)}; allowed: uint8[n,h,w] "
            "or uint8[n,h,w,c]."
        )
    if pair.labels is None:
        return NumpySource(name, images, None, ())
    labels = _labels(file, readers, pair.labels)
    if len(labels) != len(array):
        raise InputError(f"{file} has {len(array)} {pair.images} and {len(labels)} {pair.labels}.")
    return NumpySource(name, images, labels, class_names())


def _labels(file: Path, readers: Mapping[str, _Reader], name: str) -> np.ndarray:
    """int32[n], or bool[n,k] where there are several labels a time; of [n,1] the one column."""
    array = np.array(_values(readers[name]()))
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    is_one = array.ndim == 1 and array.dtype.kind in "iu" and array.min(initial=0) >= 0
    is_some = array.ndim == 2 and array.dtype.kind in "iub" and np.isin(array, (0, 1)).all()
    if not is_one and not is_some:
        raise InputError(
            f"{name} in {file} is {array.dtype}{list(array.shape)}; allowed: whole numbers from 0 "
            "of shape [n], or 0 and 1 of shape [n,k]."
        )
    if is_one and array.max(initial=0) >= fields.MOST_NUMBERED:  # told before int32 wraps around
        fields.numbered([array.astype(object)], f"{name} in {file}")
    return array.astype(np.int32 if is_one else bool)


def _class_names(file: Path, readers: Mapping[str, _Reader], pairs: list[_Pair]) -> tuple[str, ...]:
    """The stated ones, or numbers over all splits, so that a label means the same in each."""
    labels = [_labels(file, readers, pair.labels) for pair in pairs if pair.labels]
    counted = fields.numbered(
        [np.array(a.shape[1] - 1) if a.ndim == 2 else a for a in labels], str(file)
    )
    if "class_names" not in readers:
        return counted
    stated = tuple(str(name) for name in _values(readers["class_names"]()))
    if len(stated) < len(counted):
        raise InputError(
            f"{file} states {len(stated)} class_names and has labels up to {len(counted) - 1}."
        )
    return stated
