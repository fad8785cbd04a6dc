"""A folder of images or videos as a source: PATH/{split}/{class}/FILE.

    folder:PATH    *.{jpg,jpeg,png,webp,bmp}
    videos:PATH    *.{mp4,m4v,mkv,webm,avi,mov,gif}, of which `data.frames` makes clips

The class of an image is its folder below the split, however deep: 'cat', 'animals/dogs/beagle'.
The classes are the sorted union over all splits, so a label means the same in each of them; a
split whose images all lie directly in it has no labels. Examples are sorted by class, then by
file name, and read at access. Hidden files and folders (a leading dot) are bookkeeping of other
programs and no part of the data.

Names are handled as the bytes that the file system has: their order is that of the characters
(UTF-8 keeps it), and no million strings are made. 1.28 million images in 1,000 folders are
indexed in 1.5 s, or 2.7 s where the kernel has not listed them before.

Letters: k = classes.
"""

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.examples import Example, Source
from vit_jax.data.images.decode import EXTENSIONS, read_encoded
from vit_jax.data.packed import Strings
from vit_jax.data.videos.video import read_video
from vit_jax.errors import InputError

_Listing = dict[str, list[bytes]]  # folder below a split, '' is the split -> names of its files


class Media(NamedTuple):
    """What kind of files a folder is asked for.

    Attributes:
      kind: as in 'KIND:PATH'.
      noun: what to call them, for messages.
      field: of an example, that holds one.
      extensions: of their names, in lower case.
      read: from a path to what the field holds.
    """

    kind: str
    noun: str
    field: str
    extensions: tuple[str, ...]
    read: Callable[[str], Any]


IMAGES = Media("folder", "images", "image", EXTENSIONS, read_encoded)
VIDEO_EXTENSIONS = (".mp4", ".m4v", ".mkv", ".webm", ".avi", ".mov", ".gif")
VIDEOS = Media("videos", "videos", "video", VIDEO_EXTENSIONS, read_video)


class FolderSource(Source):
    """Files and the classes they lie in."""

    def __init__(
        self,
        name: str,
        root: str,
        files: Strings,
        ends: np.ndarray,
        class_names: tuple[str, ...],
        media: Media,
    ):
        """Args:
        root: the split's folder.
        files: names without folder, class by class.
        ends: int64[k], where the files of each class end; of no class for a split without labels.
        """
        self.name, self.class_names = name, class_names
        self.fields = (media.field, "label") if class_names else (media.field,)
        self._root, self._files, self._ends, self._media = root, files, ends, media

    def __len__(self) -> int:
        return len(self._files)

    def read(self, i: int) -> Example:
        example = {self._media.field: self._media.read(self.describe(i))}
        return example | {"label": self._label(i)} if self.class_names else example

    def describe(self, i: int) -> str:
        below = self.class_names[self._label(i)] if self.class_names else ""
        return os.path.join(self._root, below, self._files[i])

    def file_name(self, i: int) -> str:
        return self._files[i]

    def _label(self, i: int) -> int:
        return bisect_right(self._ends, i)


def open_folder(path: str) -> dict[str, Callable[[], Source]]:
    """The splits below folder `path`: its subfolders with images in them.

    Raises:
      InputError: for a missing folder, one without images, a class without images, or a split
        that has images both in class folders and beside them.
    """
    return _open(path, IMAGES)


def open_videos(path: str) -> dict[str, Callable[[], Source]]:
    """The same of videos."""
    return _open(path, VIDEOS)


def _open(path: str, media: Media) -> dict[str, Callable[[], Source]]:
    root, kind = Path(path).expanduser(), media.kind
    if not path or not root.is_dir():
        raise InputError(f"Source '{kind}:{path}' needs an existing folder: {kind}:PATH.")
    try:
        listings = {split: _list(root / split, media) for split in _subfolders(root)}
    except OSError as error:  # no permission, or a link that leads to its own parent
        place = os.fsdecode(error.filename)
        raise InputError(f"Cannot list folder {place}: {error.strerror}.") from error
    filled = {split: found for split, found in listings.items() if any(found.values())}
    if not filled:
        raise InputError(
            f"Folder {root} holds no {media.noun} of the form SPLIT/CLASS/FILE with an extension "
            f"of {', '.join(media.extensions)}; its subfolders: {', '.join(listings) or '(none)'}."
        )
    named = [name for found in filled.values() for name, files in found.items() if name and files]
    union = tuple(sorted(set(named)))
    for split, found in filled.items():
        _check(root / split, found, union, media)
    return {
        split: partial(_split, path, root, split, filled[split], union, media) for split in filled
    }


def _check(split: Path, found: _Listing, union: tuple[str, ...], media: Media):
    """Every folder is a class, or leads to one; labelled and unlabelled files are not mixed."""
    beside, inside = len(found[""]), sum(len(files) for name, files in found.items() if name)
    if beside and inside:
        raise InputError(
            f"Split folder {split} holds {beside} {media.noun} directly and {inside} in class "
            "folders; allowed: all in class folders, or none (a split without labels)."
        )
    leading = {name[:end] for name in union for end in _slashes(name)}
    for name in found:
        if name and name not in leading:
            raise InputError(
                f"Class folder {split / name} is without {media.noun}, and so is that class in "
                f"every other split; allowed extensions: {', '.join(media.extensions)}."
            )


def _slashes(name: str) -> Iterator[int]:
    """Where each folder on the way to `name` ends, `name` itself too."""
    yield from (i for i, letter in enumerate(name) if letter == "/")
    yield len(name)


def _split(
    path: str, root: Path, split: str, found: _Listing, union: tuple[str, ...], media: Media
) -> FolderSource:
    name, folder = f"{media.kind}:{path} {split}", str(root / split)
    if found[""]:
        files = Strings.pack(sorted(found[""]))
        return FolderSource(name, folder, files, np.zeros(0, np.int64), (), media)
    of_class = [sorted(found.get(class_name, ())) for class_name in union]
    ends = np.cumsum([len(files) for files in of_class], dtype=np.int64)
    files = Strings.pack(chain.from_iterable(of_class))
    return FolderSource(name, folder, files, ends, union, media)


def _list(split: Path, media: Media) -> _Listing:
    """The files of every folder below a split, unsorted; none is looked at."""
    extensions = tuple(extension.encode() for extension in media.extensions)
    found, waiting = {}, [(b"", os.fsencode(split))]
    while waiting:
        below, folder = waiting.pop()
        with os.scandir(folder) as entries:
            found[os.fsdecode(below)] = files = []
            for entry in entries:
                name = entry.name
                if name.startswith(b"."):
                    continue
                if entry.is_dir():
                    waiting.append((os.path.join(below, name), entry.path))
                elif name.lower().endswith(extensions):  # a broken link is told when it is read
                    files.append(name)
    return found


def _subfolders(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
