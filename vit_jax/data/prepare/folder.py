"""folder:PATH as an input: PATH/{split}/{class}/FILE, the law of `sources/folder.py`.

Classes are the sorted union over all splits; examples are sorted by class, then by file name.
"""

import os
from pathlib import Path

from vit_jax.data.decode import EXTENSIONS
from vit_jax.data.prepare.index import Builder, Files, Index, Input, Raw
from vit_jax.errors import InputError


def index_folder(path: str) -> Input:
    """The images below folder `path`.

    Raises:
      InputError: for a missing folder, or one without images where they should be.
    """
    root = Path(path).expanduser()
    if not path or not root.is_dir():
        raise InputError(f"there is no folder {path!r}; allowed: --from=folder:PATH.")
    found = {split: _images(root / split) for split in _subfolders(root)}
    found = {split: classes for split, classes in found.items() if any(classes.values())}
    if not found:
        raise InputError(
            f"Folder {path} holds no images of the form SPLIT/CLASS/FILE with an extension of "
            f"{', '.join(EXTENSIONS)}."
        )
    class_names = tuple(sorted({name for classes in found.values() for name in classes}))
    _refuse_empty(found, class_names, path)
    splits = {split: _index(root, split, found[split], class_names) for split in found}
    return Input(class_names, splits, {split: [] for split in splits}, read_folder)


def read_folder(index: Index, i: int, files: Files) -> Raw:
    """One image file."""
    name = index.name(i)
    path = os.path.join(index.path(i), os.path.basename(name))
    size = int(index.columns["size"][i])
    return Raw(files.read(path, 0, size, index.shown(i)), {"label": int(index.columns["label"][i])})


def _index(root: Path, split: str, found: dict, class_names: tuple[str, ...]) -> Index:
    builder = Builder("label")
    for label, class_name in enumerate(class_names):
        for name, size in found.get(class_name, ()):
            builder.add(f"{split}/{class_name}/{name}", file=label, size=size, label=label)
    return builder.build(str(root), [f"{split}/{name}" for name in class_names])


def _images(folder: Path) -> dict[str, list[tuple[str, int]]]:
    """Class -> its files and their sizes."""
    return {name: sorted(_files(folder / name)) for name in _subfolders(folder)}


def _refuse_empty(found: dict, class_names: tuple[str, ...], path: str) -> None:
    for name in class_names:
        if not any(classes.get(name) for classes in found.values()):
            raise InputError(
                f"Class {name!r} of folder {path} is without images in every split; allowed "
                f"extensions: {', '.join(EXTENSIONS)}."
            )


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))


def _files(folder: Path) -> list[tuple[str, int]]:
    with os.scandir(folder) as entries:
        return [
            (entry.name, entry.stat().st_size)
            for entry in entries
            if is_image(entry.name) and entry.is_file()
        ]


def is_image(name: str) -> bool:
    """Has it an image's extension, and is no hidden file?"""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and base.lower().endswith(EXTENSIONS)
