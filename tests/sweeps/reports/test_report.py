"""Report files open, tell what the records hold, and name no picture that is not there."""

import csv
import json
import re

import numpy as np
import pytest
import synthetic_sweeps as synthetic
from PIL import Image

from vit_jax.errors import InputError
from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.reports import deviations, report
from vit_jax.sweeps.reports.data import cell, parse_cell
from vit_jax.sweeps.reports.drawing import Picture
from vit_jax.sweeps.reports.findings import gather
from vit_jax.sweeps.statistics import Summary, difference

WIDEST = 100  # characters of a row of a table: two lines of a phone


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sweep with its report."""
    folder = synthetic.grid_with_seeds(tmp_path_factory.mktemp("sweeps") / "grid")
    measured = folder.trial("learning_rate=0.001,weight_decay=0.1,seed=0").measured
    measured.write_text('{"attention distance": 3.5}')
    files = report.write(folder)
    assert sorted(files) == sorted((folder.path / "report").iterdir())
    return folder


def read(folder, name):
    return (folder.path / "report" / name).read_text()


def check_pictures(folder):
    """Every picture is linked, and every link is a picture with something on it."""
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", read(folder, "report.md"))
    files = sorted(path.name for path in (folder.path / "report").glob("*.png"))
    assert sorted(links) == files
    for name in files:
        image = Image.open(folder.path / "report" / name)
        assert image.format == "PNG" and np.asarray(image.convert("L")).std() > 5
    told = json.loads(read(folder, "report.json"))["pictures"]
    assert sorted(page for picture in told for page in picture["pages"]) == files
    return {picture["title"]: picture["why_not"] for picture in told}


def test_pictures_are_linked_and_not_empty(folder):
    why_not = check_pictures(folder)
    assert {title for title, why in why_not.items() if why} == {"Importance"}
    assert f"Importance: left out, since {why_not['Importance']}." in read(folder, "report.md")


def test_csv_has_a_line_a_trial_with_all_that_its_record_holds(folder):
    rows = {row["name"]: row for row in csv.DictReader(read(folder, "report.csv").splitlines())}
    records = folder.records()
    assert rows.keys() == {record.name for record in records}
    for record in records:
        row = {name: parse_cell(text) for name, text in rows[record.name].items()}
        known = {**record.overrides, **record.metrics}
        known |= {f"measured/{name}": value for name, value in record.measured.items()}
        for name, value in known.items():
            assert row.pop(name) == value
        assert row.pop("state") == record.state and row.pop("seed") == record.seed
        assert folder.path / row.pop("workdir") == record.workdir.path
        assert row.pop("reason") == record.reason
        assert row.pop("attempts") == sum(a["event"] == "start" for a in record.attempts)
        left = {name for name, value in row.items() if value is not None}
        assert left <= {"name", "group", "seconds", "device_hours"}


@pytest.mark.parametrize(
    "value",
    [0.1, 3, True, None, "", "text", "3", "null", 'a "b", c', "two\nlines", [1, 2], {"a": [None]}],
)
def test_a_cell_keeps_its_value_and_type(value):
    found = parse_cell(cell(value))
    assert found == value and type(found) is type(value)


def test_json_has_the_statistics_of_every_group(folder):
    found = json.loads(read(folder, "report.json"))
    assert (found["metric"], found["direction"]) == ("test/top1", "max")
    assert found["versions"]["jax"] == ["0.10.2"]
    by_name = {record.name: record for record in folder.records()}
    first = found["groups"][0]
    for group in found["groups"]:
        values = [by_name[name].metrics["test/top1"] for name in group["counted"]]
        summary = Summary.of(values)
        assert group["values"] == values and group["summary"] == vars(summary)
        interval = difference(values, first["values"]) if group is not first else None
        assert group["minus_best"] == (interval and vars(interval))
    trials = {trial["name"]: trial for trial in found["trials"]}
    assert trials.keys() == by_name.keys()
    for name, trial in trials.items():
        assert trial["is_counted"] == (by_name[name].state == State.FINISHED)


def test_markdown_tells_mean_spread_number_metric_cost_command_and_versions(folder):
    text = read(folder, "report.md")
    best = gather(folder).groups[1]  # of three seeds
    row = f"| 2 | `learning_rate=0.01, weight_decay=0` | {best.summary.mean:.3f} ± "
    assert row in text and re.search(re.escape(row) + r"0\.0\d\d \| 3 \|", text)
    for told in (
        "Metric: `test/top1` of the last evaluation, higher is better.",
        "18 trials: 1 interrupted, 16 finished, 1 failed.",
        "python -m vit_jax sweep --config=configs/digits.py",
        "jax 0.10.2",
        "19 attempts at 18 trials",
        "failed: non-finite loss | at step 3",
    ):
        assert told in text
    assert "/somewhere" not in text


def test_deviations_are_told_for_people_and_for_programs(folder):
    found = deviations.found(gather(folder))
    assert found and all(f"- {sentence}\n" in read(folder, "report.md") for sentence in found)
    assert json.loads(read(folder, "report.json"))["deviations"] == found


def test_tables_are_narrow_and_whole(tmp_path):
    """Also with names that are long, or that Markdown would read as a table's own."""
    folder = synthetic.new_sweep(tmp_path / "sweep")
    for i, value in enumerate(("a|b`c", "x" * 300, {"long": list(range(100))})):
        changed = {"data.source": value, "task.model." + "k" * 90: i}
        for seed in (0, 1):
            synthetic.add(folder, {**changed, "train.seed": seed}, 0.5 + 0.1 * i + 0.01 * seed)
    report.write(folder)
    rows = [line for line in read(folder, "report.md").splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3 + 2 + 2  # two tables with their heads: groups, differences
    assert all(len(row) <= WIDEST for row in rows)
    columns = [len(re.split(r"(?<!\\)\|", row)) - 2 for row in rows]
    assert columns == [4] * 5 + [3] * 4


def test_the_same_trials_give_the_same_report_in_whatever_order(folder, tmp_path):
    """But for what was measured on one of them."""
    other = synthetic.grid_with_seeds(tmp_path / "grid", order=-1)
    name = "learning_rate=0.001,weight_decay=0.1,seed=0"
    other.trial(name).measured.write_text(folder.trial(name).measured.read_text())
    report.write(other)
    for file in (folder.path / "report").iterdir():
        assert (other.path / "report" / file.name).read_bytes() == file.read_bytes(), file.name


def test_a_sweep_of_one_trial(tmp_path):
    folder = synthetic.one_trial(tmp_path / "sweep")
    report.write(folder)
    assert [title for title, why in check_pictures(folder).items() if not why] == [
        "Learning curves"
    ]
    (group,) = json.loads(read(folder, "report.json"))["groups"]
    assert group["summary"] == {"n": 1, "mean": 0.8125, "std": None, "standard_error": None}
    text = read(folder, "report.md")
    assert "Best: `learning_rate=0.003` with **0.8125** (n = 1)." in text
    assert "How sure" not in text and "None that can be seen" in text


def test_a_report_grows_with_its_sweep_and_keeps_no_old_picture(tmp_path):
    folder = synthetic.unfinished(tmp_path / "sweep")
    report.write(folder)
    assert "No trial counts yet" in read(folder, "report.md")
    check_pictures(folder)
    old = folder.path / "report" / "slices-7.png"
    old.write_bytes(b"of an earlier, larger report")
    own = folder.path / "report" / "notes.txt"
    own.write_text("a person's own file stays")
    for rate in (0.003, 0.01):
        synthetic.add(folder, {"optimizer.learning_rate": rate}, 10 * rate)
    report.write(folder)
    why_not = check_pictures(folder)
    assert not why_not["Slices"] and not why_not["Seeds"]
    assert own.is_file() and not old.exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_is_strict_where_a_metric_is_not_finite(value, tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep")
    synthetic.add(folder, {}, value)
    report.write(folder)

    def refuse(text):
        raise AssertionError(f"{text} is not JSON")

    found = json.loads(read(folder, "report.json"), parse_constant=refuse)
    assert found["trials"][0]["metrics"]["test/top1"] == str(value)
    assert found["groups"][0]["summary"] is None


def test_a_sweep_that_has_not_begun_knows_no_metric(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep", metric=None)
    synthetic.add(folder, {"optimizer.learning_rate": 0.1}, state=State.WAITING)
    report.write(folder)
    assert all(check_pictures(folder).values())
    assert "No metric is known yet." in read(folder, "report.md")
    found = json.loads(read(folder, "report.json"))
    assert found["metric"] is found["direction"] is None and found["cost"]["attempts"] == 0


def test_there_is_no_report_of_nothing(tmp_path):
    with pytest.raises(InputError, match="holds no trials"):
        report.write(SweepFolder.at(tmp_path))
    assert not list(tmp_path.iterdir())


def test_settings_of_trials_that_never_began_break_no_picture(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep")
    for i in range(3):
        changed = {"optimizer.learning_rate": 0.1 * i, "optimizer.weight_decay": 0.2 * i}
        synthetic.add(folder, changed, 0.5 + 0.1 * i)
    synthetic.add(folder, {"task.model.depth": 3}, state=State.WAITING)
    report.write(folder)
    assert not check_pictures(folder)["Parallel coordinates"]


def test_a_picture_that_fails_costs_no_numbers(tmp_path, monkeypatch):
    folder = synthetic.one_trial(tmp_path / "sweep")
    broken = Picture("curves", "Learning curves", lambda _: 1 / 0)
    monkeypatch.setattr(report, "PICTURES", (broken,))
    report.write(folder)
    why = check_pictures(folder)["Learning curves"]
    assert why.startswith("it could not be drawn (ZeroDivisionError")
    assert why in read(folder, "report.md") and read(folder, "report.csv")


def test_settings_that_differ_late_are_two(tmp_path):
    folder = synthetic.new_sweep(tmp_path / "sweep")
    for decay in (0.9999, 0.99999):
        synthetic.add(folder, {"train.ema_decay": decay}, decay)
    report.write(folder)
    assert "`ema_decay=0.9999`" in read(folder, "report.md")
    assert "`ema_decay=0.99999`" in read(folder, "report.md")
