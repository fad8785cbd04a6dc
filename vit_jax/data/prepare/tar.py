"""tar:PATH as an input: a tar a split, read in place without extracting anything.

PATH is a tar or a folder of them. The class of an image is the folder it is in, or the name of the
inner tar it is in, as in ImageNet's training images (a tar of 1,000 tars). Images that are in no
folder, such as ImageNet's validation images, get their classes from a file of labels: one class
name a line, for the images in sorted order.

Members are stored as they are, so even the image in an inner tar is a run of bytes of the outer
one. A compressed tar has no such runs and is refused.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from vit_jax.data.prepare.folder import is_image
from vit_jax.data.prepare.index import Builder, Files, Index, Input, Lost, Raw
from vit_jax.errors import InputError

BLOCK = 512  # bytes: everything in a tar starts at a multiple of it (POSIX.1-1988)
SPLITS = ("train", "validation", "val", "test")


class Member(NamedTuple):
    """A file in a tar: its name and which bytes of the tar it is."""

    name: str
    offset: int
    size: int


class _Found(NamedTuple):
    """The images of one tar."""

    path: Path
    members: list[Member]
    lost: list[Lost]


def index_tar(path: str, *, labels: Sequence[str] | None = None, split: str | None = None) -> Input:
    """The images of a tar, or of every tar in a folder.

    Args:
      labels: class names of the images of each tar without class folders, in sorted order.
      split: the split of a single tar; by default it is told by the file's name.

    Raises:
      InputError: for a missing or compressed tar, one without images, labels that do not fit.
    """
    tars = _tars(path, split)
    found = {name: _search(file) for name, file in tars.items()}
    empty = [str(one.path) for one in found.values() if not one.members]
    if empty:
        raise InputError(f"{empty[0]} holds no images.")
    classes = {name: _classes(one, labels) for name, one in found.items()}
    if labels is not None and not any(is_flat(one.members) for one in found.values()):
        raise InputError("--labels is for tars without class folders; none of these is one.")
    class_names = _class_names(found, classes)
    splits = {name: _index(one, classes[name], class_names) for name, one in found.items()}
    return Input(class_names, splits, {name: one.lost for name, one in found.items()}, read_tar)


def read_tar(index: Index, i: int, files: Files) -> Raw:
    """One member."""
    offset, size = int(index.columns["offset"][i]), int(index.columns["size"][i])
    image = files.read(index.path(i), offset, size, index.shown(i))
    return Raw(image, {"label": int(index.columns["label"][i])})


def members(path: Path, lost: list[Lost]) -> Iterator[Member]:
    """The files in a tar and in the tars inside it, in the order they are stored.

    What is behind a damaged header cannot be found; that is noted in `lost`.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        yield from _walk(file, size, prefix="", place=path.name, lost=lost)


def is_flat(found: Sequence[Member]) -> bool:
    """Are all images in one folder, or in none?"""
    return len({member.name.rpartition("/")[0] for member in found}) == 1


def refuse_compressed(path: Path) -> None:
    """`InputError` for a missing file, and for one that begins as gzip, bzip2, xz or zstd do."""
    if not path.is_file():
        raise InputError(f"there is no file {path}.")
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")):
        raise InputError(f"{path} is compressed; decompress it first, e.g. gunzip {path.name}.")


def _walk(
    file: IO[bytes], end: int, *, prefix: str, place: str, lost: list[Lost]
) -> Iterator[Member]:
    """Members from the file's position up to `end`; an inner tar's name is a folder."""
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (info := archive.next()) is not None and info.offset < end:
                archive.members.clear()  # or a million of them stay in memory
                name, offset = prefix + info.name.removeprefix("./"), info.offset_data
                if not info.isreg():
                    continue
                if offset + info.size > end:
                    lost.append(Lost(name, f"{place} ends within it"))
                    return
                if name.endswith(".tar"):
                    file.seek(offset)
                    folder, inner = name.removesuffix(".tar") + "/", f"{place}/{name}"
                    yield from _walk(
                        file, offset + info.size, prefix=folder, place=inner, lost=lost
                    )
                else:
                    yield Member(name, offset, info.size)
            _expect_end(file, archive.offset, end)
    except tarfile.TarError as error:
        lost.append(Lost(place, f"{error}; what is behind it is lost"))


