"""From a config section to a call: every configured key is consumed or refused.

A builder is a function with keyword-only parameters and no `**kwargs`; its signature
is the one place where a section's keys and defaults are written down. `call` passes a
section to its builder, `choose` looks a name up in a literal table. Both answer a
mistake with the list of what is allowed.
"""

import difflib
import inspect
import math
import numbers
import operator
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from vit_jax.errors import InputError

T = TypeVar("T")
TINY = sys.float_info.min  # the least number above 0 that has full precision


def call(builder: Callable[..., T], section: Mapping[str, Any], *, where: str, **given: Any) -> T:
    """Returns `builder(**section, **given)`.

    Args:
      builder: function (or dataclass) with keyword-only parameters.
      section: the configured keys.
      where: the section's name in the config, for messages, e.g. 'config.optimizer'.
      **given: what the caller supplies; a section may not set these.

    Raises:
      InputError: for a key the builder does not take, a required one that is missing, or a value
        that is not of the annotated type.
    """
    parameters = inspect.signature(builder, eval_str=True).parameters
    allowed = [name for name in parameters if name not in given]
    unknown = [str(key) for key in section if key not in allowed]
    if unknown:
        raise InputError(_unknown(unknown, allowed, where))
    required = [name for name in allowed if parameters[name].default is inspect.Parameter.empty]
    missing = [name for name in required if name not in section]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}; allowed keys: {', '.join(allowed)}.")
    for name, value in section.items():
        if not _fits(value, hint := parameters[name].annotation):
            raise InputError(f"{where}.{name} is {value!r}; allowed: {_named(hint)}.")
    section = {key: _tupled(value, parameters[key].annotation) for key, value in section.items()}
    return builder(**section, **given)


def choose(table: Mapping[str, T], name: Any, *, where: str) -> T:
    """Returns `table[name]`, or raises an `InputError` that lists the table's names."""
    if isinstance(name, str) and name in table:  # what is no string may have no hash
        return table[name]
    hint = _hint(str(name), list(table))
    raise InputError(f"{where} is {name!r}{hint}; allowed: {', '.join(map(str, table))}.")


def call_chosen(
    builder: Callable[..., T], given: Mapping[str, Any], *, where: str, choice: str, **fixed: Any
) -> T:
    """Returns `builder(**fixed, **given)`, where a builder was chosen among several by name.

    Args:
      given: keys of all those builders; None stands for not set.
      choice: what was chosen, for messages, e.g. "schedule 'cosine'".

    Raises:
      InputError: for a key that is set but is another builder's: it would have no effect.
    """
    given = {name: value for name, value in given.items() if value is not None}
    own = [name for name in inspect.signature(builder).parameters if name not in fixed]
    for name in given:
        if name not in own:
            raise InputError(
                f"{where}.{name} is {given[name]!r}, but {choice} has no such setting; allowed "
                f"with it: {', '.join(own) or '(none)'}."
            )
    return builder(**fixed, **given)


def positive_int(value: Any, name: str, *, limit: int = 2**31) -> int:
    """`value` as an int of at least one; InputError otherwise (True and 1.0 included)."""
    try:
        if isinstance(value, bool) or operator.index(value) < 1:
            raise TypeError
        if operator.index(value) >= limit:
            raise InputError(f"{name} is {value}; allowed: less than {limit}.")
    except TypeError:
        raise InputError(f"{name} is {value!r}; it must be a whole number above 0.") from None
    return operator.index(value)


def number(value: Any, name: str) -> float:
    """`value` as a finite float; InputError otherwise."""
    if (
        isinstance(value, bool | str)
        or not isinstance(value, numbers.Real)
        or not math.isfinite(value)
    ):
        raise InputError(f"{name} is {value!r}; it must be a finite number.")
    return float(value)


def pair(size: int | Sequence[int]) -> tuple[int, int]:
    """(height, width): one number stands for a square."""
    return (size, size) if isinstance(size, int) else tuple(size)


def check_ranges(where: str, **values: tuple[float | None, float, float]) -> None:
    """Raises `InputError` for the first name=(value, least, limit) with value < least or >= limit.

    None is in every range; `TINY` as the least means more than 0, `math.inf` means no limit.
    """
    for name, (value, least, limit) in values.items():
        if value is not None and not least <= value < limit:
            above = "more than 0" if least == TINY else f"{least} or more"
            below = "" if limit == math.inf else f", less than {limit}"
            raise InputError(f"{where}.{name} is {value}; allowed: {above}{below}.")


def check_probability(where: str, value: float) -> None:
    """Raises `InputError` unless 0 < value <= 1: what is never done is left out of a config."""
    if not 0 < value <= 1:
        raise InputError(f"{where}.probability is {value}; allowed: more than 0 and at most 1.")


def _fits(value: Any, hint: Any) -> bool:
    """Is a config's value of this type? Knows what configs are made of; waves the rest through."""
    if isinstance(hint, types.UnionType):
        return any(_fits(value, option) for option in typing.get_args(hint))
    kind = typing.get_origin(hint) or hint
    if kind in (tuple, Sequence):
        if not isinstance(value, (tuple, list)):  # JSON has only lists
            return False
        parts = typing.get_args(hint)
        if kind is Sequence or not parts or parts[-1] is Ellipsis:
            return all(_fits(item, parts[0]) for item in value) if parts else True
        return len(value) == len(parts) and all(map(_fits, value, parts))
    if kind in (int, float):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return is_number and (kind is float or isinstance(value, int)) and value == value
    if kind in (str, bool, types.NoneType, Mapping):
        return isinstance(value, kind)
    return True


def _tupled(value: Any, hint: Any) -> Any:
    """The list that JSON made of a tuple, as a tuple again."""
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    is_tuple = any((typing.get_origin(option) or option) is tuple for option in options)
    return tuple(value) if is_tuple and isinstance(value, list) else value


def _named(hint: Any) -> str:
    """A type as annotations have it: 'Mapping[str, Any] | None'."""
    text = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
    return text.replace("collections.abc.", "").replace("typing.", "")


def _unknown(unknown: list[str], allowed: list[str], where: str) -> str:
    named = ", ".join(f"{key!r}{_hint(key, allowed)}" for key in unknown)
    return f"{where} has unknown key {named}; allowed keys: {', '.join(allowed) or '(none)'}."


def _hint(name: str, allowed: list[str]) -> str:
    close = difflib.get_close_matches(name, allowed, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
