"""Every configured key is consumed or refused, with the list of what is allowed."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pytest

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.sections import TINY, call_chosen, check_ranges


def build(
    *,
    rate: float,
    steps: int = 3,
    name: str = "a",
    is_on: bool = False,
    size: tuple[int, int] | int = 8,
    limit: float | None = None,
    rules: Sequence[Any] = (),
    inner: Mapping[str, Any] | None = None,
    anything: Any = None,
    info: object = None,
):
    return locals()


def call(**section):
    return sections.call(build, section, where="config.part", info="given")


def test_keys_and_given_arguments_reach_the_builder_and_defaults_stay():
    found = call(rate=0.5, name="b")
    assert (found["rate"], found["name"], found["info"], found["steps"]) == (0.5, "b", "given", 3)


def test_unknown_key_is_refused_with_a_suggestion_and_the_list():
    with pytest.raises(InputError) as error:
        call(rate=0.5, stepz=3)
    assert str(error.value) == (
        "config.part has unknown key 'stepz' (did you mean 'steps'?); allowed keys: "
        "rate, steps, name, is_on, size, limit, rules, inner, anything."
    )


def test_all_unknown_keys_are_told_and_no_suggestion_is_far_fetched():
    with pytest.raises(InputError, match=r"unknown key 'ratte' \(did.*'rate'\?\), 'zzz'; allowed"):
        call(ratte=0.5, zzz=1)


def test_what_is_given_cannot_be_configured():
    with pytest.raises(InputError, match="unknown key 'info'; allowed keys: rate, "):
        call(rate=0.5, info=3)


def test_missing_keys_are_told_with_the_list():
    with pytest.raises(InputError, match="config.part lacks rate; allowed keys: rate, steps"):
        call(steps=3)


def test_builder_without_keys_says_so():
    with pytest.raises(InputError, match=r"'a'; allowed keys: \(none\)"):
        sections.call(lambda: 1, {"a": 1}, where="x")


@pytest.mark.parametrize(
    "key, value",
    [
        ("rate", 1),  # an int will do for a float
        ("rate", 1.5),
        ("steps", 0),
        ("is_on", True),
        ("size", 4),
        ("size", (4, 5)),
        ("limit", None),
        ("limit", 2),
        ("rules", [["a", 1]]),
        ("rules", ()),
        ("inner", {"a": 1}),
        ("inner", None),
        ("anything", object()),
    ],
)
def test_values_of_the_annotated_type_are_taken(key, value):
    assert call(**{"rate": 1.0, key: value})[key] == value


def test_lists_become_the_tuples_that_json_made_them_of():
    assert call(rate=1.0, size=[4, 5])["size"] == (4, 5)
    assert call(rate=1.0, rules=[["a", 1]])["rules"] == [["a", 1]]  # any sequence will do there


@pytest.mark.parametrize(
    "key, value, allowed",
    [
        ("rate", "0.5", "float"),
        ("rate", None, "float"),
        ("rate", True, "float"),
        ("steps", 1.5, "int"),
        ("steps", 2.0, "int"),
        ("steps", True, "int"),  # although Python calls it an int
        ("steps", "3", "int"),
        ("name", 3, "str"),
        ("name", None, "str"),
        ("is_on", 1, "bool"),
        ("is_on", "yes", "bool"),
        ("size", "8", r"tuple\[int, int\] \| int"),
        ("size", 8.0, r"tuple\[int, int\] \| int"),
        ("limit", "none", r"float \| None"),
        ("limit", False, r"float \| None"),
        ("rules", "kernel", "Sequence"),
        ("inner", [1], "Mapping"),
    ],
)
def test_values_of_another_type_are_refused(key, value, allowed):
    with pytest.raises(
        InputError, match=rf"config.part.{key} is {re.escape(repr(value))}; allowed: .*{allowed}"
    ):
        call(**{"rate": 1.0, key: value})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    rate: float = 0.5


class Size(NamedTuple):
    width: int
    depth: int


def test_dataclasses_and_named_tuples_are_builders():
    assert sections.call(Settings, {"rate": 1}, where="x") == Settings(rate=1)
    assert sections.call(Size, {"depth": 2, "width": 1}, where="x") == Size(1, 2)
    with pytest.raises(InputError, match="x lacks depth; allowed keys: width, depth"):
        sections.call(Size, {"width": 1}, where="x")


def test_choosing_from_a_table():
    table = {"adamw": 1, "sgd": 2}
    assert sections.choose(table, "sgd", where="x") == 2
    with pytest.raises(InputError) as error:
        sections.choose(table, "adam", where="config.name")
    assert str(error.value) == (
        "config.name is 'adam' (did you mean 'adamw'?); allowed: adamw, sgd."
    )
    with pytest.raises(InputError, match="config.name is None; allowed: adamw, sgd"):
        sections.choose(table, None, where="config.name")


@pytest.mark.parametrize("name", [["sgd"], {"a": 1}])
def test_names_that_are_no_names_are_refused_too(name):
    with pytest.raises(InputError, match="allowed: adamw, sgd"):
        sections.choose({"adamw": 1, "sgd": 2}, name, where="x")


def first(*, shared, a=1, b=2):
    return shared, a, b


@pytest.mark.parametrize(
    "given, result",
    [({}, (0, 1, 2)), (dict(a=5), (0, 5, 2)), (dict(a=None, b=3, c=None), (0, 1, 3))],
)
def test_chosen_builder_gets_what_is_set(given, result):
    assert call_chosen(first, given, where="w", choice="name 'x'", shared=0) == result


def test_key_of_a_builder_that_was_not_chosen_is_refused():
    with pytest.raises(InputError, match="w.c is 0, but name 'x' has no such .*with it: a, b"):
        call_chosen(first, dict(a=3, c=0), where="w", choice="name 'x'", shared=0)


@pytest.mark.parametrize("value", [0, 0.5, 0.999, None])
def test_values_in_their_range_pass(value):
    check_ranges("w", rate=(value, 0, 1))


@pytest.mark.parametrize(
    "bounds, message",
    [
        ((1, 0, 1), "w.rate is 1; allowed: 0 or more, less than 1."),
        ((-1, 0, math.inf), "w.rate is -1; allowed: 0 or more."),
        ((0, TINY, math.inf), "w.rate is 0; allowed: more than 0."),
        ((math.nan, 0, 1), "w.rate is nan; allowed"),
    ],
)
def test_values_outside_their_range_are_refused(bounds, message):
    with pytest.raises(InputError, match=message):
        check_ranges("w", other=(1, 0, 2), rate=bounds)


@pytest.mark.parametrize("section", [{"rate": math.nan}, {"rate": 1.0, "limit": math.nan}])
def test_nan_is_no_number(section):
    with pytest.raises(InputError, match="is nan; allowed: float"):
        call(**section)


def test_keys_that_are_no_text_are_unknown():
    with pytest.raises(InputError, match="unknown key '3'; allowed keys: rate, "):
        sections.call(build, {3: 4}, where="config.part", info="given")


def test_types_are_named_without_their_modules():
    with pytest.raises(InputError, match=r"allowed: Mapping\[str, Any\] \| None\."):
        call(rate=1.0, inner="randaugment")
