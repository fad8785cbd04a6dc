"""Sequences of a million small things as two NumPy arrays each.

A Python list of a million strings is a million objects: 100 MB, copied page by page into every
worker process as reference counts change. Two arrays can be mapped by all of them, read-only.

Letters: n = items; m = elements of all items together.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain

import numpy as np


class Ragged(Sequence[np.ndarray]):
    """n arrays of any lengths, end to end.

    Attributes:
      values: [m, ...], the elements of all.
      ends: int64[n + 1]; item i is values[ends[i]:ends[i + 1]].
    """

    def __init__(self, values: np.ndarray, ends: np.ndarray):
        self.values, self.ends = values, ends

    @classmethod
    def pack(cls, items: Iterable[Sequence], dtype: type, width: tuple[int, ...] = ()) -> "Ragged":
        """Packs sequences of elements that have the shape `width` each."""
        items = list(items)
        values = np.array(list(chain.from_iterable(items)), dtype).reshape(-1, *width)
        return cls(values, _ends(map(len, items), len(items)))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> np.ndarray:
        """[length of item i, ...]; a view."""
        i = range(len(self))[i]  # IndexError where there is none; negative from the end
        return self.values[self.ends[i] : self.ends[i + 1]]


class Strings(Sequence[str]):
    """n strings, e.g. the names of the files of a data set.

    Attributes:
      blob: uint8[m], their UTF-8; a file name that is none survives, as `os.fsencode` has it.
      ends: int64[n + 1]; string i is blob[ends[i]:ends[i + 1]].
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray):
        self.blob, self.ends = blob, ends

    @classmethod
    def pack(cls, strings: Iterable[str | bytes]) -> "Strings":
        """Packs strings, or their UTF-8."""
        encoded = [s if isinstance(s, bytes) else _encode(s) for s in strings]
        blob = np.frombuffer(b"".join(encoded), np.uint8)
        return cls(blob, _ends(map(len, encoded), len(encoded)))

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, i: int) -> str:
        i = range(len(self))[i]
        text = self.blob[self.ends[i] : self.ends[i + 1]].tobytes()
        return text.decode("utf-8", "surrogateescape")

    def part(self, start: int, stop: int) -> "Strings":
        """Strings start to stop, a copy."""
        ends = self.ends[start : stop + 1]
        return Strings(self.blob[ends[0] : ends[-1]].copy(), ends - ends[0])


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _ends(lengths: Iterator[int], n: int) -> np.ndarray:
    return np.fromiter(accumulate(lengths, initial=0), np.int64, n + 1)
