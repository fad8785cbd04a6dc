"""Searches: what is asked, told and stopped, and that an interruption changes none of it."""

import random
import signal
import subprocess
import sys
import time

import cheap_trials
import pytest
from helpers import ROOT, environment

from vit_jax.errors import InputError
from vit_jax.sweeps import attempts, study
from vit_jax.sweeps.folder import State, SweepFolder
from vit_jax.sweeps.local import LocalLauncher
from vit_jax.sweeps.search import Search
from vit_jax.sweeps.trials import make_trial

pytest.importorskip("optuna", reason="needs the extra: pip install 'vit_jax[search]'")


def opened(folder, storage=None):
    """Optuna's trials of a search that is over."""
    path = SweepFolder.at(folder)
    found = study.open_study(path, metric="test/score", storage=storage, pruner=study.no_pruner())
    return found.get_trials()


def asked(folder):
    return [trial.params for trial in opened(folder)]


def values(folder):
    return [trial.value for trial in opened(folder)]


@pytest.fixture(scope="module", params=["tpe", "cmaes"])
def whole(request, tmp_path_factory):
    """A search by one worker that nobody disturbed."""
    folder = tmp_path_factory.mktemp(request.param) / "search"
    assert cheap_trials.search(folder, request.param).exit_code == 0
    return request.param, folder


def test_the_study_has_what_the_trials_found(whole):
    _, folder = whole
    trials, records = opened(folder), SweepFolder.at(folder).records()
    assert [record.name for record in records] == [f"trial-{i:04d}" for i in range(len(trials))]
    assert len(trials) == cheap_trials.SEARCHED
    for trial, record in zip(trials, records, strict=True):
        assert trial.state.name == "COMPLETE" and trial.value == record.metrics["test/score"]
        assert record.overrides == {"task.x": trial.params["x"], "task.y": trial.params["y"]}
        assert record.config["task"]["x"] == trial.params["x"]
        assert list(trial.intermediate_values) == [1, 2]


