"""Weight files: a flat dictionary name -> array, whatever the format.

Reads NumPy's .npz (Google's checkpoints), .safetensors with or without an index of shards,
PyTorch's .pth/.pt/.bin (tensors only: no code in a file is ever run), and folders in Hugging
Face's layout. Writes .npz and .safetensors, whole or not at all. Names stay as the file has
them ('Transformer/encoderblock_0/...', 'blocks.0.attn.qkv.weight').
"""

import argparse
import contextlib
import json
import os
import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from vit_jax.errors import InputError

Arrays = dict[str, np.ndarray]

# What a folder may hold, the safer and faster format first.
FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
INDEX_SUFFIXES = (".safetensors.index.json", ".bin.index.json")
# Where training code keeps the weights in what it saves; where there are several, the first
# wins. Methods with a teacher publish the teacher.
WRAPPERS = ("state_dict", "model", "teacher", "student")


def read_arrays(path: str | os.PathLike, *, part: str | None = None) -> Arrays:
    """Every array in a weight file or a folder of them.

    Args:
      path: *.npz, *.safetensors, *.pth, *.pt, *.bin, an index of shards, or a folder.
      part: for PyTorch files: the key below which the weights lie, 'a' or 'a.b'; by default the
        first of `WRAPPERS` that is there. What lies beside it (optimizer, epoch) is not read.

    Raises:
      InputError: for a path that is not there, no such format, or a damaged file.
    """
    path = Path(path)
    if path.is_dir():
        path = _file_in(path)
    if not path.is_file():
        raise InputError(f"There is no weight file {path}.")
    if path.name.endswith(INDEX_SUFFIXES):
        return _read_shards(path, part)
    if path.suffix not in READERS:
        raise InputError(f"{path} is no weight file; allowed: {', '.join(READERS)} or a folder.")
    if part is not None and path.suffix not in TORCH_SUFFIXES:
        raise InputError(f"part is {part!r}, but only {', '.join(TORCH_SUFFIXES)} have parts.")
    return READERS[path.suffix](path, part)


class Stored(NamedTuple):
    """What a file holds.

    Attributes:
      arrays: as `read_arrays` has them.
      student: where those are its teacher's; None where there are not both.
      centre: what DINO takes off the teacher's logits; None where none is stored.
    """

    arrays: Arrays
    student: Arrays | None = None
    centre: np.ndarray | None = None


def read_stored(path: str | os.PathLike, *, part: str | None = None) -> Stored:
    """As `read_arrays`; of a checkpoint of DINO's, unless `part` is given, all that learns."""
    path = Path(path)
    if part is not None or path.suffix not in TORCH_SUFFIXES or not path.is_file():
        return Stored(read_arrays(path, part=part))
    stored = _load_torch(path)
    arrays = _named_arrays(stored, None, path)
    if not isinstance(stored, Mapping) or not {"teacher", "student"} <= stored.keys():
        return Stored(arrays)
    centre = (stored.get("dino_loss") or {}).get("center")
    return Stored(
        arrays,
        student=_named_arrays(stored, "student", path),
        centre=None if centre is None else _from_torch(_torch(path), centre),
    )


