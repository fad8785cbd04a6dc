"""A folder of images as a source: PATH/{split}/{class}/*.{jpg,jpeg,png,webp,bmp}.

Examples are sorted by class, then by file name, and read at access. The classes are
the sorted union over all splits, so a label means the same in each of them. Hidden files
and folders (a leading dot) are bookkeeping of other programs and no part of the data.
"""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from vit_jax.data.decode import EXTENSIONS, read_encoded
from vit_jax.data.examples import Example, Source
from vit_jax.errors import InputError


class FolderSource(Source):
    """Image files and their labels."""

    def __init__(
        self, name: str, paths: list[str], labels: list[int], class_names: tuple[str, ...]
    ):
        self.name = name
        self.class_names = class_names
        self._paths = paths
        self._labels = labels

    def __len__(self) -> int:
        return len(self._paths)

    def read(self, i: int) -> Example:
        return {"image": read_encoded(self._paths[i]), "label": self._labels[i]}

    def describe(self, i: int) -> str:
        return self._paths[i]


def open_folder(path: str) -> dict[str, Callable[[], Source]]:
    """The splits below folder `path`: its subfolders with images in class folders.

    Raises:
      InputError: for a missing folder, one without images, or a class without images.
    """
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"Source 'folder:{path}' needs an existing folder: folder:PATH.")
    classes = {split: _subfolders(root / split) for split in _subfolders(root)}
    filled = {
        split: {name for name in names if any(_image_names(root / split / name))}
        for split, names in classes.items()
    }
    filled = {split: names for split, names in filled.items() if names}
    if not filled:
        raise InputError(
            f"Folder {root} holds no images of the form SPLIT/CLASS/FILE with an extension of "
            f"{', '.join(EXTENSIONS)}; its subfolders: {', '.join(classes) or '(none)'}."
        )
    union = tuple(sorted(set().union(*filled.values())))
    for split in filled:
        for name in set(classes[split]) - set(union):
            raise InputError(
                f"Class folder {root / split / name} is without images, and so is that class in "
                f"every other split; allowed extensions: {', '.join(EXTENSIONS)}."
            )
    return {split: partial(_split, path, root, split, union) for split in filled}


def _split(path: str, root: Path, split: str, class_names: tuple[str, ...]) -> Source:
    paths, labels = [], []
    for label, class_name in enumerate(class_names):
        folder = root / split / class_name
        names = sorted(_image_names(folder)) if folder.is_dir() else []
        paths.extend(os.path.join(folder, name) for name in names)
        labels.extend([label] * len(names))
    return FolderSource(f"folder:{path} {split}", paths, labels, class_names)


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _image_names(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as entries:
        for entry in entries:
            hidden = entry.name.startswith(".")
            if not hidden and entry.name.lower().endswith(EXTENSIONS) and entry.is_file():
                yield entry.name
