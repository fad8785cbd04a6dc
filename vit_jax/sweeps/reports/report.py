"""The report of a sweep, finished or not.

SWEEP/report/report.md      for people, see `text`
SWEEP/report/report.csv     a line a trial, see `data`
SWEEP/report/report.json    everything, for programs
SWEEP/report/*.png          see `figures`

The same trials give the same report, in whatever order they ran.
"""

from pathlib import Path

from vit_jax.errors import InputError
from vit_jax.sweeps.folder import SweepFolder
from vit_jax.sweeps.reports import costs, data, deviations, text
from vit_jax.sweeps.reports.drawing import PIXELS_AN_INCH, Drawing, Drawn, Picture
from vit_jax.sweeps.reports.figures import PICTURES
from vit_jax.sweeps.reports.findings import Findings, gather
from vit_jax.workdir import check_writable, replace_text


def write(folder: SweepFolder, *, metric: str | None = None) -> list[Path]:
    """Writes the report into SWEEP/report, and returns its files; `metric` is for the sweep's own.

    Raises:
      InputError: where the folder holds no trials, or the report cannot be written.
    """
    findings = gather(folder, metric=metric)
    if not findings.records:
        raise InputError(f"{folder.path} holds no trials; allowed: the workdir of a sweep.")
    out = folder.path / "report"
    check_writable(out)
    pictures = [draw(findings, picture, out) for picture in PICTURES]
    cost = costs.total(findings.records)
    what = dict(cost=cost, deviations=deviations.found(findings), pictures=pictures)
    files = {
        out / "report.md": text.markdown(findings, **what),
        out / "report.csv": data.csv_text(findings),
        out / "report.json": data.json_text(findings, **what),
    }
    for path, content in files.items():
        replace_text(path, content)
    return [*files, *(out / page for picture in pictures for page in picture.pages)]


def draw(findings: Findings, kind: Picture, out: Path) -> Drawn:
    """Draws a picture's pages, and takes those of an earlier report away that it has no more."""
    try:
        drawing = kind.draw(findings)
    except Exception as error:  # one picture is not worth the numbers
        drawing = Drawing(why_not=f"it could not be drawn ({type(error).__name__}: {error})")
    numbers = range(1, len(drawing.pages) + 1)
    names = [f"{kind.file}.png" if i == 1 else f"{kind.file}-{i}.png" for i in numbers]
    for name, figure in zip(names, drawing.pages, strict=True):
        figure.savefig(out / name, dpi=PIXELS_AN_INCH)
    for old in (out / f"{kind.file}.png", *out.glob(f"{kind.file}-[0-9]*.png")):
        if old.name not in names:
            old.unlink(missing_ok=True)
    return Drawn(kind.title, names, drawing.note, drawing.why_not, drawing.numbers)