def write_npz(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a flat .npz, in the order given; bfloat16 as big_vision does, as raw 2-byte void."""
    with _replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        # Not np.savez, which takes the names as keywords: a weight called 'file' would clash.
        for name, array in arrays.items():
            array = np.asarray(array)
            if array.dtype == ml_dtypes.bfloat16:
                array = array.view("V2")
            with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, array, allow_pickle=False)


def write_safetensors(
    path: str | os.PathLike,
    arrays: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a .safetensors file; transformers and timm want metadata={'format': 'pt'}."""
    safetensors = _safetensors()
    # Contiguous, because the library writes the memory of a transposed view as it lies.
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    with _replacing(path) as file:
        file.write(safetensors.numpy.save(whole, metadata=dict(metadata) if metadata else None))


def _file_in(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(p for p in folder.iterdir() if p.suffix in READERS)
    if len(others) == 1:
        return others[0]
    held = ", ".join(p.name for p in others) or "none of these"
    raise InputError(
        f"The folder {folder} holds {held}; allowed: {', '.join(FOLDER_FILES)}, or one weight file."
    )


def _read_shards(index: Path, part: str | None) -> Arrays:
    with _telling(index, ValueError, KeyError, AttributeError):
        owners = dict(json.loads(index.read_text())["weight_map"].items())
        shards = sorted(set(owners.values()))
        if any(Path(name).name != name for name in shards):  # no way out of the folder
            raise ValueError("a shard's name is a path")
    arrays: Arrays = {}
    for shard in shards:
        arrays |= read_arrays(index.parent / shard, part=part)
    lacking = sorted(owners.keys() - arrays.keys())
    if lacking:
        raise InputError(f"{index} lists {lacking[0]!r} in {owners[lacking[0]]}, but it lacks it.")
    return arrays


def _read_npz(path: Path, part: None) -> Arrays:
    # np.load takes whatever is no zip archive for a pickle or an .npy: refuse it first.
    if not zipfile.is_zipfile(path):
        raise InputError(f"Cannot read {path}: it is no .npz archive, or was cut short.")
    damages = (zipfile.BadZipFile, zlib.error, ValueError, EOFError, OSError, NotImplementedError)
    with _telling(path, *damages), np.load(path, allow_pickle=False) as archive:
        return {name: _restore_bfloat16(name, archive[name]) for name in archive.files}


def _restore_bfloat16(name: str, array: np.ndarray) -> np.ndarray:
    """NumPy has no name for bfloat16 in a file, so it arrives there as 2 untyped bytes."""
    if array.dtype.kind != "V":
        return array
    if array.dtype.names or array.dtype.itemsize != 2:
        raise ValueError(f"{name!r} has dtype {array.dtype}, which is no number")
    return array.view(ml_dtypes.bfloat16)


def _read_safetensors(path: Path, part: None) -> Arrays:
    safetensors = _safetensors()
    damages = (safetensors.SafetensorError, OSError, AttributeError)  # the last: an exotic dtype
    with _telling(path, *damages), safetensors.safe_open(path, framework="np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping


def _read_torch(path: Path, part: str | None) -> Arrays:
    return _named_arrays(_load_torch(path), part, path)


def _load_torch(path: Path) -> Any:
    torch = _torch(path)
    # Training scripts store their arguments beside the weights; a Namespace can do no harm.
    harmless = torch.serialization.safe_globals([argparse.Namespace])
    damages = (pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError, OSError)
    with _telling(path, *damages), harmless:
        return torch.load(path, map_location="cpu", weights_only=True)


def _named_arrays(stored: Any, part: str | None, path: Path) -> Arrays:
    torch = _torch(path)
    tensors = _unwrap(stored, part, path, is_tensor=lambda value: isinstance(value, torch.Tensor))
    return {name: _from_torch(torch, tensor) for name, tensor in tensors.items()}


def _unwrap(
    stored: Any, part: str | None, path: Path, *, is_tensor: Callable[[Any], bool]
) -> dict[str, Any]:
    """The tensors of what was stored, by name, without the wrappers around them."""

    def holds_weights(value):
        return isinstance(value, Mapping) and any(
            is_tensor(inner) or holds_weights(inner) for inner in value.values()
        )

    keys = part.split(".") if part is not None else []
    for key in keys:
        if not isinstance(stored, Mapping) or not holds_weights(stored.get(key)):
            raise InputError(f"{path} holds no weights at {part!r}; it holds: {_keys(stored)}.")
        stored = stored[key]
    while isinstance(stored, Mapping) and part is None:
        found = [key for key in WRAPPERS if holds_weights(stored.get(key))]
        if not found:
            break
        stored = stored[found[0]]
        keys.append(found[0])
    if not holds_weights(stored) or not any(map(is_tensor, stored.values())):
        raise InputError(f"{path} holds no named weights; it holds: {_keys(stored)}.")
    tensors = {name: value for name, value in stored.items() if is_tensor(value)}
    tensors = _strip(tensors, "module.", everywhere=True)  # PyTorch's data parallelism adds it
    if {"teacher", "student"} & set(keys):
        tensors = _strip(tensors, "backbone.", everywhere=False)  # beside the projection heads
    return tensors


def _strip(tensors: dict[str, Any], prefix: str, *, everywhere: bool) -> dict[str, Any]:
    """Without the prefix, where all names have it; or, unless `everywhere`, where it stands."""
    if everywhere and not all(name.startswith(prefix) for name in tensors):
        return tensors
    stripped = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return stripped if len(stripped) == len(tensors) else tensors


def _keys(stored: Any) -> str:
    if not isinstance(stored, Mapping):
        return f"a {type(stored).__name__}"
    names = sorted(map(str, stored))
    return ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")


def _from_torch(torch: Any, tensor: Any) -> np.ndarray:
    tensor = tensor.detach().contiguous()
    if tensor.dtype == torch.bfloat16:  # has no NumPy of its own: its bits do
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise InputError(
            ".safetensors files need the package safetensors: pip install 'vit_jax[weights]'."
        ) from error
    return safetensors


def _torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise InputError(
            f"{path} is a PyTorch file, and torch is not installed: pip install "
            "'vit_jax[torch]' (a CPU build will do), or fetch the .safetensors instead."
        ) from error
    return torch


@contextlib.contextmanager
def _telling(path: Path, *damages: type[Exception]) -> Iterator[None]:
    """One sentence for whatever the library that reads `path` raises."""
    try:
        yield
    except InputError:  # a ValueError itself
        raise
    except damages as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        # PyTorch's refusals begin with advice to run the file's code; the reason comes later.
        reasons = [line for line in lines if "Unsupported" in line] or lines[:1]
        reason = " ".join(reasons).strip() or type(error).__name__
        raise InputError(f"Cannot read {path}; it may be cut short. ({reason})") from error


@contextlib.contextmanager
def _replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` once it is complete and on the disk."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


TORCH_SUFFIXES = (".pth", ".pt", ".bin")
READERS: dict[str, Callable[[Path, Any], Arrays]] = {
    ".npz": _read_npz,
    ".safetensors": _read_safetensors,
    **dict.fromkeys(TORCH_SUFFIXES, _read_torch),
}
