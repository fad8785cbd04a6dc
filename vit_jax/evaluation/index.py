"""An index of images by their representations: the nearest ones to a query, exactly.

    index = Index.load("index.npz")  # which the protocol `retrieval` writes with save_index
    found = index.search(queries, 5)
    names = [index.class_names[k] for k in index.label[found.position[0]]]

Letters: g images of the index; q queries; r channels; k neighbours.
"""

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from vit_jax.errors import InputError
from vit_jax.evaluation.features import check_finite
from vit_jax.evaluation.nearest import Neighbours, nearest


class Index:
    """Finds images by the cosine of the angle between representations; see nearest.py.

    Args:
      features: one row an image; kept in single precision.
      label: positions in `class_names`, one an image.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "g r"],
        *,
        label: Int[np.ndarray, " _"] | None = None,
        class_names: Sequence[str] = (),
    ):
        if not len(features):
            raise InputError("an index was given no image; allowed: at least one.")
        if label is not None and len(label) != len(features):
            raise InputError(
                f"an index was given {len(features)} images and {len(label)} labels; allowed: as "
                "many, or none."
            )
        self.features = np.asarray(check_finite(features), np.float32)
        self.label, self.class_names = label, tuple(class_names)

    def __len__(self) -> int:
        return len(self.features)

    def search(self, queries: Float[np.ndarray, "q r"], k: int) -> Neighbours:
        """The k nearest images to each query; of equally near ones the first of the index.

        Tested against scikit-learn's `NearestNeighbors(metric="cosine")`.
        """
        if k < 1:
            raise InputError(f"k is {k}; allowed: 1 to {len(self)}, the images of the index.")
        if queries.shape[1] != self.features.shape[1]:
            raise InputError(
                f"queries have {queries.shape[1]} channels; allowed: {self.features.shape[1]}, "
                "those of the index."
            )
        return nearest(check_finite(queries), self.features, k=k)

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
        except (OSError, ValueError, TypeError, zipfile.BadZipFile) as error:
            raise InputError(f"cannot read the index {file}: {error}.") from error
        if "features" not in arrays:
            raise InputError(
                f"{file} holds {', '.join(arrays)}; allowed: features, and label and class_names."
            )
        names = arrays.get("class_names", np.array([], str))
        return cls(arrays["features"], label=arrays.get("label"), class_names=names.tolist())
