"""An index of images by their representations: the nearest ones to a query, exactly.

    index = Index(features.representation, label=features.label, class_names=names)
    index.save("pets.npz")
    found = Index.load("pets.npz").search(queries, 5)

Letters: g images of the index; q queries; r channels; k neighbours.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int

from vit_jax.errors import InputError

AT_ONCE = 2**23  # similarities that are in memory together, with what ranks them


class Neighbours(NamedTuple):
    """The nearest first; of equally near ones that which stands first in the index."""

    position: Int[np.ndarray, "q k"]
    similarity: Float32[np.ndarray, "q k"]


class Index:
    """Finds images by the cosine of the angle between representations.

    Cosines are computed in double and compared in single precision, so that neither rounding nor
    how many queries are asked at once decides between images that are the same.

    Args:
      features: one row an image, of any length but zero... see `directions`.
      label: positions in `class_names`.
      at_once: similarities that are in memory together.
    """

    def __init__(
        self,
        features: Float[np.ndarray, "g r"],
        *,
        label: Int[np.ndarray, " g"] | None = None,
        class_names: Sequence[str] = (),
        at_once: int = AT_ONCE,
    ):
        if not len(features):
            raise InputError("an index was given no images; allowed: at least one.")
        if label is not None and len(label) != len(features):
            raise InputError(f"an index has {len(features)} images and {len(label)} labels.")
        self.features, self.at_once = directions(features), at_once
        self.label, self.class_names = label, tuple(class_names)

    def __len__(self) -> int:
        return len(self.features)

    def search(self, queries: Float[np.ndarray, "q r"], k: int) -> Neighbours:
        """The k nearest images to each query.

        Tested against scikit-learn's `NearestNeighbors(metric="cosine")`.
        """
        if not 1 <= k <= len(self):
            raise InputError(f"k is {k}; allowed: 1 to {len(self)}, the images of the index.")
        positions, similarities = [], []
        for _, similarity in self.similarities(queries):
            order = most_similar_first(similarity)[:, :k]
            positions.append(order)
            similarities.append(np.take_along_axis(similarity, order, axis=1))
        return Neighbours(np.concatenate(positions), np.concatenate(similarities))

    def similarities(
        self, queries: Float[np.ndarray, "q r"]
    ) -> Iterator[tuple[slice, Float32[np.ndarray, "some g"]]]:
        """Cosines of some queries after the other with all images."""
        if queries.shape[1:] != self.features.shape[1:]:
            raise InputError(
                f"queries have {queries.shape[-1]} channels; allowed: {self.features.shape[1]}, "
                "those of the index."
            )
        if not len(queries):
            raise InputError("an index was asked nothing; allowed: at least one query.")
        own, asked = self.features.astype(np.float64).T, directions(queries).astype(np.float64)
        step = max(1, self.at_once // len(self))
        for start in range(0, len(queries), step):
            rows = slice(start, min(start + step, len(queries)))
            yield rows, (asked[rows] @ own).astype(np.float32)

    def save(self, file: str | Path) -> None:
        """One .npz file."""
        arrays = {"features": self.features, "class_names": np.array(self.class_names, str)}
        if self.label is not None:
            arrays["label"] = self.label
        with Path(file).open("wb") as opened:  # NumPy would add a suffix
            np.savez(opened, **arrays)

    @classmethod
    def load(cls, file: str | Path) -> "Index":
        """What `save` has written."""
        try:
            with np.load(file, allow_pickle=False) as found:
                arrays = dict(found)
        except (OSError, ValueError) as error:
            raise InputError(f"cannot read the index {file}: {error}.") from error
        if "features" not in arrays:
            raise InputError(
                f"{file} holds {', '.join(arrays)}; allowed: features, and maybe label and "
                "class_names."
            )
        return cls(
            arrays["features"],
            label=arrays.get("label"),
            class_names=arrays.get("class_names", np.array([], str)).tolist(),
        )


def directions(features: Float[np.ndarray, "n r"]) -> Float32[np.ndarray, "n r"]:
    """Scaled to length 1; a row of zeros stays, and is as far from everything."""
    features = np.asarray(features, np.float64)
    if not np.isfinite(features).all():
        raise InputError("representations are not all finite; allowed: numbers.")
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return (features / np.where(lengths > 0, lengths, 1)).astype(np.float32)


def most_similar_first(similarity: Float32[np.ndarray, "q g"]) -> Int[np.ndarray, "q g"]:
    """Positions by falling similarity; equal ones in their order."""
    return np.argsort(-similarity, axis=1, kind="stable")
