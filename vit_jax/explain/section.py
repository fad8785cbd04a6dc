"""What a section of the page is, and what it finds."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class LeftOut(Exception):
    """A section that has nothing to say of this model or these images; its sentence tells why."""


class Picture(NamedTuple):
    file: str  # in the folder of the page
    caption: str  # what it shows, also for those who cannot see it


class Column(NamedTuple):
    """Of a table.

    Attributes:
      form: of its numbers where they are read, e.g. '.1%'.
    """

    name: str
    form: str = ""


class Table(NamedTuple):
    """Numbers as they were found; the first column names the rows.

    A cell is a text, a number, a `faithfulness.Measured`, a dictionary of numbers, or None.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]


class Found(NamedTuple):
    pictures: tuple[Picture, ...] = ()
    table: Table | None = None
    note: str = ""  # of these pictures alone, e.g. over how many images


class Section(NamedTuple):
    """One entry of the table of contents.

    Attributes:
      title: its heading.
      shows: one sentence: what is in the picture.
      read: one sentence: how to read it.
      source: the paper and its figure or equation.
      make: draws the pictures of a `Subject` into a folder; raises `LeftOut`, or `InputError`
        where the library has a sentence of its own.
    """

    title: str
    shows: str
    read: str
    source: str
    make: Callable[[Any, Path], Found]


class Result(NamedTuple):
    """A section as it goes to the page: with what was found, or why it was left out."""

    name: str
    section: Section
    found: Found | None = None
    left_out: str = ""
