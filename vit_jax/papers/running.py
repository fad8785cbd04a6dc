"""A table from its file to its answer: run what is not finished, measure, judge, write.

SWEEP/table.md      paper | ours | difference | verdict, and how it was measured
SWEEP/table.json    the same as data, with each seed's value
SWEEP/table.png     the same as a picture
SWEEP/pictures/     what the table draws of its runs
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from vit_jax.papers import drawing, markdown, measuring
from vit_jax.papers.loading import TableFile
from vit_jax.papers.outcome import outcome_of
from vit_jax.papers.trials import distinct, trials_of
from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.running import EXIT_FAILED_TRIALS
from vit_jax.sweeps.trials import Trial
from vit_jax.train.preemption import EXIT_PREEMPTED
from vit_jax.workdir import check_writable, replace_json, replace_text

# Runs the trials that are not finished, and returns the exit code.
Run = Callable[[Sequence[Trial], SweepFolder], int]


def run_table(
    file: TableFile,
    *,
    scale: str,
    workdir: str | Path,
    run: Run,
    out: str | Path | None = None,
    console: Console | None = None,
) -> int:
    """Answers a table's question at a scale; the exit code of its runs.

    Args:
      file: see `loading.load_table`.
      workdir: of the sweep.
      run: what runs trials, `sweeps.queue` or a cluster.
      out: a folder that gets the results, too, as TABLE.SCALE.md and so on.
    """
    console = console or Console()
    runs = trials_of(file, file.scale(scale))
    sweep = SweepFolder.at(workdir)
    check_writable(sweep.path)
    if out is not None:
        check_writable(Path(out))
    code = run(distinct(runs), sweep) if runs else 0
    if code == EXIT_PREEMPTED:  # measuring takes long, and the same command continues
        return code
    outcome = finish(file, scale, sweep=sweep, out=out, console=console)
    return code or (EXIT_FAILED_TRIALS if outcome["problems"] else 0)


def finish(
    file: TableFile, scale: str, *, sweep: SweepFolder, out: str | Path | None, console: Console
) -> dict[str, Any]:
    """Measures what has finished, and writes what is known so far."""
    runs = trials_of(file, file.scale(scale))
    problems = measuring.measure_runs(file.scale(scale), runs, sweep, console)
    states = [sweep.trial(trial.name).state() for trial in distinct(runs)]
    pictures: list[Path] = []
    if State.FINISHED in states:
        pictures, not_drawn = draw_pictures(file, sweep)
        problems += not_drawn
    outcome = {**outcome_of(file, scale, runs, sweep), "problems": problems}
    write(outcome, sweep.path, "table", pictures, subfolder="pictures/")
    if out is not None:
        stem = f"{file.table.name}.{scale}"
        copies = [shutil.copy(p, Path(out) / f"{stem}.{p.name}") for p in pictures]
        write(outcome, Path(out), stem, [Path(copy) for copy in copies])
    text = markdown.render(outcome)
    console.print(text, highlight=False, markup=False, soft_wrap=True)
    return outcome


def draw_pictures(file: TableFile, sweep: SweepFolder) -> tuple[list[Path], list[str]]:
    """What the table draws of its runs: the files, by name, and what could not be drawn."""
    folder = sweep.path / "pictures"
    if not file.table.pictures:
        return [], []
    folder.mkdir(parents=True, exist_ok=True)
    errors = [
        (picture.__name__, measuring.attempt(picture, sweep.path, folder)[1])
        for picture in file.table.pictures
    ]
    problems = [f"{name} could not be drawn: {why}" for name, why in errors if why]
    return sorted(path for path in folder.iterdir() if path.suffix == ".png"), problems


def write(
    outcome: dict[str, Any],
    folder: Path,
    stem: str,
    pictures: Sequence[Path],
    *,
    subfolder: str = "",
) -> None:
    """STEM.json, STEM.md and, where there is anything to draw, STEM.png."""
    replace_json(folder / f"{stem}.json", outcome)
    drawn = drawing.draw(outcome, folder / f"{stem}.png")
    names = [f"{subfolder}{picture.name}" for picture in pictures]
    text = markdown.render(outcome, picture=f"{stem}.png" if drawn else None, others=names)
    replace_text(folder / f"{stem}.md", text)
