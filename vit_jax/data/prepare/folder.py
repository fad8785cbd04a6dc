"""folder:PATH as an input: the images, order and classes of the source of the same name.

See `sources/folder.py`; here each file's place and size are noted, and its bytes are read as a
whole.
"""

import os
from pathlib import Path

from vit_jax.data.examples import Source
from vit_jax.data.images.decode import EXTENSIONS
from vit_jax.data.prepare.index import NONE, Builder, Files, Index, Input, Raw
from vit_jax.data.sources.folder import open_folder


def index_folder(path: str) -> Input:
    """The images below folder `path`.

    Raises:
      InputError: for a missing folder, or one without images where they should be.
    """
    root = str(Path(path).expanduser())
    sources = {split: open_split() for split, open_split in open_folder(path).items()}
    splits = {split: _index(root, split, source) for split, source in sources.items()}
    # A split without labels knows no classes; the others all know the same.
    class_names = max((source.class_names for source in sources.values()), key=len)
    return Input(class_names, splits, {split: [] for split in splits}, read_folder)


def read_folder(index: Index, i: int, files: Files) -> Raw:
    """One image file."""
    path = os.path.join(index.path(i), os.path.basename(index.name(i)))
    label = int(index.columns["label"][i])
    image = files.read(path, 0, None, index.shown(i))
    return Raw(image, {} if label == NONE else {"label": label})


def _index(root: str, split: str, source: Source) -> Index:
    builder = Builder("label")
    names = source.class_names
    positions = {os.path.join(split, name): label for label, name in enumerate(names)}
    for i in range(len(source)):
        path = source.describe(i)
        name = os.path.relpath(path, root)
        label = positions.get(os.path.dirname(name), NONE)
        builder.add(name, file=max(label, 0), size=_size(path), label=label)
    return builder.build(root, list(positions) or [split])


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:  # a broken link: it is listed when it is read
        return 0


def is_image(name: str) -> bool:
    """Has it an image's extension, and is no hidden file?"""
    base = name.rpartition("/")[2]
    return not base.startswith(".") and base.lower().endswith(EXTENSIONS)
