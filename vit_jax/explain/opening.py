"""From what a command names to a model and its images: which are shown, and which are the many."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from vit_jax import restoring
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.prediction import find_images
from vit_jax.explain import examples
from vit_jax.explain.examples import Examples
from vit_jax.explain.subject import FEWEST
from vit_jax.restoring import Restored


class Data(NamedTuple):
    """In place of a run's test split."""

    split: str | None = None
    source: str | None = None
    data_dir: str | None = None


class Images(NamedTuple):
    """What a page is to look at.

    Attributes:
      shown: one by one.
      many: of the maps and similarities; None where there are too few.
      note: what of the files is not shown; empty where all are.
    """

    shown: Examples
    many: Examples | None
    note: str = ""


def open_model(source: str) -> Restored:
    """A workdir, or else published weights."""
    if (Path(source) / "config.json").is_file():
        return restoring.restore(source)
    return restoring.load(source)


def open_images(
    restored: Restored,
    paths: Sequence[str],
    *,
    data: Data,
    count: int,
    projected: int,
    on_bad: Callable[[str], None],
) -> Images:
    """Files, where there are paths, are shown; the many are of a data set, where one is known.

    Args:
      paths: of image files and folders.
      count: images to show, the first ones.
      projected: images of the many: the first files, or spread over the split.
      on_bad: is told of each file that cannot be read.
    """
    files, note = find_images(paths) if paths else [], ""
    shown = examples.of_files(files[:count], on_bad=on_bad) if files else None
    many = examples.of_files(files[:projected], on_bad=on_bad) if files else None
    if len(files) > count:
        note = f"{count} of {len(files)} images are shown one by one"
    if restored.origin or data.source:
        settings = _settings(restored, data)
        if not files:
            shown = examples.of_split(restored, settings, count=count, is_spread=False)
        many = examples.of_split(restored, settings, count=projected, is_spread=True)
    if shown is None:
        raise InputError(
            "published weights bring no images; allowed: --images=FILE_OR_FOLDER, or "
            "--source=folder:DIR."
        )
    return Images(shown, many if many.count >= FEWEST else None, note)


def _settings(restored: Restored, data: Data) -> EvalSettings:
    of_run = restored.config.get("evals", {}).get("test", {}).get("split", "test")
    return EvalSettings(split=data.split or of_run, source=data.source, data_dir=data.data_dir)
