"""`evaluate` and evaluations of a training: protocols by name, one pass, reports, and mistakes."""

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_calls import call
from helpers import tiny_config
from PIL import Image
from pretrained import CLASSES, SIZE, preprocessing, vit
from rich.console import Console

from vit_jax import experiment, weights
from vit_jax.commands import evaluate, measured
from vit_jax.data.pipeline import EvalData
from vit_jax.evaluation.protocol import Interval, Report
from vit_jax.train.checkpoint import Checkpointer

NUM_STEPS, METRIC = 12, "mean_class_accuracy"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run that is measured by protocols on its way and at its end."""
    folder = tmp_path_factory.mktemp("evaluate") / "run"
    config = tiny_config(
        train__num_steps=NUM_STEPS,
        train__keep_best=f"full/{METRIC}",
        train__keep_last=1,
        train__ema_decay=None,
    )
    held_out = "train[98%:]"
    config["evals"] = dict(
        full=dict(split=held_out, protocol="classification", every_steps=6),
        sure=dict(split=held_out, protocol="calibration", bins=5),
        test=dict(split="test"),
    )
    with contextlib.redirect_stdout(io.StringIO()):
        experiment.run(config, folder)
    return folder


def rows(workdir, name):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row[name] for row in lines if name in row}


# during training


def test_protocols_are_measured_when_they_are_due(workdir):
    assert sorted(rows(workdir, "full/top1")) == [6, 12]
    assert sorted(rows(workdir, "sure/ece")) == sorted(rows(workdir, "test/top1")) == [12]
    result = json.loads((workdir / "result.json").read_text())["metrics"]
    assert result["full/top1"] == rows(workdir, "full/top1")[NUM_STEPS]


def test_reports_of_the_last_evaluation_are_in_the_workdir(workdir):
    folder = workdir / "evaluations"
    report = json.loads((folder / "full" / "report.json").read_text())
    assert report["step"] == NUM_STEPS
    assert report["metrics"]["top1"] == rows(workdir, "full/top1")[NUM_STEPS]
    assert np.sum(report["tables"]["confusion_matrix"]) == report["scored"]
    for picture in ("full/confusion.png", "sure/reliability.png"):
        assert np.asarray(Image.open(folder / picture).convert("L")).std() > 5


def test_the_best_is_kept_by_a_protocols_metric(workdir):
    found, best_by = rows(workdir, f"full/{METRIC}"), f"full/{METRIC}"
    checkpointer = Checkpointer(workdir / "checkpoints", keep_best=best_by, read_only=True)
    best = checkpointer.best_step()
    checkpointer.close()
    assert found[best] == max(found.values())


# the command


def test_two_protocols_make_one_pass_and_give_what_training_gave(
    workdir, capsys, tmp_path, monkeypatch
):
    passes, iterate = [], EvalData.__iter__
    monkeypatch.setattr(EvalData, "__iter__", lambda self: passes.append(1) or iterate(self))
    output, reports = tmp_path / "metrics.json", tmp_path / "reports"
    code, out, _ = call(
        capsys,
        "evaluate",
        f"--workdir={workdir}",
        "--split=train[98%:]",
        "--protocol=classification",
        "--protocol=calibration",
        "--calibration.bins=5",
        f"--output={output}",
        f"--reports={reports}",
    )
    assert code == 0 and len(passes) == 1
    found = json.loads(output.read_text())
    trained = json.loads((workdir / "result.json").read_text())["metrics"]
    assert found["step"] == NUM_STEPS
    for ours, theirs in (("classification", "full"), ("calibration", "sure")):
        for name in ("top1", "mean_class_accuracy", "ece", "nll", "scored"):
            if f"{theirs}/{name}" in trained:  # another batch size sums in another order
                value = found["metrics"][f"train[98%:]/{ours}/{name}"]
                assert value == pytest.approx(trained[f"{theirs}/{name}"], rel=1e-4)
        assert (reports / "train[98%:]" / ours / "report.json").is_file()
    assert re.search(r"classification/top1 [\d.]+% \([\d.]+% to [\d.]+%\)", out)
    assert "train[98%:]/calibration: 29 of 29 scored" in out and str(reports) in out


def test_what_the_config_names_is_measured_as_in_training(workdir, capsys, tmp_path):
    output = tmp_path / "metrics.json"
    code, _, _ = call(
        capsys, "evaluate", f"--workdir={workdir}", "--protocol=config", f"--output={output}",
        f"--reports={tmp_path}",
    )  # fmt: skip
    trained = json.loads((workdir / "result.json").read_text())["metrics"]
    assert code == 0
    assert json.loads(output.read_text())["metrics"] == pytest.approx(trained, rel=1e-4)


@pytest.mark.parametrize("source", [[], ["--source=digits"]])
def test_the_training_split_is_one_of_the_scored_source(source, workdir, capsys, tmp_path):
    """Named with a source or without; the run's own is another."""
    given = ["--protocol=knn", "--split=test[:20]", "--training_split=train[:30]", *source]
    given += [f"--workdir={workdir}", f"--reports={tmp_path}"]
    code, _, err = call(capsys, "evaluate", *given)
    assert code == 0, err
    report = json.loads((tmp_path / "test[:20]" / "knn" / "report.json").read_text())
    assert report["splits"]["train"] == {"data": "digits train[:30]"} | dict(
        examples=30, unreadable=0
    )


