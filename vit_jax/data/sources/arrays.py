"""Sources that fit in memory: scikit-learn's digits and IDX files of the MNIST family.

Letters: n = examples; h, w, c = height, width, channels (c = 1 for both).
"""

import gzip
import math
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from vit_jax.data.examples import Example, Source
from vit_jax.errors import InputError

# scikit-learn names no split, so one is fixed here: the first 1,437 examples (80%) of
# RandomState(0)'s permutation train, the last 360 test. NumPy froze that legacy stream.
DIGITS_TRAIN = 1437
DIGITS_TEST = 360

FASHION_MNIST_CLASSES = (  # in label order, from the data set's README (Zalando Research)
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip

IDX_PREFIXES = {"train": "train", "test": "t10k"}
_IDX_UINT8 = 8  # third byte of the magic number: the element type
_UNZIP_ERRORS = (OSError, EOFError, zlib.error)


class ArraySource(Source):
    """Images uint8[n,h,w,c] and their labels int[n], held in memory."""

    def __init__(
        self, name: str, images: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
    ):
        self.name = name
        self.class_names = class_names
        self._images = images
        self._labels = labels

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, i: int) -> Example:
        return {"image": self._images[i], "label": int(self._labels[i])}


def open_digits(path: str) -> dict[str, Callable[[], Source]]:
    """1,797 handwritten digits of 8x8 pixels, 16 grey levels (UCI, through scikit-learn)."""
    if path:
        raise InputError(f"Source 'digits' takes no path, got 'digits:{path}'.")
    return {"train": partial(_digits, "train"), "test": partial(_digits, "test")}


def _digits(split: str) -> Source:
    from sklearn.datasets import load_digits

    digits = load_digits()
    order = np.random.RandomState(0).permutation(DIGITS_TRAIN + DIGITS_TEST)
    rows = order[:DIGITS_TRAIN] if split == "train" else order[DIGITS_TRAIN:]
    images = np.round(digits.images[rows] * (255 / 16)).astype(np.uint8)  # levels 0..16
    names = tuple(str(name) for name in digits.target_names)
    return ArraySource(f"digits:{split}", images[..., None], digits.target[rows], names)


def open_idx(path: str) -> dict[str, Callable[[], Source]]:
    """The splits whose IDX files lie in folder `path`: train-*, and t10k-* as 'test'."""
    folder = Path(path).expanduser()
    if not path or not folder.is_dir():
        raise InputError(f"Source 'idx:{path}' needs an existing folder: idx:PATH.")
    found = {split: _find(folder, prefix) for split, prefix in IDX_PREFIXES.items()}
    found = {split: files for split, files in found.items() if files}
    if not found:
        raise InputError(
            f"Folder {folder} holds no IDX data set; expected train-images-idx3-ubyte[.gz] with "
            "train-labels-idx1-ubyte[.gz], or the same with t10k for the split 'test'."
        )
    names = partial(_class_names, folder, [labels for _, labels in found.values()])
    return {split: partial(_idx, path, split, *files, names) for split, files in found.items()}


def _find(folder: Path, prefix: str) -> tuple[Path, Path] | None:
    """Returns the (images, labels) files of a split, or None where it has neither."""
    images, labels = (
        [
            file
            for dash in "-."  # 'train-images.idx3-ubyte' is how some archives unpack
            for suffix in ("", ".gz")
            if (file := folder / f"{prefix}-{stem}{dash}idx{rank}-ubyte{suffix}").is_file()
        ]
        for stem, rank in (("images", 3), ("labels", 1))
    )
    if bool(images) != bool(labels):
        lone, missing = (images[0], "labels") if images else (labels[0], "images")
        raise InputError(f"{lone} has no {prefix}-{missing} file next to it.")
    return (images[0], labels[0]) if images else None


def _class_names(folder: Path, label_files: list[Path]) -> tuple[str, ...]:
    """Names over all splits, so that a label means the same in each of them."""
    num_classes = 1 + max(int(read_idx(file, rank=1).max(initial=0)) for file in label_files)
    # torchvision unpacks into FashionMNIST/raw.
    named = folder.resolve().parent if folder.resolve().name == "raw" else folder.resolve()
    if "fashion" in named.name.lower() and num_classes <= len(FASHION_MNIST_CLASSES):
        return FASHION_MNIST_CLASSES
    return tuple(str(label) for label in range(num_classes))


def _idx(
    path: str, split: str, images: Path, labels: Path, names: Callable[[], tuple[str, ...]]
) -> Source:
    pixels, targets = read_idx(images, rank=3), read_idx(labels, rank=1)
    if len(pixels) != len(targets):
        raise InputError(f"{images} holds {len(pixels)} images, {labels} {len(targets)} labels.")
    return ArraySource(f"idx:{path} {split}", pixels[..., None], targets, names())


def read_idx(file: Path, *, rank: int) -> np.ndarray:
    """Reads a uint8 IDX file, gzipped if it ends in '.gz' (format: yann.lecun.com/exdb/mnist).

    Two zero bytes, the element type, the rank, each dimension as a big-endian int32, the
    elements in C order.

    Raises:
      InputError: for another type or rank, or a file shorter or longer than it says.
    """
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except _UNZIP_ERRORS as error:
        raise InputError(f"Cannot read {file}: {error}.") from error
    header = 4 + 4 * rank
    if data[:4] != bytes((0, 0, _IDX_UINT8, rank)) or len(data) < header:
        raise InputError(
            f"{file} is no IDX file of {rank} uint8 dimensions: it starts with 0x{data[:4].hex()}, "
            f"expected 0x{bytes((0, 0, _IDX_UINT8, rank)).hex()}."
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", rank, offset=4))
    if len(data) - header != math.prod(shape):
        raise InputError(
            f"{file} is not whole: its header promises {math.prod(shape)} bytes for shape "
            f"{shape}, it holds {len(data) - header}."
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)