def start(folder, sampler):
    return subprocess.Popen(
        [sys.executable, cheap_trials.__file__, "search", str(folder), sampler],
        env={**environment(), "PYTHONPATH": str(ROOT)},
        stdout=(folder.parent / "out.txt").open("a"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def test_a_search_that_is_killed_asks_what_an_undisturbed_one_asks(whole, tmp_path):
    """SIGKILL once a few trials are there, at random moments of asking, training and telling."""
    sampler, undisturbed = whole
    folder, moment = tmp_path / "search", random.Random(sampler)
    for number in (3, 11):
        process, deadline = start(folder, sampler), time.monotonic() + 120
        while len(list(folder.glob("trials/*/result.json"))) < number:
            text = (tmp_path / "out.txt").read_text()
            assert process.poll() is None and time.monotonic() < deadline, text
            time.sleep(0.005)
        time.sleep(moment.uniform(0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=30)
    assert len(list(folder.glob("trials/*/result.json"))) < cheap_trials.SEARCHED
    assert cheap_trials.search(folder, sampler).exit_code == 0
    assert asked(folder) == asked(undisturbed)
    assert values(folder) == values(undisturbed)


def test_a_seed_is_another_search_and_more_trials_continue_one(whole, tmp_path):
    sampler, undisturbed = whole
    cheap_trials.search(tmp_path / "other", sampler, num_trials=2, seed=1)
    assert not any(one in asked(undisturbed) for one in asked(tmp_path / "other"))
    cheap_trials.search(tmp_path / "same", sampler, num_trials=1)
    cheap_trials.search(tmp_path / "same", sampler, num_trials=3)
    assert asked(tmp_path / "same") == asked(undisturbed)[:3]


def test_what_a_kill_left_of_the_journal_is_no_obstacle(whole, tmp_path):
    """A trial that was asked for and has no folder, half a line, and a lock."""
    sampler, undisturbed = whole
    folder = SweepFolder.at(tmp_path)
    cheap_trials.search(tmp_path, sampler, num_trials=2)
    found = study.open_study(folder, metric="test/score", storage=None, pruner=study.no_pruner())
    found.ask()
    with folder.study.open("a") as file:
        file.write('{"op_code": 5, "wor')
    (tmp_path / "study.log.lock").symlink_to(folder.study)
    cheap_trials.search(tmp_path, sampler, num_trials=4)
    assert asked(tmp_path) == asked(undisturbed)[:4]
    assert [trial.state.name for trial in opened(tmp_path)] == 4 * ["COMPLETE"]


@pytest.fixture
def judged(monkeypatch):
    """Trials go on once the pruner has seen their last evaluation, however busy the machine is."""
    ask = Search.hopeless

    def hopeless(search, running):
        steps = {one: attempts.saved_step(one) for one in running}
        found = ask(search, running)
        for one in steps.keys() - set(found):
            cheap_trials.write(one.workdir.path / "judged", str(steps[one]))
        return found

    monkeypatch.setattr(Search, "hopeless", hopeless)
    monkeypatch.setattr(LocalLauncher, "poll_seconds", 0.01)


@pytest.mark.parametrize("pruner", ["median", "halving", "hyperband"])
def test_pruning_saves_steps_and_keeps_the_winner(pruner, judged, tmp_path):
    """The curves of `cheap_trials` never cross: what is ahead stays ahead.

    One at a time: Hyperband judges nothing until a first trial has ended, and compares the ones
    that ran beside it later with all others' beginnings.
    """
    number, steps = 14, 9
    outcome = cheap_trials.search(
        tmp_path,
        "random",
        num_trials=number,
        pruner=pruner,
        task={"num_steps": steps, "waits": True},
    )
    assert outcome.exit_code == 0 and set(outcome.counts) == {State.FINISHED, State.PRUNED}
    records = SweepFolder.at(tmp_path).records()
    done = sum(record.step for record in records)
    assert done < 0.85 * number * steps, f"{done} of {number * steps} steps"
    everything = {r.name: cheap_trials.score(r.overrides["task.x"]) for r in records}
    finished = {r.name: r.metrics["test/score"] for r in records if r.state == State.FINISHED}
    assert max(finished, key=finished.get) == max(everything, key=everything.get)
    for record, trial in zip(records, opened(tmp_path), strict=True):
        expected = {State.FINISHED: "COMPLETE", State.PRUNED: "PRUNED"}[record.state]
        assert trial.state.name == expected
        if record.state == State.PRUNED:
            assert f"stopped by the {pruner} pruner: test/score" in record.reason
            assert attempts.saved_step(SweepFolder.at(tmp_path).trial(record.name)) < steps


def test_failed_trials_are_told_and_tried_again_with_their_parameters(tmp_path):
    obstacle = tmp_path / "obstacle"
    task = {"num_steps": 1, "breaks_if": str(obstacle)}
    cheap_trials.search(tmp_path / "a", num_trials=1, task=task)
    obstacle.touch()
    outcome = cheap_trials.search(tmp_path / "a", num_trials=3, task=task)
    assert outcome.exit_code == 1 and outcome.counts == {State.FINISHED: 1, State.FAILED: 2}
    before = SweepFolder.at(tmp_path / "a").trial("trial-0001").trial.read_text()
    obstacle.unlink()
    outcome = cheap_trials.search(tmp_path / "a", num_trials=3, task=task, retry_failed=True)
    assert outcome.counts == {State.FINISHED: 3}
    assert SweepFolder.at(tmp_path / "a").trial("trial-0001").trial.read_text() == before
    states = [trial.state.name for trial in opened(tmp_path / "a")]
    assert states == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_study_may_be_in_a_database(tmp_path):
    storage = f"sqlite:///{tmp_path}/study.db"
    cheap_trials.search(tmp_path / "a", num_trials=2, storage=storage)
    cheap_trials.search(tmp_path / "a", num_trials=3, storage=storage)
    cheap_trials.search(tmp_path / "b", num_trials=1, storage=storage)
    assert len(opened(tmp_path / "a", storage)) == 3
    assert len(opened(tmp_path / "b", storage)) == 1
    assert not (tmp_path / "a" / "study.log").exists()


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"sampler": "grid"}, "--sampler is 'grid'; allowed: tpe, cmaes, random"),
        ({"pruner": "mean"}, "--pruner is 'mean'.*; allowed: none, median"),
        ({"metric": "val/score"}, "--metric is 'val/score'; allowed: EVALUATION/METRIC .* test"),
        ({"metric": "test/x"}, "--metric is 'test/x'.*; allowed: test/score, test/state"),
        ({"storage": "nosql://x"}, "--storage is 'nosql://x', which cannot be opened"),
        ({"num_trials": 0}, "--num_trials is 0"),
    ],
)
def test_mistakes_are_one_sentence(settings, message, tmp_path):
    with pytest.raises(InputError, match=message):
        cheap_trials.search(tmp_path, **{"num_trials": 1, **settings})


def test_a_damaged_study_is_told_in_a_sentence(tmp_path):
    cheap_trials.search(tmp_path, num_trials=1)
    study = tmp_path / "study.log"
    lines = study.read_text().splitlines()
    study.write_text("\n".join([lines[0], lines[1][:10], *lines[2:]]) + "\n")
    with pytest.raises(InputError, match="study.log cannot be read .*; allowed: the file as"):
        cheap_trials.search(tmp_path, num_trials=2)


def test_a_search_is_for_one_metric(tmp_path):
    cheap_trials.search(tmp_path, num_trials=1)
    with pytest.raises(InputError, match="search in .* is for 'test/score'"):
        cheap_trials.search(tmp_path, num_trials=2, metric="test/state")


def test_trials_that_are_not_the_searchs_own_wait_for_nobody(tmp_path):
    SweepFolder.at(tmp_path).add(make_trial(cheap_trials.config(), {"name": "listed"}))
    outcome = cheap_trials.search(tmp_path, num_trials=1)
    assert outcome.exit_code == 0 and outcome.counts == {State.FINISHED: 1}


def test_without_a_pruner_nobody_is_judged(tmp_path, monkeypatch):
    monkeypatch.setattr(Search, "_is_hopeless", lambda *_: 1 / 0)
    assert cheap_trials.search(tmp_path, num_trials=1).exit_code == 0
