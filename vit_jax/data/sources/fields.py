"""What sources share: values as examples hold them, and labels checked against the classes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.data.examples import Example
from vit_jax.errors import InputError


def as_boxes(value: Any) -> np.ndarray:
    """f32[n,4], also of a list of none."""
    return np.asarray(value, np.float32).reshape(-1, 4)


def as_labels(value: Any) -> tuple[int, ...]:
    return tuple(int(label) for label in value)


def as_class_of_boxes(value: Any) -> np.ndarray:
    """int32[n], also of a list of none."""
    return np.asarray(value, np.int32).reshape(-1)


# The fields that files can state, in this order; see `data/examples.py`.
CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "label": int,
    "labels": as_labels,
    "caption": str,
    "boxes": as_boxes,
    "box_label": as_class_of_boxes,
}
OF_CLASSES = ("label", "labels", "box_label")  # hold positions in the class names
# A larger number is an identity of something rather than a class: ImageNet-21k has 21,843.
MOST_NUMBERED = 1_000_000


def convert(values: Mapping[str, Any], num_classes: int, place: Callable[[], str]) -> Example:
    """The fields of `values` as an example has them; others are left out.

    Raises:
      InputError: naming the place, for a label outside the classes.
    """
    example = {key: to(values[key]) for key, to in CONVERTERS.items() if key in values}
    for key in OF_CLASSES:
        if key in example:
            check_labels(key, example[key], num_classes, place)
    return example


def check_labels(key: str, labels: Any, num_classes: int, place: Callable[[], str]):
    """InputError, naming the place, unless the label or each of the labels is a class."""
    for label in (labels,) if isinstance(labels, int) else labels:
        if not 0 <= label < num_classes:
            raise InputError(
                f"{place()} has {key} {label}, outside the {num_classes} classes; "
                "a split without labels cannot be used with labels."
            )


def numbered(labels: Iterable[np.ndarray], place: str) -> tuple[str, ...]:
    """Names for classes that have only numbers: '0' to the largest that occurs.

    Raises:
      InputError: naming the place, for more than `MOST_NUMBERED`.
    """
    largest = max((int(np.max(array, initial=-1)) for array in labels), default=-1)
    if largest >= MOST_NUMBERED:
        raise InputError(
            f"{place} has a label {largest}, which would make as many classes; allowed: numbers "
            f"below {MOST_NUMBERED}, or names."
        )
    return tuple(str(label) for label in range(largest + 1))


def listed(names: Sequence[str], *, most: int = 5) -> str:
    """Some names for a message."""
    return ", ".join(map(str, names[:most])) + (", ..." if len(names) > most else "")
