"""Packed sequences: what goes in comes out, one by one, whatever the lengths."""

import pickle

import numpy as np
import pytest

from vit_jax.data.packed import Ragged, Strings

TEXTS = ["", "a", "", "ü狗.JPEG", "\udcff.png", "x" * 300, ""]


@pytest.mark.parametrize("strings", [TEXTS, TEXTS[:1], [], ["b"]], ids=len)
def test_strings(strings):
    packed = Strings.pack(strings)
    assert list(packed) == strings and len(packed) == len(strings)
    for i in range(-len(strings) - 1, len(strings) + 1):
        if -len(strings) <= i < len(strings):
            assert packed[i] == strings[i]
        else:
            with pytest.raises(IndexError):
                packed[i]
    encoded = Strings.pack(s.encode("utf-8", "surrogateescape") for s in strings)
    assert list(encoded) == strings
    for start in range(len(strings) + 1):
        for stop in range(start, len(strings) + 1):
            assert list(packed.part(start, stop)) == strings[start:stop]


@pytest.mark.parametrize("width", [(), (4,)])
@pytest.mark.parametrize("lengths", [[2, 0, 1], [0], [], [3]], ids=str)
def test_ragged(width, lengths):
    rng = np.random.default_rng(0)
    items = [rng.random((n, *width)).astype(np.float32) for n in lengths]
    packed = Ragged.pack(items, np.float32, width)
    assert len(packed) == len(items)
    for found, expected in zip(packed, items, strict=True):
        assert found.dtype == np.float32 and np.array_equal(found, expected)


def test_the_contents_travel_as_two_buffers():
    packed = Strings.pack(map(str, range(10_000)))
    buffers = []
    state = pickle.dumps(packed, protocol=5, buffer_callback=buffers.append)
    assert len(state) < 1000 and len(buffers) == 2
    assert list(pickle.loads(state, buffers=buffers)) == list(packed)