@pytest.mark.parametrize("kernel", ["cudnn", "pallas"])
def test_a_run_of_an_accelerator_is_measured_on_a_cpu(
    kernel, workdir, capsys, tmp_path, monkeypatch, caplog
):
    """Told in one line; restored as a run, and read as weights."""
    read_card = Checkpointer.read_card

    def card_of(self, step):
        card = read_card(self, step)
        card["config"]["task"]["model"]["attention_implementation"] = kernel
        return card

    monkeypatch.setattr(Checkpointer, "read_card", card_of)
    trained = json.loads((workdir / "result.json").read_text())["metrics"]["test/loss"]
    for given in ([f"--workdir={workdir}"], [f"--weights={workdir}", "--source=digits"]):
        caplog.clear()
        given += [f"--output={tmp_path / 'found.json'}", "--split=test"]
        code, _, err = call(capsys, "evaluate", *given)
        assert code == 0, err
        (told,) = caplog.messages
        assert told.startswith(f"attention_implementation is 'auto' in place of '{kernel}': ")
        found = json.loads((tmp_path / "found.json").read_text())["metrics"]["test/loss"]
        assert found == pytest.approx(trained, rel=1e-4)  # sums in another order


def test_weights_are_measured_on_named_data(capsys, tmp_path):
    model, variables = vit()
    weights.save(
        tmp_path / "a.npz", model, variables, preprocessing=preprocessing(), layout="big_vision"
    )
    for i in range(9):
        path = tmp_path / "data" / "val" / CLASSES[i % 5] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8)
        Image.fromarray(noise).save(path)
    given = (f"--weights={tmp_path}/a.npz", f"--source=folder:{tmp_path}/data", "--split=val")
    code, _, err = call(capsys, "evaluate", *given)
    assert code == 2 and "`labels` that lead to them" in err  # the file names no classes
    given += ("--labels=order", f"--output={tmp_path}/metrics.json")
    code, out, err = call(capsys, "evaluate", *given, "--protocol=task", "--protocol=calibration")
    assert (code, err) == (0, "")
    assert out.startswith(f"{tmp_path}/a.npz\n") and "val: 9 of 9 scored" in out
    found = json.loads((tmp_path / "metrics.json").read_text())
    assert found["weights"] == f"{tmp_path}/a.npz"
    assert found["metrics"]["val/loss"] == pytest.approx(
        found["metrics"]["val/calibration/nll"], rel=1e-5
    )
    assert "tables and pictures" not in out  # no folder was named for them


