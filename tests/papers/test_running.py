"""From a table's file and its finished runs to the files that tell the answer."""

import io
import json

import numpy as np
import pytest
from finished_tables import finish_run, finished_sweep, write_table
from PIL import Image
from rich.console import Console

from vit_jax.errors import InputError
from vit_jax.papers import loading, running, trials
from vit_jax.sweeps.folder import SweepFolder
from vit_jax.workdir import read_json, write_json

SILENT = Console(quiet=True)
VALUES = {
    "base": (0.1, 0.1, 0.1),
    "ViT-B/16": (0.800, 0.801, 0.802),
    "other one": (0.700, 0.701, 0.702),
}
ROWS = ("ViT-B/16", "other one", "like other", "huge")


def finish(table, sweep, out=None):
    return running.finish(table, "small", sweep=sweep, out=out, console=SILENT)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """(outcome, folder of the sweep, folder of the results) of a table whose runs are finished."""
    folder = tmp_path_factory.mktemp("answered")
    table, _, sweep = finished_sweep(folder / "sweep", write_table(folder), VALUES)
    out = folder / "results"
    out.mkdir()
    return finish(table, sweep, out), sweep.path, out


def column(outcome, name):
    cells = next(c["cells"] for c in outcome["columns"] if c["name"] == name)
    return {cell["row"]: cell for cell in cells}


def test_cells_hold_means_of_seeds_in_the_papers_unit(answered):
    outcome, _, _ = answered
    cells = column(outcome, "top-1")
    assert tuple(cells) == ROWS  # what others only begin from is not shown
    vit = cells["ViT-B/16"]
    assert vit["n"] == 3 and vit["mean"] == pytest.approx(80.1) and vit["verdict"] == "agrees"
    assert vit["difference"] == pytest.approx(0.1)
    assert vit["std"] == pytest.approx(0.1)
    # The paper's number of another protocol is for reference alone.
    other = cells["other one"]
    assert (other["paper"], other["is_same_protocol"], other["verdict"]) == (90, False, "")
    assert other["difference"] is None
    assert cells["huge"]["n"] == 0 and cells["huge"]["kind"] == "analytic-only"
    counted = column(outcome, "batch")
    assert [counted[row]["mean"] for row in ROWS] == [16, 32, 32, 16]
    assert counted["huge"]["verdict"] == "agrees"


def test_claims_are_judged(answered):
    outcome, _, _ = answered
    assert [claim["verdict"] for claim in outcome["claims"]] == ["reproduced", "reproduced"]
    assert outcome["runs"] == {"trials": 9, "finished": 9, "seconds": 540.0}


@pytest.mark.parametrize("where", [1, 2])
def test_files_open_and_have_every_row(answered, where):
    outcome, folder = answered[0], answered[where]
    stem = "table" if where == 1 else "toy.small"
    assert json.loads((folder / f"{stem}.json").read_text()) == json.loads(json.dumps(outcome))
    text = (folder / f"{stem}.md").read_text()
    for row in ROWS:
        assert text.count(f"\n| {row} |") == 3  # in the table of each column
    for told in ("--scale=small", "jax 0.10.2", "1 x cpu", "a toy", "9 of 9", f"]({stem}.png)"):
        assert told in text
    assert "| 80.00 | 80.10 ± 0.10 (n = 3) | +0.10 | agrees within ± 0.5 |" in text
    assert "| (90.00) | 70.10 ± 0.10 (n = 3) | – | – |" in text
    assert "**reproduced**: one beats other" in text
    pixels = np.asarray(Image.open(folder / f"{stem}.png").convert("L"))
    assert (pixels < 200).mean() > 0.01  # no empty picture


def test_settings_that_are_not_the_full_scales_are_told(answered):
    found = "\n".join(answered[0]["deviations"])
    assert "data.batch_size: 16 | 32; full: 4096" in found
    assert "learning_rate" not in found and "missing" not in found


def test_what_is_missing_is_told_and_decides_nothing(tmp_path):
    values = VALUES | {"ViT-B/16": (0.8,)}
    table, runs, sweep = finished_sweep(tmp_path / "sweep", write_table(tmp_path), values)
    failed = sweep.add(runs["ViT-B/16", 1])
    write_json(failed.failed, {"reason": "out of memory"})
    outcome = finish(table, sweep)
    assert outcome["claims"][0]["verdict"] == "undecided"
    assert column(outcome, "top-1")["ViT-B/16"]["verdict"] == "undecided"
    text = (sweep.path / "table.md").read_text()
    assert "ViT-B/16: 2 of 3 seeds are missing: 1 failed, 2 waiting" in text
    assert "undecided: one seed" in text and "7 of 9 runs finished" in text
    finish_run(sweep, runs["ViT-B/16", 2], {"test/top1": 0.8})
    assert finish(table, sweep)["claims"][0]["verdict"] == "undecided"