def _expect_end(file: IO[bytes], offset: int, end: int) -> None:
    """tarfile takes a damaged header for the end, which is in truth a block of zeros."""
    file.seek(min(offset, end))
    if any(file.read(min(BLOCK, max(end - offset, 0)))):
        raise tarfile.ReadError(f"the header at byte {offset} is damaged")


def _tars(path: str, split: str | None) -> dict[str, Path]:
    """Split -> tar."""
    root = Path(path).expanduser()
    if root.is_dir():
        if split is not None:
            raise InputError(f"--split names the split of a single tar; {path} is a folder.")
        files = sorted(root.glob("*.tar"))
        if not files:
            raise InputError(f"Folder {path} holds no *.tar.")
    else:
        files = [root]
    for file in files:
        refuse_compressed(file)
    named: dict[str, Path] = {}
    for file in files:
        name = split or split_of(file.stem)
        if name in named:
            raise InputError(f"{named[name].name} and {file.name} are both split {name!r}.")
        named[name] = file
    return named


def split_of(stem: str) -> str:
    """'ILSVRC2012_img_val' -> 'val': a usual name among the words, or else the whole."""
    words = re.split(r"[_\-. ]", stem.lower())
    return next((name for name in SPLITS if name in words), stem)


def _search(path: Path) -> _Found:
    lost: list[Lost] = []
    images = [member for member in members(path, lost) if is_image(member.name)]
    return _Found(path, sorted(images), lost)


def _classes(found: _Found, labels: Sequence[str] | None) -> list[str]:
    """The class of each image."""
    if labels is not None and is_flat(found.members):
        if len(labels) != len(found.members):
            raise InputError(
                f"--labels has {len(labels)} lines, but {found.path.name} holds "
                f"{len(found.members)} images."
            )
        return list(labels)
    folders = {member.name.rpartition("/")[0] for member in found.members}
    if "" in folders:
        raise InputError(
            f"{found.path.name} holds images that are in no folder, which would be their class; "
            f"give --labels=FILE with one class name a line, for the images in sorted order."
        )
    names = {folder: folder.rpartition("/")[2] for folder in folders}
    if len(set(names.values())) < len(names):
        twice = sorted(f for f in folders if list(names.values()).count(names[f]) > 1)[:2]
        raise InputError(
            f"{found.path.name} holds images in {' and '.join(twice)}; allowed: CLASS/FILE, "
            f"each class in one folder."
        )
    return [names[member.name.rpartition("/")[0]] for member in found.members]


def _class_names(found: dict[str, _Found], classes: dict[str, list[str]]) -> tuple[str, ...]:
    """The sorted union; where some tars have class folders, these alone say what a class is."""
    with_folders = [name for name in found if not is_flat(found[name].members)]
    known = set().union(*(classes[name] for name in with_folders or classes))
    for name in classes:
        unknown = sorted(set(classes[name]) - known)
        if unknown:
            raise InputError(
                f"Split {name!r} has class {unknown[0]!r}, which is no class folder of "
                f"{' or '.join(with_folders)}; labels must be these folders' names."
            )
    if all(name.isdecimal() for name in known):
        return tuple(sorted(known, key=int))
    return tuple(sorted(known))


def _index(found: _Found, classes: Sequence[str], class_names: Sequence[str]) -> Index:
    builder = Builder("offset", "label")
    position = {name: label for label, name in enumerate(class_names)}
    for member, name in zip(found.members, classes, strict=True):
        builder.add(
            member.name, file=0, offset=member.offset, size=member.size, label=position[name]
        )
    return builder.build(str(found.path.parent), [found.path.name])
