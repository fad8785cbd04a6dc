"""From a model and images to a folder with pictures, numbers and the page."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.analysis.faithfulness import Measured
from vit_jax.errors import InputError
from vit_jax.explain import page
from vit_jax.explain.contents import SECTIONS
from vit_jax.explain.section import LeftOut, Result
from vit_jax.explain.subject import Subject
from vit_jax.workdir import write_json

PAGE, NUMBERS = "index.html", "numbers.json"


def write(
    subject: Subject,
    folder: Path,
    names: Sequence[str],
    *,
    command: str,
    must_have: Sequence[str] = (),
    on_begin: Callable[[str], None] = lambda name: None,
    on_end: Callable[[Result], None] = lambda result: None,
) -> list[Result]:
    """Makes the sections one by one; the page is written once all are there.

    Args:
      names: of the sections, see `contents.choose`.
      command: that makes this page; it stands at its end.
      must_have: of these sections, those that may not be left out.
      on_begin, on_end: are told of each section.

    Raises:
      InputError: for a section of `must_have` that says nothing of this model or these images.
    """
    results = []
    for name in names:
        on_begin(name)
        result = make(subject, name, folder)
        if result.left_out and name in must_have:
            raise InputError(f"section {name!r} cannot be made: {result.left_out}")
        on_end(result)
        results.append(result)
    text = page.render(subject, results, folder, command=command)
    # Of a flag or folder that is no UTF-8, marks are written in place of its bytes.
    (folder / PAGE).write_bytes(text.encode(errors="replace"))
    write_json(folder / NUMBERS, numbers(results))
    return results


def make(subject: Subject, name: str, folder: Path) -> Result:
    section = SECTIONS[name]
    try:
        return Result(name, section, section.make(subject, folder))
    except (LeftOut, InputError) as reason:  # the library's own sentences say why, too
        return Result(name, section, left_out=_sentence(str(reason)))


def numbers(results: Sequence[Result]) -> dict[str, list[dict[str, Any]]]:
    """The tables, by section: a dictionary for each row, with numbers as they were found."""
    tables = {r.name: r.found.table for r in results if r.found and r.found.table}
    return {
        name: [
            {column.name: plain(cell) for column, cell in zip(table.columns, row, strict=True)}
            for row in table.rows
        ]
        for name, table in tables.items()
    }


def plain(cell: Any) -> Any:
    """As JSON knows it: of what is not a number, null."""
    if isinstance(cell, Measured):
        cell = cell._asdict()
    if isinstance(cell, Mapping):
        return {name: plain(value) for name, value in cell.items()}
    if cell is None or isinstance(cell, str):
        return cell
    return float(cell) if np.isfinite(cell) else None


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