def test_nothing_has_run_yet(tmp_path):
    file = write_table(tmp_path)
    table, sweep = loading.load_table(file), SweepFolder.at(tmp_path / "sweep")
    sweep.trials.mkdir(parents=True)
    outcome = finish(table, sweep)
    assert [claim["verdict"] for claim in outcome["claims"]] == ["undecided", "undecided"]
    assert "not run" in (sweep.path / "table.md").read_text()


def test_runs_of_another_config_or_machine_are_told(tmp_path):
    table, runs, sweep = finished_sweep(tmp_path / "sweep", write_table(tmp_path), VALUES)
    folder = sweep.trial(runs["other one", 0].name).workdir
    config = read_json(folder.config)
    config["optimizer"]["learning_rate"] = 0.5
    write_json(folder.config, config)
    write_json(folder.run, {"devices": "8 x H100", "versions": {"jax": "0.11.0"}})
    found = finish(table, sweep)["deviations"]
    assert any("other_one,seed=0 was run with another config" in text for text in found)
    assert any("0.5 there, 0.001 now" in text for text in found)
    assert "runs had different devices: 1 x cpu | 8 x H100" in found
    assert any(text.startswith("runs had different jax: 0.10.2 | 0.11.0") for text in found)


def test_a_metric_that_no_run_has_is_told(tmp_path):
    file = write_table(tmp_path, ('metric="test/top1"', 'metric="test/top5"'))
    table, _, sweep = finished_sweep(tmp_path / "sweep", file, VALUES)
    outcome = finish(table, sweep)
    assert "other_one,seed=0 has no test/top5, but test/top1" in outcome["deviations"]
    assert column(outcome, "top-1")["other one"]["mean"] is None


def test_a_metric_that_no_run_evaluates_is_refused_before_anything_runs(tmp_path):
    file = loading.load_table(write_table(tmp_path, ('metric="test/top1"', 'metric="val/top1"')))
    with pytest.raises(InputError, match="'val/top1', but its config evaluates test; allowed"):
        trials.trials_of(file, file.scale("small"))


def test_a_value_that_is_not_finite_leaves_a_claim_undecided(tmp_path):
    values = VALUES | {"other one": (0.7, 0.701, float("nan"))}
    table, _, sweep = finished_sweep(tmp_path / "sweep", write_table(tmp_path), values)
    outcome = finish(table, sweep)
    assert {claim["verdict"] for claim in outcome["claims"]} == {"undecided"}
    assert (
        "other_one,seed=2 has nan as its test/top1, which does not count" in outcome["deviations"]
    )


def test_a_claim_about_rows_that_share_a_run_is_refused(tmp_path):
    change = ('rows=["ViT-B/16", "other one"]', 'rows=["like other", "other one"]')
    file = loading.load_table(write_table(tmp_path, change))
    with pytest.raises(InputError, match="'they tie' compares rows that share the run 'other_one"):
        trials.trials_of(file, file.scale("small"))


CHOICE = """
        choices=[Choice(name="best", rows=["other one", "ViT-B/16"], by="top-1")],
        deviations=["a toy"],"""


def test_a_claim_may_be_about_the_best_of_several_rows(tmp_path):
    changes = [
        ('deviations=["a toy"],', CHOICE),
        ('first=["ViT-B/16"]', 'first=["best"]'),
        ('than=["other one"]', 'than=["third"]'),
        (
            '        Row(name="huge"',
            '        Row(name="third", config="configs/c.py:64", seeds=(0, 1, 2)),\n'
            '        Row(name="huge"',
        ),
    ]
    values = VALUES | {"third": (0.5, 0.501, 0.502)}
    file = write_table(tmp_path, *changes)
    table, _, sweep = finished_sweep(tmp_path / "sweep", file, values)
    outcome = finish(table, sweep)
    assert [choice["chosen"] for choice in outcome["choices"]] == ["ViT-B/16"]
    pair = outcome["claims"][0]["pairs"][0]
    assert (pair["first"], pair["second"], pair["verdict"]) == ("best", "third", "reproduced")
    assert pair["interval"]["estimate"] == pytest.approx(30, abs=0.2)
    assert "- best, chosen by top-1: ViT-B/16" in (sweep.path / "table.md").read_text()
    # Until each of the rows has all its seeds, the best is not known.
    (tmp_path / "later").mkdir()
    values = values | {"other one": (0.7,)}
    table, _, sweep = finished_sweep(tmp_path / "later" / "sweep", file, values)
    outcome = finish(table, sweep)
    assert outcome["choices"][0]["chosen"] is None
    assert outcome["claims"][0]["verdict"] == "undecided"


