"""The page: one HTML file that holds its pictures, and asks nothing of any other place.

It has no script, so it says the same to every reader; it is laid out for a telephone first.
"""

import base64
import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from PIL import Image

from vit_jax.explain.section import Found, Picture, Result, Table
from vit_jax.explain.subject import Subject

DENSITY = 1.6  # pixels of a picture to one of the page, for sharp lines on telephones
NARROWEST = 620  # of the page's pixels, below which a large picture is scrolled, not shrunk

STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 54rem; background: #fff; color: #1d1d1f;
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0.5rem 0; }
h2 { font-size: 1.2rem; margin: 0 0 0.4rem; }
p { margin: 0.4rem 0; }
a { color: #0b57d0; }
nav ul { padding: 0; margin: 0.8rem 0; list-style: none; display: flex; flex-wrap: wrap;
  gap: 0.3rem 1rem; }
section { border-top: 1px solid #d2d2d7; padding: 1.2rem 0; }
figure { margin: 0.8rem 0; overflow-x: auto; }
img { display: block; width: 100%; height: auto; }
.source, .note, figcaption, footer { color: #56565b; font-size: 0.9rem; }
.left-out { background: #f5f5f7; border-radius: 0.5rem; padding: 0.6rem 0.8rem; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.2rem 0.9rem 0.2rem 0; border-bottom: 1px solid #ececf0;
  vertical-align: top; overflow-wrap: normal; }
code { font-size: 0.85rem; }
""".strip()


def render(subject: Subject, results: Sequence[Result], folder: Path, *, command: str) -> str:
    """The whole page; its pictures are read from the folder."""
    title = f"Inside {subject.name}"
    links = (f'<li><a href="#{r.name}">{html.escape(r.section.title)}</a></li>' for r in results)
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        f"<head><meta charset='utf-8'><title>{html.escape(title)}</title>",
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>\n{STYLE}\n</style></head>",
        f"<body>\n<h1>{html.escape(title)}</h1>",
        *(f"<p>{html.escape(line)}</p>" for line in facts(subject)),
        f"<nav><ul>{''.join(links)}</ul></nav>",
        *(_section(result, folder) for result in results),
        f"<footer><p>Made by <code>{html.escape(command)}</code></p></footer>",
        "</body>\n</html>",
    ]
    return "\n".join(parts) + "\n"


def facts(subject: Subject) -> list[str]:
    """What is looked at, in sentences."""
    restored, model = subject.restored, subject.model
    count = sum(x.size for x in jax.tree.leaves(restored.variables["params"]))
    info = restored.learner.info
    size = "×".join(map(str, info.preprocessing.image_size))
    step = int(restored.state.step)
    trained = f" after step {step:,}" if step else ""
    lines = [f"{type(model).__name__} of {count:,} parameters{trained}, images of {size} pixels."]
    lines.append(f"{len(subject.shown.images)} images of {subject.examples.origin} are shown.")
    if subject.targets is not None:
        which = "its predicted class"
        if subject.target is not None:
            which = f"the class {subject.class_names[subject.target]}"
        lines[-1] += f" Where one class is explained, it is of each image {which}."
    return lines


def _section(result: Result, folder: Path) -> str:
    section = result.section
    told = f"<p>{html.escape(section.shows)} {html.escape(section.read)}</p>"
    if result.left_out:
        body = f'<p class="left-out">Left out. {html.escape(result.left_out)}</p>'
    else:
        body = "\n".join(_body(result.found, folder))
    return (
        f'<section id="{result.name}">\n<h2>{html.escape(section.title)}</h2>\n{told}\n'
        f'<p class="source">{html.escape(section.source)}</p>\n{body}\n</section>'
    )


def _body(found: Found, folder: Path) -> Iterable[str]:
    yield from (_figure(picture, folder) for picture in found.pictures)
    if found.note:
        yield f'<p class="note">{html.escape(found.note)}</p>'
    if found.table:
        yield _table(found.table)


def _figure(picture: Picture, folder: Path) -> str:
    content = (folder / picture.file).read_bytes()
    with Image.open(folder / picture.file) as image:
        width, height = image.size
    data, alt = base64.b64encode(content).decode(), html.escape(picture.caption)
    natural = round(width / DENSITY)
    style = f"max-width:{natural}px;min-width:{min(natural, NARROWEST)}px"
    if natural <= NARROWEST:  # as wide as a telephone or shrunk a little
        style = f"max-width:{natural}px"
    return (
        f'<figure><img alt="{alt}" width="{width}" height="{height}" style="{style}" '
        f'src="data:image/png;base64,{data}"><figcaption>{alt} ({picture.file})</figcaption>'
        "</figure>"
    )


def _table(table: Table) -> str:
    def row(cells, tag):
        return f"<tr>{''.join(f'<{tag}>{html.escape(c)}</{tag}>' for c in cells)}</tr>"

    forms = [column.form for column in table.columns]
    rows = "".join(row(map(formatted, cells, forms), "td") for cells in table.rows)
    names = row((column.name for column in table.columns), "th")
    return f'<div class="table"><table>{names}{rows}</table></div>'


def formatted(cell: Any, form: str) -> str:
    if cell is None or isinstance(cell, str):
        return cell or "–"
    if isinstance(cell, Mapping):
        return ", ".join(f"{name} {value:{form}}" for name, value in cell.items())
    return format(cell, form)
