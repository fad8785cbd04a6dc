"""Axes keep the order of values, set apart what is none, and have ticks that do not touch."""

import itertools

import numpy as np
import pytest

from vit_jax.sweeps.reports.findings import NOT_SET
from vit_jax.sweeps.reports.swept_axes import make_axis

RNG = np.random.default_rng(0)
AXES = {
    "linear": [(0.0, 0.1, 0.3), (3, 1, 2), (-5.0, 100.0), tuple(RNG.uniform(0, 1, 40)), (7,)],
    "log": [(1e-4, 1e-3, 1e-2), (0, 1e-5, 1e-1), (1, 1000), tuple(10 ** RNG.uniform(-6, 0, 40))],
    "category": [("adamw", "sgd"), (True, False), (None, 0.5), ({}, {"a": 1}), tuple("abcdefgh")],
}
CASES = [(scale, values) for scale, all_values in AXES.items() for values in all_values]


@pytest.mark.parametrize("scale, values", CASES)
@pytest.mark.parametrize("is_missing", [False, True])
def test_places_keep_order_and_ticks_stand_where_their_values_do(scale, values, is_missing):
    given = [*values, NOT_SET] if is_missing else list(values)
    axis = make_axis("name", given)
    assert axis.scale == scale
    assert all(0 <= place <= 1 for place in axis.places)
    assert len(set(axis.places)) == len(given)
    if is_missing:
        assert axis.places[-1] == 0 == min(axis.places) and axis.ticks[0] == (0, "not set")
    if scale != "category":
        ordered = [place for _, place in sorted(zip(values, axis.places, strict=False))]
        assert ordered == sorted(ordered)
        numbers = [(float(t), at) for at, t in axis.ticks if t != "not set"]
        known = sorted([*zip(values, axis.places, strict=False), *numbers], key=lambda p: p[1])
        assert [value for value, _ in known] == sorted(value for value, _ in known)


def test_a_logarithmic_axis_spaces_decades_evenly_and_sets_zero_apart():
    *_, third, fourth, fifth = axis = make_axis("decay", [0, 1e-4, 1e-3, 1e-2]).places
    assert axis[0] == 0 and fifth == 1
    assert fourth - third == pytest.approx(fifth - fourth)


@pytest.mark.parametrize("count", [1, 5, 60])
@pytest.mark.parametrize("length", [1, 30, 200])
def test_ticks_never_touch(count, length):
    axis = make_axis("name", [f"{i:03d}" + "x" * length for i in range(count)], characters=76)
    assert axis.ticks
    for (at, text), (next_at, next_text) in itertools.pairwise(axis.ticks):
        assert (next_at - at) * 76 > (len(text) + len(next_text)) / 2
