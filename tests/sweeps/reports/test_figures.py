"""Pictures of sweeps show data in every panel and text that can be read, or are left out."""

import json

import pytest
import synthetic_sweeps as synthetic
from figure_checks import check, data_points
from matplotlib.figure import Figure

from vit_jax.sweeps.folder import State
from vit_jax.sweeps.reports import figures
from vit_jax.sweeps.reports.figures import PICTURES
from vit_jax.sweeps.reports.findings import gather


def many_long_names(path):
    """105 trials, 16 settings with long names, each in two thirds of the trials."""
    folder = synthetic.new_sweep(path)
    for i in range(105):
        changed = {
            f"task.model.a_setting_whose_name_is_rather_long_{k}": (i * (k + 3)) % 7 * 10.0**k
            for k in range(16)
            if (i + k) % 3
        }
        changed["data.source"] = f"folder:some/where/far/away/with/a/long/path/{i % 15}"
        value = 0.4 + 0.004 * i
        synthetic.add(folder, {**changed, "train.seed": i % 3}, value, steps=(100,))
    return folder


def exploded(path):
    """A loss that spans decades, and one trial that left them all."""
    folder = synthetic.new_sweep(path, metric="test/loss")
    for i, loss in enumerate((0.011, 0.3, 2.3, 2e6)):
        for seed in (0, 1):
            changed = {"optimizer.weight_decay": (0, 1e-4, 1e-3, 1e-1)[i], "train.seed": seed}
            synthetic.add(folder, changed, 1 - loss * (1 + 0.1 * seed))
    return folder


def unfinished_single(path):
    """Only a log of one step."""
    folder = synthetic.new_sweep(path)
    name = synthetic.add(folder, {"train.seed": 1}, state=State.INTERRUPTED)
    folder.trial(name).workdir.metrics.write_text('{"step": 10, "train/loss": 2.0}\n')
    return folder


CASES = {
    synthetic.grid_with_seeds: {"curves": 1, "seeds": 1, "parallel": 1, "slices": 1},
    synthetic.random_search: dict(curves=1, seeds=1, parallel=1, slices=2, importance=1),
    synthetic.one_trial: {"curves": 1},
    synthetic.unfinished: {"curves": 1},
    many_long_names: {"curves": 1, "seeds": 1, "parallel": 1, "slices": 4},
    exploded: {"curves": 1, "seeds": 1, "slices": 1},
    unfinished_single: {},
}


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_every_page_can_be_read_and_none_is_empty(make, tmp_path):
    findings, pages = gather(make(tmp_path / "sweep")), {}
    for picture in PICTURES:
        drawing = picture.draw(findings)
        assert bool(drawing.pages) != bool(drawing.why_not), picture.file
        pages |= {picture.file: len(drawing.pages)} if drawing.pages else {}
        for page in drawing.pages:
            check(page)
    assert pages == CASES[make]


def test_the_checks_see_what_they_forbid():
    figure = Figure(layout="constrained")
    axes = figure.add_subplot()
    axes.plot([float("nan")], [1.0])
    with pytest.raises(AssertionError, match="empty"):
        check(figure)
    axes.plot([0, 1], [0, 1])
    check(figure)
    axes.text(0.5, 0.5, "one")
    axes.text(0.5, 0.5, "other")
    with pytest.raises(AssertionError, match="lies on"):
        check(figure)


def test_curves_have_a_line_a_trial_and_a_thick_mean_of_those_that_count(tmp_path):
    findings = gather(synthetic.grid_with_seeds(tmp_path / "sweep"))
    (figure,) = figures.curves(findings).pages
    for axes, name in zip(figure.axes, ("test/top1", "train/loss"), strict=True):
        thick = [line for line in axes.lines if line.get_linewidth() > 2]
        thin = [line for line in axes.lines if line.get_linewidth() < 1]
        assert len(thick) == 6
        assert len(thin) == 17  # of 18 trials one failed before its first step
        assert [line.get_linestyle() for line in thin].count(":") == 1
        assert axes.get_title() == name
        best = max(thick, key=lambda line: line.get_zorder() and axes.lines.index(line))
        (trial,) = findings.groups[0].counted
        assert list(zip(*best.get_data(), strict=True)) == figures.series(trial, name)


def test_where_the_metric_was_evaluated_once_another_evaluation_has_the_curve(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep")
    name = synthetic.add(folder, {}, steps=(100,))
    assert figures.curve_names(gather(folder)) == ["train/loss"]
    (drawing,) = (picture.draw(gather(folder)) for picture in PICTURES if picture.file == "curves")
    assert "`test/top1` was evaluated once" in drawing.note
    rows = [{"step": step, "validation/top1": 0.1} for step in (50, 100)]
    path = folder.trial(name).workdir.metrics
    path.write_text(path.read_text() + "".join(json.dumps(row) + "\n" for row in rows))
    assert figures.curve_names(gather(folder)) == ["validation/top1", "train/loss"]


def test_the_mean_is_over_steps_that_all_seeds_have(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep")
    for seed, steps in enumerate([(20, 40, 100), (40, 100)]):
        synthetic.add(folder, {"train.seed": seed}, 0.5 + seed / 4, steps=steps)
    (group,) = gather(folder).groups
    found = figures.mean_series(group.counted, "test/top1")
    assert [step for step, _ in found] == [40, 100]
    assert found[-1][1] == pytest.approx(0.625)


def test_seeds_show_every_value_that_counts_and_nothing_else(tmp_path):
    findings = gather(synthetic.grid_with_seeds(tmp_path / "sweep"))
    (figure,) = figures.seeds(findings).pages
    points = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    drawn = [tuple(line.get_xdata()) for line in points]
    assert drawn == [group.values for group in findings.groups]
    assert data_points(figure.axes[0]) >= 16
