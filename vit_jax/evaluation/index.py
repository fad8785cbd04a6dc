"""An index of images by their representations: the nearest ones to a query, exactly.

    index = Index.load("index.npz")  # which the protocol `retrieval` writes with save_index
    found = index.search(queries, 5)
    names = [index.class_names[k] for k in index.label[found.position[0]]]

Letters: g images of the index; q queries; r channels; k neighbours.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from vit_jax.errors import InputError
from vit_jax.evaluation.features import check_finite
from vit_jax.evaluation.nearest import Neighbours, nearest


class Index:
    """Finds images by the cosine of the angle between representations; see nearest.py.

    Args:
      features: f[g, r], one row an image; kept in single precision.
      label: positions in `class_names`, one an image.
    """

    def __init__(
        self,
        features: np.ndarray | Sequence[Sequence[float]],
        *,
        label: np.ndarray | Sequence[int] | None = None,
        class_names: Sequence[str] = (),
    ):
        features = rows_of(features, "images of an index")
        if not len(features):
            raise InputError("an index was given no image; allowed: at least one.")
        if label is not None and len(label) != len(features):
            raise InputError(
                f"an index was given {len(features)} images and {len(label)} labels; allowed: as "
                "many, or none."
            )
        if label is not None and not is_whole(label):
            raise InputError("labels are no whole numbers; allowed: one an image.")
        self.features = np.asarray(check_finite(features), np.float32)
        self.label, self.class_names = label, tuple(class_names)

    def __len__(self) -> int:
        return len(self.features)

    def search(self, queries: np.ndarray | Sequence[Sequence[float]], k: int) -> Neighbours:
        """The k nearest images to each query, f[q, r]; of equally near ones the first of the index.

        Tested against scikit-learn's `NearestNeighbors(metric="cosine")`.
        """
        queries = rows_of(queries, "queries")
        if not len(queries):
            raise InputError("there are no queries; allowed: one or more.")
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise InputError(f"k is {k!r}; allowed: 1 to {len(self)}, the images of the index.")
        if queries.shape[1] != self.features.shape[1]:
            raise InputError(
                f"queries have {queries.shape[1]} channels; allowed: {self.features.shape[1]}, "
                "those of the index."
            )
        return nearest(check_finite(queries), self.features, k=int(k))

    def save(self, file: str | Path) -> None:
        """One .npz file."""
        arrays = {"features": self.features, "class_names": np.array(self.class_names, str)}
        if self.label is not None:
            arrays["label"] = self.label
        with Path(file).open("wb") as opened:  # NumPy would add a suffix to a name
            np.savez(opened, **arrays)

    @classmethod
    def load(cls, file: str | Path) -> "Index":
        """What `save` has written."""
        try:
            with np.load(file, allow_pickle=False) as found:
                arrays = dict(found)
        except (OSError, EOFError, ValueError, TypeError, AttributeError, BadZipFile) as error:
            raise InputError(f"cannot read the index {file}: {error}.") from error
        if "features" not in arrays:
            raise InputError(
                f"{file} holds {', '.join(arrays)}; allowed: features, and label and class_names."
            )
        names = arrays.get("class_names", np.array([], str))
        return cls(arrays["features"], label=arrays.get("label"), class_names=names.tolist())


def is_whole(label: Any) -> bool:
    found = np.asarray(label)
    return found.ndim == 1 and np.issubdtype(found.dtype, np.integer)


def rows_of(given: Any, what: str) -> np.ndarray:
    """Raises `InputError` unless these are rows of numbers."""
    found = np.asarray(given)
    if found.ndim != 2 or not (
        np.issubdtype(found.dtype, np.floating) or np.issubdtype(found.dtype, np.integer)
    ):
        raise InputError(
            f"{what} have shape {found.shape} of {found.dtype}; allowed: numbers, a row an image."
        )
    return found
