"""The state of a trial is told by its files alone, and what has begun is not replaced."""

import itertools
import json

import pytest

from vit_jax.errors import InputError
from vit_jax.sweeps.folder import State, SweepFolder, read_lines
from vit_jax.sweeps.trials import make_trial
from vit_jax.workdir import locked

BASE = {"train": {"seed": 0}, "optimizer": {"learning_rate": 0.1}}
FILES = {
    "result": (State.FINISHED, '{"step": 3, "metrics": {"test/top1": 0.5}}'),
    "pruned": (State.PRUNED, '{"reason": "slow", "step": 1}'),
    "failed": (State.FAILED, '{"reason": "broken"}'),
}


@pytest.fixture
def folder(tmp_path):
    return SweepFolder.at(tmp_path).add(make_trial(BASE, {"train.seed": 1}))


def write(folder, name, text):
    path = folder.workdir.result if name == "result" else getattr(folder, name)
    path.write_text(text)


def test_a_trial_waits_then_runs_then_is_interrupted(folder):
    assert folder.state() == State.WAITING
    for lock in (folder.workdir.lock, folder.worker):
        with locked(lock):
            assert folder.state() == State.RUNNING
    assert folder.state() == State.WAITING
    folder.attempts.write_text('{"event": "start"}\n')
    assert folder.state() == State.INTERRUPTED


def test_checkpoints_without_an_attempt_are_an_interrupted_trial(folder):
    (folder.workdir.checkpoints / "5").mkdir(parents=True)
    assert folder.state() == State.INTERRUPTED


@pytest.mark.parametrize("names", list(itertools.permutations(FILES, 2)))
def test_a_result_counts_before_all_else(folder, names):
    for name in names:
        write(folder, name, FILES[name][1])
    first = min(names, key=list(FILES).index)
    assert folder.state() == FILES[first][0]


def test_a_killed_trial_has_no_result(folder):
    folder.workdir.metrics.write_text('{"step": 4, "test/top1": 0.9}\n{"step": 5, "te')
    folder.attempts.write_text('{"event": "start"}\n{"ev')
    record = folder.record()
    assert record.state == State.INTERRUPTED and record.metrics == {}
    assert record.step == 4 and record.attempts == [{"event": "start"}]


@pytest.mark.parametrize("name", FILES)
def test_a_record_says_why(folder, name):
    write(folder, name, FILES[name][1])
    content = json.loads(FILES[name][1])
    record = folder.record()
    assert record.reason == content.get("reason")
    assert record.metrics == content.get("metrics", {}) and record.seed == 1


def test_needs_become_workdirs(tmp_path):
    sweep = SweepFolder.at(tmp_path)
    config = {"init": {"source": "trial:first"}}
    folder = sweep.add(make_trial(config, {"name": "second"}))
    written = json.loads(folder.trial.read_text())
    assert written["needs"] == ["first"]
    assert written["config"]["init"]["source"] == str(tmp_path / "trials" / "first")


def add(folder, **changed):
    sweep = SweepFolder(folder.workdir.path.parent.parent)
    base = {**BASE, **changed}
    return sweep.add(make_trial(base, {"train.seed": 1}))


def test_what_has_begun_is_not_replaced_by_another_config(folder):
    (folder.workdir.checkpoints / "5").mkdir(parents=True)
    before = folder.trial.read_text()
    with pytest.raises(InputError, match="optimizer.learning_rate: 0.1 there, 0.2 now"):
        add(folder, optimizer={"learning_rate": 0.2})
    assert folder.trial.read_text() == before
    add(folder, launch={"hours": 3})  # has no part in the result
    assert json.loads(folder.trial.read_text())["config"]["launch"] == {"hours": 3}


def test_a_mistake_that_never_trained_can_be_put_right(folder):
    write(folder, "failed", FILES["failed"][1])
    add(folder)
    assert folder.state() == State.FAILED  # the same again would fail again
    add(folder, optimizer={"learning_rate": 0.2})
    assert folder.state() == State.WAITING


def test_lines_that_a_kill_cut_short_are_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    assert read_lines(path) == []
    path.write_text('{"a": 1}\n{"a": 2}\n{"a":')
    assert read_lines(path) == [{"a": 1}, {"a": 2}]


def test_a_finished_trial_was_not_evaluated_otherwise_and_its_file_stays(tmp_path):
    """Evaluations may change in a run that goes on, and not in one that is over."""
    folder = SweepFolder.at(tmp_path)
    base = {"train": {}, "evals": {"test": {"split": "a"}}, "mesh": {"data": 1}}
    one = folder.add(make_trial(base, {}))
    folder.add(make_trial(base, {"evals.test.split": "b", "name": "base"}))
    one.workdir.result.write_text('{"step": 1, "metrics": {}}')
    before = one.trial.read_bytes()
    folder.add(make_trial(base, {"evals.test.split": "b", "mesh.data": 2, "name": "base"}))
    assert one.trial.read_bytes() == before and b'"b"' in before
    with pytest.raises(InputError, match="evals.test.split: 'b' there, 'c' now"):
        folder.add(make_trial(base, {"evals.test.split": "c", "name": "base"}))