MISTAKES = {
    "no such protocol": (["--protocol=knnn"], "--protocol is 'knnn'"),
    "a list of what is allowed": (["--protocol=x"], "task, classification, calibration"),
    "settings of no protocol": (
        ["--calibration.bins=3"],
        "is given without --protocol=calibration; allowed: settings of task",
    ),
    "settings of another one": (
        ["--protocol=classification", "--calibration.bins=3"],
        "--calibration.bins is given without --protocol=calibration; allowed: settings of classif",
    ),
    "misspelt setting": (
        ["--protocol=calibration", "--calibration.bns=3"],
        "--calibration has unknown key bns; allowed: bins, binning, fit, among of the",
    ),
    "setting of another type": (
        ["--protocol=calibration", "--calibration.bins=many"],
        "--calibration.bins is 'many'; allowed: int",
    ),
    "training split of nobody": (
        ["--protocol=classification", "--training_split=train"],
        "but classification learns from no training examples; allowed: with few_shot, knn",
    ),
    "no such split": (["--split=tset"], "tset"),
    "no such source": (["--source=folder:/nowhere"], "/nowhere"),
    "no such checkpoint": (["--checkpoint=7"], "checkpoint is '7'"),
    "folder that cannot be written": (
        ["--protocol=calibration", "--reports=/dev/null/a"],
        "cannot be written",
    ),
    "weights and a run": (["--weights=a.npz"], "--workdir and --weights are given; allowed: one"),
    "size of a run's images": (["--image_size=8"], "--image_size is given; allowed: with --weig"),
    "config's evaluations elsewhere": (
        ["--protocol=config", "--split=test"],
        "--split is given, but config.evals has its own",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_sentence_before_anything_is_computed(name, workdir, capsys, monkeypatch):
    monkeypatch.setattr(EvalData, "__iter__", None)
    arguments, expected = MISTAKES[name]
    code, out, err = call(capsys, "evaluate", f"--workdir={workdir}", *arguments)
    assert (code, out) == (2, "") and err.startswith("error: ") and expected in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, expected",
    [
        ([], "--workdir is missing; allowed: it, or --weights."),
        (["--weights=a.npz"], "--source is missing: weights bring no data"),
        (["--weights=a.npz", "--source=digits"], "a.npz"),
        (["--weights=a", "--source=digits", "--checkpoint=best"], "--checkpoint is given; allowed"),
        (["--weights=a", "--source=digits", "--protocol=config"], "config is of a run; allowed"),
    ],
)
def test_mistakes_about_weights(arguments, expected, capsys):
    code, _, err = call(capsys, "evaluate", *arguments)
    assert code == 2 and expected in err and err.count("\n") == 1


# what is shown

METRICS = {
    "test/loss": 0.0712,
    "test/top1": 0.98611,
    **{"test/examples": 360, "test/scored": 360, "test/unreadable": 0},
    "test/calibration/ece": 0.051,
    "test/calibration/nll": 0.3,
    **{"test/calibration/examples": 360, "test/calibration/scored": 350},
    "speed/images_per_second": 12345.6,
}
REPORTS = {"test/calibration": Report(metrics={}, intervals={"ece": Interval(0.04, 0.061)})}


def shown(**console):
    file = io.StringIO()
    measured.show(Console(file=file, **console), "step 3 of a/b", METRICS, REPORTS)
    return file.getvalue()


def test_lines_are_plain_where_there_is_no_terminal():
    assert shown(width=20).splitlines() == [
        "step 3 of a/b",
        "test/loss 0.0712",
        "test/top1 98.61%",
        "test: 360 of 360 scored",
        "test/calibration/ece 5.10% (4.00% to 6.10%)",
        "test/calibration/nll 0.3000",
        "test/calibration: 350 of 360 scored, 10 left out",
        "speed/images_per_second 12,346",
    ]


def test_terminal_shows_a_table_with_the_same_numbers():
    text = shown(force_terminal=True, width=120)
    assert "95 % interval" in text and "┃" in text
    for part in ("98.61%", "4.00% to 6.10%", "350 of 360 scored, 10 left out", "12,346"):
        assert part in text


def test_progress_counts_images_and_leaves_the_batches_as_they_are(monkeypatch):
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr("vit_jax.commands.progress.time.monotonic", lambda: next(clock))
    file = io.StringIO()

    class Data:
        num_examples, batch_size = 10, 4
        source = type("Source", (), {"name": "digits:test"})

    with measured.watching(Console(file=file)) as watch:
        assert list(watch(Data, iter("abc"))) == ["a", "b", "c"]
    lines = file.getvalue().splitlines()
    assert lines[0].startswith("4 of 10 images of digits:test measured: 0 images/s | ETA")
    assert lines[-1].startswith("10 of 10 images") and "MB/s" not in file.getvalue()


def test_names_are_no_markup():
    for console in (dict(), dict(force_terminal=True, width=120)):
        file, name = io.StringIO(), "test[:5]/a[red]b[/]"
        measured.show(Console(file=file, **console), "of [/x]", {f"{name}/top1": 0.5}, {})
        assert name in file.getvalue() and "of [/x]" in file.getvalue()


def test_an_output_that_is_a_folder_is_refused_before_anything_is_measured(
    workdir, tmp_path, capsys
):
    code, out, err = call(capsys, "evaluate", f"--workdir={workdir}", f"--output={tmp_path}")
    assert code == 2 and "--output is the folder" in err and not out


def test_other_data_and_checkpoints_have_folders_of_their_own():
    def place(*arguments, protocols=("knn",)):
        values = evaluate.define_flags()
        values(["evaluate", "--workdir=w", *arguments])
        return str(evaluate.place_in(Path("e"), values, protocols))

    assert place() == place("--split=a") == "e" and place("--reports=r") == "e"
    assert place("--checkpoint=10") == "e/step10" and place("--checkpoint=best") == "e/best"
    found = [place(f"--source={s}", "--checkpoint=3") for s in ("folder:/a/b", "folder:/a_b")]
    assert all(re.fullmatch("e/step3/folder_a_b-[0-9a-f]{6}", one) for one in found)
    assert found[0] != found[1]
    assert place("--data_dir=d", protocols=("config",)) == "e"
    assert place("--labels=real:t").startswith("e/labels-")
