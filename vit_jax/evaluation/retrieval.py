"""Image-to-image retrieval: do the nearest representations show the same class?

Representations are compared by the cosine of their angle. A query is an example of the scored
split; the gallery is that split, or another one, always without the query; relevant is what has the
query's class. Classes are those of the source, of which the model need know none. Queries without
anything relevant in the gallery do not count.

Recall@k is that of metric learning (Jégou et al. 2011; arXiv:1511.06452): the share of queries
with at least one relevant image among the k nearest, not the share of relevant images found. MAP@R
is of arXiv:2003.08505.

Average precision needs the whole ranking of the gallery, which is what `rankings` makes, on the
host and in double precision; nearest.py, which keeps the k nearest alone, could not. Recall, MAP@R
and the contact sheet are read off the same rankings, so that they agree to the last neighbour.

Letters: q queries; g images of the gallery; r channels; k neighbours.
"""

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

from vit_jax import sections
from vit_jax.analysis.retrieval_figures import Answer, draw_answers
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.bootstrap import interval_of_mean
from vit_jax.evaluation.features import Examples, examples_of
from vit_jax.evaluation.index import Index
from vit_jax.evaluation.nearest import normalised
from vit_jax.evaluation.overlap import NOBODY, places_in
from vit_jax.evaluation.protocol import TEST, Protocol, Report, Request, SplitOutputs, check_has

GALLERY = "gallery"
SHEET_COLUMNS = 8  # neighbours beside each query of the contact sheet
AT_ONCE = 2**23  # similarities; with what ranks them some 300 MB


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retrieval(Protocol):
    """Recall@k, mean average precision and MAP@R.

    Attributes:
      gallery: keys of `EvalSettings` of another split or source to search; None searches the
        scored split itself.
      at: the numbers k of neighbours.
      sheet: queries on the contact sheet.
      save_index: writes index.npz of the gallery beside the report, see index.py.
    """

    reads: ClassVar[tuple[str, ...]] = ("representation",)
    gallery: Mapping[str, Any] | None = None
    at: tuple[int, ...] = (1, 5, 10)
    sheet: int = 8
    save_index: bool = False

    def __post_init__(self):
        if not self.at or min(self.at) < 1:
            raise InputError(f"at is {list(self.at)}; allowed: numbers of neighbours, 1 or more.")
        if self.sheet < 0:
            raise InputError(f"sheet is {self.sheet}; allowed: 0 queries or more.")

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        del training_split
        found = {TEST: Request(settings=test, own_classes=True)}
        if self.gallery is not None:
            settings = sections.call(
                EvalSettings,
                {"batch_size": test.batch_size, **self.gallery},
                where="retrieval.gallery",
            )
            found[GALLERY] = Request(settings=settings, own_classes=True)
        return found

    def check(self, role: str, found: Collection[str]) -> None:
        check_has(found, "label")

    def metric_names(self) -> list[str]:
        return [*(f"recall_at_{k}" for k in self.at), "map", "map_at_r"]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        queries = outputs[TEST]
        gallery = queries if self.gallery is None else outputs[GALLERY]
        check(queries, gallery)
        own = own_places(queries, gallery)
        found = score(examples_of(queries), examples_of(gallery), at=self.at, own=own)
        counts = found.relevant > 0
        if not counts.any():
            raise InputError(
                f"no image of {queries.name} has its class in {gallery.name}; allowed: queries "
                "with something to find."
            )
        values = {f"recall_at_{k}": hit[counts] for k, hit in found.recall.items()}
        values |= {"map": found.precision[counts], "map_at_r": found.precision_at_r[counts]}
        draw = partial(draw_sheet, queries, gallery, count=self.sheet, own=own)
        return Report(
            metrics={name: float(x.mean()) for name, x in values.items()},
            intervals={name: interval_of_mean(x) for name, x in values.items()},
            pictures={"neighbours.png": draw} if self.sheet else {},
            files={"index.npz": index_of(gallery).save} if self.save_index else {},
            scored=int(counts.sum()),
        )


class Scores(NamedTuple):
    """Of each query.

    Attributes:
      recall: by k: is anything relevant among the k nearest?
      precision: average precision, see `average_precision`.
      precision_at_r: see `precision_at_r`.
      relevant: how many images of the gallery are.
    """

    recall: dict[int, Bool[np.ndarray, " q"]]
    precision: Float[np.ndarray, " q"]
    precision_at_r: Float[np.ndarray, " q"]
    relevant: Int[np.ndarray, " q"]


def score(
    queries: Examples,
    gallery: Examples,
    *,
    at: tuple[int, ...],
    own: Int[np.ndarray, " q"] | None = None,
    at_once: int = AT_ONCE,
) -> Scores:
    """Ranks the whole gallery for each query, some queries at a time.

    Tested against torchmetrics' `RetrievalMAP` and `RetrievalHitRate`.

    Args:
      queries, gallery: q, and g of them.
      own: see `rankings`.
      at_once: similarities that are in memory together.
    """
    recall: dict[int, list[np.ndarray]] = {k: [] for k in at}
    precision, at_r, relevant = [], [], []
    for rows, order in rankings(queries.features, gallery.features, own=own, at_once=at_once):
        is_hit = (gallery.label[order] == queries.label[rows, None]) & (order != NOBODY)
        for k, found in recall.items():
            found.append(is_hit[:, :k].any(axis=1))
        precision.append(average_precision(is_hit))
        at_r.append(precision_at_r(is_hit))
        relevant.append(is_hit.sum(axis=1))
    return Scores(
        {k: np.concatenate(found) for k, found in recall.items()},
        *map(np.concatenate, (precision, at_r, relevant)),
    )