def test_each_run_is_measured_once(tmp_path):
    count = "    with open(workdir.parent / 'count', 'a') as f: f.write('x')\n    return 0.5"
    file = write_table(tmp_path, ("    return 0.5", count))
    table, runs, sweep = finished_sweep(tmp_path / "sweep", file, VALUES)
    for _ in range(2):
        finish(table, sweep)
    # Rows that share a run share its measure, and what is not shown is not measured.
    assert (sweep.trials / "count").read_text() == "x" * 6
    assert read_json(sweep.trial(runs["like other", 1].name).measured) == {"half": 0.5}


def test_running_is_asked_for_every_trial_and_tells_the_exit_code(tmp_path):
    def run(wanted, sweep):
        for trial in wanted:
            finish_run(sweep, trial, {"test/top1": 0.5})
        return 7

    def draw(old):
        return f"{old} pictures=[draw],"

    picture = "def draw(sweep, folder): (folder / 'seen.png').write_bytes(b'x')\n\ndef get_table"
    changes = (("def get_table", picture), ('name="toy",', draw('name="toy",')))
    file = write_table(tmp_path, *changes)
    code = running.run_table(
        loading.load_table(file),
        scale="small",
        workdir=tmp_path / "s",
        run=run,
        out=tmp_path / "out",
        console=SILENT,
    )
    assert code == 7
    assert (tmp_path / "s" / "pictures" / "seen.png").is_file()
    assert (tmp_path / "out" / "toy.small.seen.png").read_bytes() == b"x"
    assert "](pictures/seen.png)" in (tmp_path / "s" / "table.md").read_text()
    assert "](toy.small.seen.png)" in (tmp_path / "out" / "toy.small.md").read_text()


def test_markdown_on_the_console_is_the_files(tmp_path):
    table, _, sweep = finished_sweep(tmp_path / "sweep", write_table(tmp_path), VALUES)
    seen = io.StringIO()
    running.finish(table, "small", sweep=sweep, out=None, console=Console(file=seen, width=40))
    assert "| other one | (90.00) | 70.10 ± 0.10 (n = 3) | – | – |" in seen.getvalue()


def test_trial_folders_resolve_what_a_row_begins_from(tmp_path):
    table, runs, sweep = finished_sweep(tmp_path / "sweep", write_table(tmp_path), VALUES)
    stored = read_json(sweep.trial(runs["ViT-B/16", 1].name).trial)
    assert stored["config"]["init"]["source"] == str(sweep.trials / "base,seed=1")
    assert trials.trials_of(table, table.scale("small")).keys() == runs.keys()


def test_a_mistake_in_one_column_or_picture_costs_no_other(tmp_path):
    changes = [
        ("    return 0.5", "    return {}['nothing']"),
        (
            'scales={"full": full, "small": small},',
            'scales={"full": full, "small": small}, pictures=[lambda sweep, folder: 1 / 0],',
        ),
    ]
    file = write_table(tmp_path, *changes)
    table, _, sweep = finished_sweep(tmp_path / "sweep", file, VALUES)
    outcome = finish(table, sweep)
    assert column(outcome, "top-1")["other one"]["mean"] == pytest.approx(70.1)
    assert len(outcome["problems"]) == 7  # six runs that are shown, and a picture
    text = (sweep.path / "table.md").read_text()
    assert "other_one,seed=0: half could not be measured: KeyError: 'nothing'" in text
    assert "<lambda> could not be drawn: ZeroDivisionError" in text
    run = lambda trials, folder: 0  # noqa: E731
    arguments = dict(scale="small", workdir=sweep.path, run=run, console=SILENT)
    assert running.run_table(table, **arguments) == 1
