"""Records: what is packed comes back; what is damaged is told, wherever it was cut."""

import numpy as np
import pytest

from vit_jax.data import records
from vit_jax.errors import InputError

EXAMPLES = [
    {},
    {"label": 3},
    {"label": np.int64(3), "name": "n01440764/ü ß.JPEG"},
    {"labels": (4, 1)},
    {"labels": ()},
    {"caption": "a dog, 狗\n"},
    {"boxes": np.float32([[0.1, 1 / 3, 5, 7e-9]]), "box_label": np.int32([2])},
    {"boxes": np.zeros((0, 4), np.float32), "box_label": np.zeros(0, np.int32)},
]


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.parametrize("image", [b"", bytes(range(256))], ids=["empty", "bytes"])
def test_what_is_packed_comes_back(example, image):
    fields, found = records.unpack(records.pack(example, image))
    assert found == image and fields.keys() == example.keys()
    for key, value in example.items():
        dtype = getattr(value, "dtype", None)
        if isinstance(value, str):
            assert fields[key] == value
        else:  # bit for bit, in the type it had
            assert np.asarray(fields[key], dtype).tobytes() == np.asarray(value, dtype).tobytes()


def test_every_cut_and_another_version_are_told():
    record = records.pack({"label": 1, "caption": "ü"}, b"12345")
    for kept in range(len(record)):
        with pytest.raises(InputError, match="record"):
            records.unpack(record[:kept])
    with pytest.raises(InputError, match="holds 6"):
        records.unpack(record + b"x")
    with pytest.raises(InputError, match="version 2"):
        records.unpack(b"\x02" + record[1:])


@pytest.mark.parametrize(
    "example",
    [{"image": 1}, {"label": "cat"}, {"label": 1.5}, {"labels": 3}, {"boxes": [1.0, 2, 3, 4]}],
    ids=str,
)
def test_what_has_no_place_is_refused(example):
    with pytest.raises(InputError, match="cannot hold"):
        records.pack(example, b"")


def test_no_box_is_not_a_number():
    with pytest.raises(InputError, match="cannot hold"):
        records.pack({"boxes": [[0.0, 0, np.nan, 1]]}, b"")
