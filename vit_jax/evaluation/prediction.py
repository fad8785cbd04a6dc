"""From image files to class names and probabilities, and to tables of them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import EXTENSIONS, read_image
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError


class Prediction(NamedTuple):
    path: str
    classes: list[str]  # most probable first
    probabilities: list[float]


def find_images(paths: Iterable[str | Path]) -> list[Path]:
    """The named files, and all images below the named folders, in order of their names."""
    found, paths = [], list(paths)
    if any(str(path) == "" for path in paths):  # of which Path makes the current folder
        raise InputError("a path of images is empty; allowed: files, or folders, such as '.'.")
    for path in map(Path, paths):
        if path.is_dir():
            inside = (p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            found += sorted(p for p in inside if p.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise InputError(f"there is no file or folder {path}.")
    if not found:
        raise InputError(
            f"there is no image in {', '.join(map(str, paths))}; allowed: files ending in "
            f"{', '.join(EXTENSIONS)}, or folders with such files."
        )
    return found


def read_all(
    paths: Iterable[Path], preprocessing: Preprocessing, *, on_bad: Callable[[str], None]
) -> Iterator[tuple[Path, UInt8[np.ndarray, "h w c"]]]:
    """Preprocessed images; an unreadable file is told to `on_bad` and left out."""
    for path in paths:
        try:
            yield path, preprocessing(read_image(path))
        except UnreadableExample as error:
            on_bad(str(error))


def top_classes(
    path: Path, probabilities: Float[np.ndarray, " k"], class_names: Sequence[str], top_k: int
) -> Prediction:
    order = np.argsort(-probabilities, kind="stable")[:top_k]
    return Prediction(
        str(path),
        [class_names[i] for i in order],
        [float(probabilities[i]) for i in order],
    )


def write_csv(predictions: Sequence[Prediction], target: Path) -> None:
    """path, class_1, probability_1, class_2, ..."""
    count = len(predictions[0].classes)
    header = [f"{name}_{i + 1}" for i in range(count) for name in ("class", "probability")]
    with target.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", *header])
        for p in predictions:
            pairs = zip(p.classes, p.probabilities, strict=True)
            writer.writerow([p.path, *(value for pair in pairs for value in pair)])


def write_json(predictions: Sequence[Prediction], target: Path) -> None:
    target.write_text(json.dumps([p._asdict() for p in predictions], indent=1) + "\n")
