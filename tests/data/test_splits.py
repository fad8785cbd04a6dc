"""Split slices: a partition stays a partition, whatever the numbers; mistakes are explained."""

import numpy as np
import pytest

from vit_jax.data import splits
from vit_jax.errors import InputError


class Numbers(splits.Source):
    """Source whose example i is the image of one pixel with value `first` + i."""

    def __init__(self, name, first, n):
        self.name, self.class_names = name, ("only",)
        self.first, self.n = first, n

    def __len__(self):
        return self.n

    def read(self, i):
        return {"image": np.full((1, 1, 1), self.first + i, np.uint8), "label": 0}


def values(split, n=97):
    available = {
        "train": lambda: Numbers("train", 0, n),
        "test": lambda: Numbers("test", 200, 20),
    }
    source = splits.select(available, split, name="numbers")
    assert len(source) == len(list(source))
    return [int(example["image"][0, 0, 0]) for example in source]


@pytest.mark.parametrize("bound", ["98%", "0.5%", "33.3%", "2%", "-10%", "40", "-3"])
@pytest.mark.parametrize("n", [97, 100, 199])
def test_complementary_slices_partition(bound, n):
    parts = []
    for split in (f"train[:{bound}]", f"train[{bound}:]"):
        try:
            parts += values(split, n)
        except InputError as error:
            assert "is empty" in str(error)
    assert parts == list(range(n))


def test_percentages_round_down_exactly():
    # 0.29 * 100 is 28.999… in floating point.
    assert len(values("train[:29%]", 100)) == 29
    assert len(values("train[:98%]", 97)) == 95
    assert values("train[10%:20%]", 97) == list(range(9, 19))
    assert values("train[-10%:]", 97) == values("train[90%:]", 97)


def test_named_slices_and_sums():
    assert values("train") == list(range(97))
    assert values("train[90:]") == list(range(90, 97))
    assert values(" train[ -5 : -3 ] ") == [92, 93]
    assert values("train[:2]+test[:3]+train[96:]") == [0, 1, 200, 201, 202, 96]


def test_an_unsliced_split_is_the_base_itself():
    base = Numbers("train", 0, 5)
    assert splits.select({"train": lambda: base}, "train[0:5]", name="numbers") is base


def test_slices_describe_and_bound_their_base():
    base = Numbers("train", 0, 5)
    source = splits.select({"train": lambda: base}, "train[2:]+train[:1]", name="numbers")
    assert [source.describe(i) for i in range(4)] == [f"train #{i}" for i in (2, 3, 4, 0)]
    for i in (-1, 4):
        with pytest.raises(InputError, match="holds 4"):
            source[i]
        with pytest.raises(IndexError):
            source[i]


def test_only_named_splits_are_opened():
    def fail():
        raise AssertionError("opened")

    available = {"train": lambda: Numbers("train", 0, 5), "test": fail}
    assert len(splits.select(available, "train[1:]+train", name="numbers")) == 9


@pytest.mark.parametrize(
    "one, other, expected",
    [
        ("train", "train", True),
        ("train", "test", False),
        ("train[:90%]", "train[90%:]", False),
        ("train[:90%]", "train[-10.5%:]", True),
        ("train[:100]", "train[99:]", True),
        ("train[:100]", "train[100:]", False),
        ("test+train[5:]", "train[:6]", True),
        ("train[:100]", "train[50%:]", False),  # of 200 it would, of 100 it would not
        ("train[:100]", "train[-5:]", False),  # likewise
    ],
)
def test_overlap_is_told_where_it_is_sure(one, other, expected):
    assert splits.surely_overlap(one, other) == splits.surely_overlap(other, one) == expected


@pytest.mark.parametrize(
    "split",
    ["", "train[", "train[:1.5]", "train[1]", "train[::2]", "train[a:]", "+train", "train+"],
)
def test_malformed_split_shows_the_grammar(split):
    with pytest.raises(InputError, match=r"NAME\[FROM:TO\]"):
        values(split)


@pytest.mark.parametrize(
    "split, message",
    [
        ("val", "available: train, test"),
        ("train[5:5]", "empty"),
        ("train[9:3]", "empty"),
        ("train[97:]", "empty"),
        ("train[:98]", "97 examples"),
        ("train[98:]", "97 examples"),
        ("train[-98:]", "97 examples"),
        ("train[:101%]", "out of range"),
    ],
)
def test_impossible_split_says_what_there_is(split, message):
    with pytest.raises(InputError, match=message):
        values(split)