def rankings(
    queries: Float[np.ndarray, "q r"],
    gallery: Float[np.ndarray, "g r"],
    *,
    own: Int[np.ndarray, " q"] | None = None,
    at_once: int = AT_ONCE,
) -> Iterator[tuple[slice, np.ndarray]]:
    """Some queries at a time, and positions in the gallery, the nearest first, int[some, g].

    Cosines are computed in double precision and compared in single, so that rounding, which may
    differ with the number of queries, does not part images that are the same: these come in the
    order of the gallery.

    Args:
      own: each query's position in the gallery, where it is left out; `NOBODY` of one that is not
        there, None where none is. What is left out leaves `NOBODY` at the end.
    """
    asked, known = (normalised(x).astype(np.float64) for x in (queries, gallery))
    step = max(1, at_once // len(known))
    for start in range(0, len(asked), step):
        rows = slice(start, min(start + step, len(asked)))
        similarity = (asked[rows] @ known.T).astype(np.float32)
        is_there = np.zeros(len(similarity), bool) if own is None else own[rows] != NOBODY
        if is_there.any():  # the last one, and left out
            similarity[is_there, own[rows][is_there]] = -np.inf
        order = most_similar_first(similarity)
        order[is_there, -1] = NOBODY
        yield rows, order


def most_similar_first(similarity: Float32[np.ndarray, "q g"]) -> Int[np.ndarray, "q g"]:
    """Positions by falling similarity, equal ones in their order.

    One whole number holds both similarity and position, since these NumPy sorts several times as
    fast as it sorts stably.
    """
    bits = (0 - similarity).view(np.int32)  # 0 - 0 has no sign, unlike -0
    # Read as whole numbers, floats rise with their value where positive, and fall where negative.
    rank = np.where(bits < 0, bits ^ np.int32(2**31 - 1), bits).astype(np.int64)
    keys = (rank << 32) | np.arange(similarity.shape[1])
    keys.sort(axis=1)
    return keys & (2**32 - 1)


def average_precision(is_hit: Bool[np.ndarray, "q g"]) -> Float[np.ndarray, " q"]:
    """The mean, over relevant images, of the share of relevant ones up to each; 0 without any.

    Tested against scikit-learn's `average_precision_score`, where no two images are as near.
    """
    precision = np.cumsum(is_hit, axis=1) / np.arange(1, 1 + is_hit.shape[1])
    return (precision * is_hit).sum(axis=1) / np.maximum(is_hit.sum(axis=1), 1)


def precision_at_r(is_hit: Bool[np.ndarray, "q g"]) -> Float[np.ndarray, " q"]:
    """Average precision that stops after R images, of which R are relevant (arXiv:2003.08505).

    Tested against its definition in plain loops, equation 2 there.
    """
    relevant = is_hit.sum(axis=1)
    is_within = np.arange(is_hit.shape[1]) < relevant[:, None]
    precision = np.cumsum(is_hit, axis=1) / np.arange(1, 1 + is_hit.shape[1])
    return (precision * (is_hit & is_within)).sum(axis=1) / np.maximum(relevant, 1)


def check(queries: SplitOutputs, gallery: SplitOutputs) -> None:
    """Raises `InputError` for classes that are not the same, and where there is nothing to find."""
    if queries.class_names != gallery.class_names:
        raise InputError(
            f"the gallery {gallery.name} has other classes than {queries.name}; allowed: the same, "
            "or `labels` that lead to them."
        )
    if gallery is queries and len(queries.index) < 2:
        raise InputError(f"{queries.name} has 1 example; allowed: two or more, or a gallery.")


def own_places(queries: SplitOutputs, gallery: SplitOutputs) -> Int[np.ndarray, " q"] | None:
    """Each query's row in the gallery, `NOBODY` where it is not there; None where none is."""
    if queries.source is None or gallery.source is None:  # not of a pass
        return np.arange(len(queries.index)) if gallery is queries else None
    rows = np.full(gallery.num_examples + 1, NOBODY)  # the last one is nobody's
    rows[gallery.index] = np.arange(len(gallery.index))
    found = rows[places_in(queries.source, gallery.source)[queries.index]]
    return found if (found != NOBODY).any() else None


def index_of(gallery: SplitOutputs) -> Index:
    return Index(gallery.representation, label=gallery.label, class_names=gallery.class_names)


def draw_sheet(
    queries: SplitOutputs,
    gallery: SplitOutputs,
    target: Path,
    *,
    count: int,
    own: Int[np.ndarray, " q"] | None,
) -> None:
    """Queries from all over the split, each with its nearest neighbours."""
    rows = np.unique(np.linspace(0, len(queries.index) - 1, count).astype(int))
    asked, own = queries.representation[rows], None if own is None else own[rows]
    parts = [order for _, order in rankings(asked, gallery.representation, own=own)]
    answers = []
    for row, kept in zip(rows, np.concatenate(parts)[:, :SHEET_COLUMNS], strict=True):
        kept = kept[kept != NOBODY]
        answers.append(
            Answer(
                query=queries.images(queries.index[[row]].tolist())[0],
                caption=queries.class_names[queries.label[row]],
                found=gallery.images(gallery.index[kept].tolist()),
                captions=[gallery.class_names[k] for k in gallery.label[kept]],
                is_right=(gallery.label[kept] == queries.label[row]).tolist(),
            )
        )
    draw_answers(answers, target)
