"""Warnings of a task: seen at once, not again at every line, and never the end of a run."""

import io
import json

import pytest
from helpers import tiny_config
from rich.console import Console

from vit_jax import experiment
from vit_jax.tasks.classification import Classification
from vit_jax.train.sinks import TensorBoard
from vit_jax.train.warnings import QUIET_LINES, Warnings, count_kinds


def told(diagnose, lines, path, *, start_step=0, board=None, **console):
    """What the console shows of log lines: (step, values) each."""
    file = io.StringIO()
    sink = Warnings(
        diagnose,
        console=Console(file=file, width=40, **console),
        path=path,
        start_step=start_step,
        board=board,
    )
    for step, values in lines:
        sink.write(step, values)
    sink.close()
    return file.getvalue()


def is_low(values):
    found = values["train/entropy"]
    return [f"the entropy is {found:.2f}; raise [temperature]"] if found < 1 else []


def training(*entropies):
    return [(10 * i, {"train/entropy": x}) for i, x in enumerate(entropies, 1)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "warnings.jsonl"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_warning_is_shown_once_with_its_step_and_kept_for_each_line(path):
    lines = training(2.0, 0.5, 0.25, 3.0, 0.5)
    text = told(is_low, lines, path)
    # In one line, the brackets as they are.
    assert text == "warning at step 20: the entropy is 0.50; raise [temperature]\n"
    assert [(row["step"], row["warning"][15:19]) for row in rows(path)] == [
        (20, "0.50"),
        (30, "0.25"),
        (50, "0.50"),
    ]
    assert count_kinds(path) == 1


def test_a_warning_has_a_colour_on_a_terminal(path):
    assert "\x1b[1;33mwarning" in told(is_low, training(0.5), path, force_terminal=True)


def test_a_warning_that_persists_comes_again_after_a_while(path):
    text = told(is_low, training(*[0.5] * (2 * QUIET_LINES + 1)), path)
    steps = [int(line.split()[3].rstrip(":")) for line in text.splitlines()]
    assert steps == [10, 10 + 10 * QUIET_LINES, 10 + 20 * QUIET_LINES]


def test_nothing_wrong_leaves_no_file(path):
    assert told(is_low, training(2.0), path) == "" and not path.exists()
    assert count_kinds(path) == 0


def test_resuming_drops_the_warnings_that_will_be_found_again(path):
    whole = training(0.5, 0.4, 0.3, 2.0)
    told(is_low, whole, path)
    expected = path.read_text()
    told(is_low, whole[1:], path, start_step=10)
    assert path.read_text() == expected
    told(is_low, [], path, start_step=10)
    assert [row["step"] for row in rows(path)] == [10]


def test_an_evaluations_line_without_the_metrics_is_no_mistake(path):
    assert told(is_low, [(10, {"test/top1": 0.5})], path) == ""


@pytest.mark.parametrize("wrong", [lambda values: values["train/other"], lambda values: 1 / 0])
def test_a_diagnosis_that_fails_is_told_and_ends_nothing(wrong, path):
    assert "the training cannot be diagnosed" in told(wrong, training(0.5), path)


def test_warnings_stand_as_text_in_tensorboard(path, tmp_path):
    board = TensorBoard(tmp_path / "board", start_step=0)
    told(is_low, training(0.5), path, board=board)
    board.close()
    (file,) = (tmp_path / "board").iterdir()
    assert b"the entropy is 0.50" in file.read_bytes()


def alarmed(task, metrics):
    return [f"the loss is {metrics['train/loss']:.1f}"]


def test_a_run_tells_its_tasks_warnings_and_how_many_at_its_end(monkeypatch, tmp_path):
    monkeypatch.setattr(Classification, "diagnose", alarmed)
    console = Console(file=io.StringIO(), width=200)
    config = tiny_config(train__num_steps=4, train__log_every=2, evals__validation__every_steps=2)
    config["train"]["checkpoint_every"] = 0
    experiment.run(config, tmp_path / "run", console=console)
    text = console.file.getvalue()
    assert text.count("warning at step") == 1
    assert text.splitlines()[-1].endswith("with 1 kind of warnings, in warnings.jsonl")
    assert [row["step"] for row in rows(tmp_path / "run" / "warnings.jsonl")] == [2, 4]
