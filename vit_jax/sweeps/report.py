"""The report of a sweep, finished or not.

SWEEP/report/report.md      for people, see `report_text`
SWEEP/report/report.csv     a line a trial, see `report_data`
SWEEP/report/report.json    everything, for programs
SWEEP/report/*.png          see `report_figures`

The same trials give the same report, in whatever order they ran.
"""

from collections.abc import Sequence
from pathlib import Path

from vit_jax.errors import InputError
from vit_jax.sweeps import costs, report_data, report_text
from vit_jax.sweeps import deviations as deviations_
from vit_jax.sweeps.drawing import PIXELS_AN_INCH, Drawn, Picture
from vit_jax.sweeps.findings import Findings, gather
from vit_jax.sweeps.folder import SweepFolder
from vit_jax.sweeps.report_figures import PICTURES
from vit_jax.workdir import check_writable


def write(
    folder: SweepFolder, *, out: Path | None = None, deviations: Sequence[str] = ()
) -> list[Path]:
    """Writes the report, into SWEEP/report by default, and returns its files.

    Args:
      deviations: in what the sweep differs from the protocol it follows, a sentence each; told
        before those that can be seen.

    Raises:
      InputError: where the folder holds no trials, or `out` cannot be written.
    """
    findings = gather(folder)
    if not findings.records:
        raise InputError(f"{folder.path} holds no trials; allowed: the workdir of a sweep.")
    out = folder.path / "report" if out is None else Path(out)
    check_writable(out)
    pictures = [draw(findings, picture, out) for picture in PICTURES]
    told = [*deviations, *deviations_.found(findings)]
    cost = costs.total(findings.records)
    what = dict(cost=cost, deviations=told, pictures=pictures)
    files = {
        out / "report.md": report_text.markdown(findings, **what),
        out / "report.csv": report_data.csv_text(findings),
        out / "report.json": report_data.json_text(findings, **what),
    }
    for path, text in files.items():
        replace(path, text)
    return [*files, *(out / page for picture in pictures for page in picture.pages)]


def draw(findings: Findings, kind: Picture, out: Path) -> Drawn:
    """Draws a picture's pages, and takes those of an earlier report away that it has no more."""
    drawing = kind.draw(findings)
    numbers = range(1, len(drawing.pages) + 1)
    names = [f"{kind.file}.png" if i == 1 else f"{kind.file}-{i}.png" for i in numbers]
    for name, figure in zip(names, drawing.pages, strict=True):
        figure.savefig(out / name, dpi=PIXELS_AN_INCH)
    for old in (out / f"{kind.file}.png", *out.glob(f"{kind.file}-[0-9]*.png")):
        if old.name not in names:
            old.unlink(missing_ok=True)
    return Drawn(kind.title, names, drawing.note, drawing.why_not, drawing.numbers)


def replace(path: Path, text: str) -> None:
    """Writes the file at once: a reader sees the old one or the new one."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text)
    temporary.replace(path)
