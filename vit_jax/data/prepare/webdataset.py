"""webdataset:PATTERN as an input: tars whose neighbouring members with one key are one sample.

The key is a member's name up to the first dot behind its last slash, what follows is its
extension (github.com/webdataset/webdataset). Of a sample are read: the image (jpg, jpeg, png,
webp, bmp), the label from `cls` (an integer) and the caption from `txt`, or these from the keys
"label", "labels" (a list) and "caption" of `json`.

PATTERN may have braces, 'train-{000000..000012}.tar', and the wildcards * ? [ ]; each file that the
braces name must exist. A shard's split is told by its name without the number.
"""

import glob
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vit_jax.data.examples import UnreadableExample
from vit_jax.data.images.decode import EXTENSIONS
from vit_jax.data.prepare.index import NONE, Builder, Files, Index, Input, Lost, Raw
from vit_jax.data.prepare.tar import Member, members, refuse_compressed, split_of
from vit_jax.errors import InputError

ANNOTATIONS = ("cls", "txt", "json")
# Of the names of their columns: where they are, and how long.
_PREFIX = {"image": "", **{name: f"{name}_" for name in ANNOTATIONS}}
_PLACE = ("offset", "size")
_IMAGES = tuple(extension.removeprefix(".") for extension in EXTENSIONS)


def index_webdataset(
    path: str, *, labels: Sequence[str] | None = None, split: str | None = None
) -> Input:
    """The samples of the shards that a pattern names.

    Args:
      path: the pattern.
      labels: names of the classes, in the order of their numbers.
      split: the split of all shards; by default it is told by the files' names.

    Raises:
      InputError: for a pattern without files, a missing or compressed shard, no images.
    """
    shards: dict[str, list[Path]] = {}
    for shard in expand(path):
        refuse_compressed(shard)
        shards.setdefault(split or _split_of(shard), []).append(shard)
    lost: dict[str, list[Lost]] = {name: [] for name in shards}
    splits = {name: _index(paths, lost[name]) for name, paths in shards.items()}
    for name, index in splits.items():
        if not len(index):
            raise InputError(f"The shards of split {name!r} ({path}) hold no images.")
    return Input(tuple(labels) if labels else None, splits, lost, read_webdataset)


def read_webdataset(index: Index, i: int, files: Files) -> Raw:
    """One sample."""

    def member(prefix: str) -> bytes:
        offset, size = (int(index.columns[prefix + column][i]) for column in _PLACE)
        return files.read(index.path(i), offset, size, place=index.shown(i))

    fields: dict[str, Any] = {}
    present = [name for name in ANNOTATIONS if index.columns[_PREFIX[name] + "offset"][i] != NONE]
    try:
        if "json" in present:
            fields = _from_json(member(_PREFIX["json"]))
        if "txt" in present:
            fields["caption"] = member(_PREFIX["txt"]).decode()
        if "cls" in present:
            fields["label"] = int(member(_PREFIX["cls"]))
    except ValueError as error:  # of UTF-8, of JSON, of an integer
        raise UnreadableExample(index.shown(i), f"its annotation is damaged: {error}") from error
    return Raw(member(_PREFIX["image"]), fields)


def expand(pattern: str) -> list[Path]:
    """The files that a pattern names, in its order; wildcards in sorted order."""
    files: list[Path] = []
    for one in _braces(str(Path(pattern).expanduser())):
        if glob.has_magic(one):
            found = sorted(glob.glob(one))
            if not found:
                raise InputError(f"no file fits {one!r}; allowed: --from=webdataset:PATTERN.")
            files.extend(map(Path, found))
        else:
            files.append(Path(one))
    return files


def _braces(pattern: str) -> Iterator[str]:
    """'a-{00..02}.tar' -> a-00.tar, a-01.tar, a-02.tar; '{x,y}' -> x, y."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    options = [_options(part) if k % 2 else [part] for k, part in enumerate(parts)]
    return map("".join, itertools.product(*options))


def _options(text: str) -> list[str]:
    bounds = re.fullmatch(r"(\d+)\.\.(\d+)", text)
    if not bounds:
        return text.split(",")
    first, last = map(int, bounds.groups())
    width = len(bounds[1]) if bounds[1].startswith("0") else 0
    return [f"{number:0{width}}" for number in range(first, last + 1)]


def _split_of(path: Path) -> str:
    """'train-000003.tar' -> 'train'; 'imagenet-val-07.tar' -> 'val'; '000003.tar' -> 'train'."""
    return split_of(re.sub(r"[-_.]?\d+$", "", path.stem)) or "train"


def _index(paths: Sequence[Path], lost: list[Lost]) -> Index:
    columns = [prefix + column for prefix in _PREFIX.values() for column in _PLACE]
    builder = Builder(*columns)
    for file, path in enumerate(paths):
        for key, sample in _samples(path, lost):
            if "image" not in sample:
                lost.append(Lost(f"{path.name}/{key}", "the sample has no image"))
                continue
            row = dict.fromkeys(columns, NONE)
            for name, member in sample.items():
                row[_PREFIX[name] + "offset"] = member.offset
                row[_PREFIX[name] + "size"] = member.size
            builder.add(f"{path.name}/{key}", file=file, **row)
    return builder.build("", [str(path) for path in paths])


def _samples(path: Path, lost: list[Lost]) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, {'image', 'cls', 'txt' or 'json': member}) of each sample of a shard."""
    visible = (m for m in members(path, lost) if not m.name.rpartition("/")[2].startswith("."))
    named = ((*_key(member.name), member) for member in visible)
    for key, group in itertools.groupby(named, key=lambda item: item[0]):
        sample = {}
        for _, extension, member in group:
            role = "image" if extension in _IMAGES else extension
            if role in sample:
                lost.append(Lost(f"{path.name}/{member.name}", f"the sample has two of {role}"))
            elif role in _PREFIX:
                sample[role] = member
        if sample:
            yield key, sample


def _key(name: str) -> tuple[str, str]:
    """'a/b.c.jpg' -> ('a/b', 'c.jpg')."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension.lower()


def _from_json(data: bytes) -> dict[str, Any]:
    found = json.loads(data)
    if not isinstance(found, dict):
        raise ValueError(f"its JSON is no object but {type(found).__name__}")
    return {key: found[key] for key in ("label", "labels", "caption") if found.get(key) is not None}
