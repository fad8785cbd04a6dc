"""Which trial begins when, on what, and what becomes of one that ends without a result."""

import itertools
import os
import signal
import sys
import threading

import cheap_trials
import pytest

from vit_jax.errors import InputError
from vit_jax.launch.run import Run
from vit_jax.launch.settings import LaunchSettings
from vit_jax.sweeps import attempts, local, worker
from vit_jax.sweeps.folder import State, SweepFolder, read_lines
from vit_jax.sweeps.queue import Ended, Listed, drive
from vit_jax.sweeps.running import About, How, run_trials
from vit_jax.sweeps.trials import make_trial
from vit_jax.train.preemption import EXIT_PREEMPTED
from vit_jax.workdir import locked


class Silent:
    def waits(self, folder): ...
    def began(self, folder): ...
    def ended(self, folder): ...
    def look(self, running): ...


class Scripted:
    """A launcher whose trials end at the next look, as a script has it: {name: [exit code, ...]}.

    A trial without a script finishes. 'saves' in place of a code: a checkpoint more, then SIGKILL.
    """

    poll_seconds = 0.0

    def __init__(self, capacity=1, script=None, cancelled=()):
        self.capacity, self.script = capacity, script or {}
        self.cancelled = cancelled
        self.begun, self.running, self.most = [], [], 0

    def adopt(self, folders):
        return []

    def start(self, folders):
        self.begun += [folder.name for folder in folders]
        self.running += folders
        self.most = max(self.most, len(self.running))
        for folder in folders:
            attempts.note(folder, "start")

    def ended(self):
        ended, self.running = self.running, []
        return [self.end(folder) for folder in ended]

    def end(self, folder):
        codes = self.script.get(folder.name, [])
        code = codes.pop(0) if codes else 0
        if code == "saves":
            (folder.workdir.checkpoints / str(len(codes) + 100)).mkdir(parents=True)
            code = 128 + signal.SIGKILL
        if code == 0:
            folder.workdir.result.write_text('{"step": 1, "metrics": {}}')
        return Ended(folder, code, folder.name in self.cancelled)

    def close(self): ...


def trial(name, *needs, **task):
    config = cheap_trials.config(**task)
    return make_trial(config, {"name": name, **{f"init.{n}": f"trial:{n}" for n in needs}})


def sweep(path, trials, launcher):
    """The folder after the loop has come to its end."""
    folder = SweepFolder.at(path)
    for one in trials:
        folder.add(one)
    assert drive(Listed(folder, [one.name for one in trials]), launcher, Silent())
    return folder


def states(folder):
    return {one.name: one.state() for one in folder.known()}


@pytest.mark.parametrize("capacity", [1, 2, 5])
def test_trials_begin_in_their_order_and_no_more_than_fit(capacity, tmp_path):
    names = list("dbaec")
    launcher = Scripted(capacity)
    folder = sweep(tmp_path, [trial(name) for name in names], launcher)
    assert launcher.begun == names and launcher.most == capacity
    assert set(states(folder).values()) == {State.FINISHED}


def test_what_is_needed_is_waited_for(tmp_path):
    launcher = Scripted(capacity=3)
    sweep(tmp_path, [trial("a"), trial("b", "a"), trial("c", "a", "b"), trial("d")], launcher)
    assert launcher.begun == ["a", "d", "b", "c"]


def test_what_needs_a_lost_trial_is_lost_and_nothing_else(tmp_path):
    launcher = Scripted(capacity=3, script={"a": [3]})
    trials = [trial("a"), trial("b", "a"), trial("c", "b"), trial("d")]
    folder = sweep(tmp_path, trials, launcher)
    assert launcher.begun == ["a", "d"]
    assert states(folder) == dict(zip("abcd", 3 * [State.FAILED] + [State.FINISHED], strict=True))
    assert folder.trial("b").record().reason == "it needs a, which failed"
    assert folder.trial("c").record().reason == "it needs b, which failed"


KILLED = 128 + signal.SIGKILL


@pytest.mark.parametrize(
    "codes, state, number",
    [
        ([KILLED, EXIT_PREEMPTED, 0], State.FINISHED, 3),
        ([KILLED, EXIT_PREEMPTED, KILLED, 0], State.FAILED, 3),
        # A checkpoint more, and patience begins anew.
        ([KILLED, KILLED, "saves", KILLED, 0], State.FINISHED, 5),
        ([2, 0], State.FAILED, 1),
        ([3, 0], State.FAILED, 1),
        ([1, 0], State.FAILED, 1),
    ],
)
def test_deaths_are_tried_again_and_failures_are_not(codes, state, number, tmp_path):
    launcher = Scripted(script={"a": list(codes)})
    folder = sweep(tmp_path, [trial("a")], launcher)
    assert states(folder) == {"a": state}
    assert len(launcher.begun) == number == attempts.starts(folder.trial("a"))


def test_another_try_has_all_its_attempts(tmp_path):
    folder = sweep(tmp_path, [trial("a")], Scripted(script={"a": 3 * [KILLED]}))
    assert states(folder) == {"a": State.FAILED}
    attempts.retry(folder.trial("a"))
    launcher = Scripted(script={"a": [KILLED, KILLED]})
    assert states(sweep(tmp_path, [trial("a")], launcher)) == {"a": State.FINISHED}


def test_what_a_person_cancels_is_left_to_the_next_command(tmp_path):
    launcher = Scripted(capacity=3, script={"a": [EXIT_PREEMPTED]}, cancelled=("a",))
    folder = sweep(tmp_path, [trial("a"), trial("b", "a"), trial("c")], launcher)
    expected = {"a": State.INTERRUPTED, "b": State.WAITING, "c": State.FINISHED}
    assert states(folder) == expected and launcher.begun == ["a", "c"]
    assert set(states(sweep(tmp_path, [trial("a"), trial("b", "a")], Scripted())).values()) == {
        State.FINISHED
    }


def test_a_trial_that_somebody_else_runs_is_waited_for(tmp_path):
    """Its lock is held; when that is let go the trial begins, and not before."""
    folder = SweepFolder.at(tmp_path)
    held = folder.add(trial("a"))
    launcher, seen, told = Scripted(), [], []

    class Watcher(Silent):
        def waits(self, folder):
            told.append(folder.name)

        def look(self, running):
            if not release.is_set():
                seen.append(list(launcher.begun))
                release.set()
                thread.join()

    def hold():
        with locked(held.worker):
            ready.set()
            release.wait(30)

    ready, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    ready.wait(30)
    assert drive(Listed(folder, ["a"]), launcher, Watcher())
    assert seen == [[]] and launcher.begun == ["a"] and told == ["a"]


def run(path, trials, **how):
    how = How(command=cheap_trials.command, **how)
    return run_trials(SweepFolder.at(path), trials, how=how, about=About(metric="test/score"))


def test_a_failure_says_why_stops_no_other_and_can_be_tried_again(tmp_path):
    obstacle = tmp_path / "obstacle"
    obstacle.touch()
    trials = [trial("a", breaks_if=str(obstacle)), trial("b", "a"), trial("c")]
    outcome = run(tmp_path / "sweep", trials)
    assert outcome.exit_code == 1 and outcome.counts == {State.FAILED: 2, State.FINISHED: 1}
    folder = SweepFolder.at(tmp_path / "sweep")
    assert folder.trial("a").record().reason == "it is broken"

    obstacle.unlink()
    assert run(tmp_path / "sweep", trials).counts == outcome.counts  # not without being told
    again = run(tmp_path / "sweep", trials, retry_failed=True)
    assert again.exit_code == 0 and again.counts == {State.FINISHED: 3}
    assert attempts.starts(folder.trial("c")) == 1


def test_new_trials_may_be_added_and_contradictions_are_refused(tmp_path):
    run(tmp_path, [trial("a")])
    assert run(tmp_path, [trial("a"), trial("b")]).counts == {State.FINISHED: 2}
    with pytest.raises(InputError, match="'a' .* begun with another config: task.x: 0.0"):
        run(tmp_path, [trial("a", x=0.5)])
    about = About(base={"train": {"seed": 1}})
    run_trials(SweepFolder.at(tmp_path), [trial("a")], how=How(), about=about)
    about = About(base={"train": {"seed": 2}})
    with pytest.raises(InputError, match="belongs to another config: train.seed: 1 there, 2 now"):
        run_trials(SweepFolder.at(tmp_path), [trial("a")], how=How(), about=about)


def test_trials_that_a_sweep_has_no_more_wait_for_nobody(tmp_path):
    SweepFolder.at(tmp_path).add(trial("old"))
    outcome = run(tmp_path, [trial("new")])
    assert outcome.exit_code == 0 and outcome.counts == {State.FINISHED: 1}
    assert states(SweepFolder.at(tmp_path))["old"] == State.WAITING


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinities on this system")
@pytest.mark.parametrize("workers", range(1, 9))
def test_cores_are_shared_evenly(workers, monkeypatch):
    cores = {0, 1, 2, 5, 6}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    shares = local.shares_of_cores(workers)
    if workers == 1:
        assert shares == [None]  # all of them, whoever gets more
    elif workers <= len(cores):
        assert sorted(itertools.chain(*shares)) == sorted(cores)
        sizes = list(map(len, shares))
        assert max(sizes) - min(sizes) <= 1
    else:
        assert all(len(share) == 1 for share in shares) and set().union(*shares) == cores


def test_gpus_are_a_trials_own():
    found = local.places(2, gpus_per_trial=2, visible="4,5,6,7,8")
    assert [place.gpus for place in found] == [("4", "5"), ("6", "7")]
    assert [place.gpus for place in local.places(2, gpus_per_trial=0, visible="4")] == [None, None]
    with pytest.raises(InputError, match="is 4, but CUDA_VISIBLE_DEVICES is '4,5'"):
        local.places(2, gpus_per_trial=2, visible="4,5")


def wanted(*launches):
    return [LaunchSettings(**one) for one in launches]


def test_trials_have_the_gpus_that_their_config_says():
    for launches, asked, found in (
        ([{}, {}], 0, 0),
        ([{}, {}], 3, 3),
        ([{"gpus_per_node": 2}, {"gpus_per_node": 2}], 0, 2),
        ([{"gpus_per_node": 2, "tasks_per_node": 2}, {}], 2, 2),
    ):
        assert local.gpus_of_each(wanted(*launches), gpus_per_trial=asked) == found


@pytest.mark.parametrize(
    "launches, asked, message",
    [
        ([{}, {"nodes": 2}], 0, "config.launch.nodes is 2; allowed with --launcher=local: 1"),
        ([{"gpus_per_node": 1}, {"gpus_per_node": 2}], 0, "of the trials is 1 or 2; allowed"),
        ([{"gpus_per_node": 2}], 1, "--gpus_per_trial is 1, and .* is 2; allowed"),
        ([{"tasks_per_node": 2}], 2, "--gpus_per_trial is 2, and .* is 0; allowed"),
    ],
)
def test_machines_that_are_not_there_are_refused(launches, asked, message):
    with pytest.raises(InputError, match=message):
        local.gpus_of_each(wanted(*launches), gpus_per_trial=asked)


@pytest.mark.parametrize(
    "launch, is_launched",
    [({}, False), ({"tasks_per_node": 2}, True), ({"cpu_devices_per_task": 2}, True)],
)
def test_a_trial_has_the_tasks_that_its_config_says(launch, is_launched, tmp_path, monkeypatch):
    """Each of which trains, and starts no more of them."""
    folder = SweepFolder.at(tmp_path).add(make_trial({"launch": launch}, {}))
    launched = []
    monkeypatch.setattr(worker.local, "launch", lambda *given: launched.append(given) or 7)
    monkeypatch.setattr(Run, "__call__", lambda run: sys.exit(0))
    path = str(folder.workdir.path)
    if is_launched:
        assert worker.main(path) == 7
        ((command, settings),) = launched
        assert settings == LaunchSettings(**launch) and command[:-1] == worker.command(folder)
        with pytest.raises(SystemExit):
            worker.main(*command[3:])
    else:
        with pytest.raises(SystemExit):
            worker.main(path)
    assert len(launched) == is_launched


def test_processes_have_their_place_and_the_sweeps_compiled_programs(tmp_path):
    program = (
        "import os, sys, json; from pathlib import Path; here = Path(sys.argv[1])\n"
        "told = dict(os.environ) | {'cores': sorted(os.sched_getaffinity(0))}\n"
        "(here / 'told').write_text(json.dumps(told))\n"
        "(here / 'result.json').write_text(json.dumps({'step': 1, 'metrics': {}}))\n"
    )
    folder = SweepFolder.at(tmp_path)
    launcher = local.LocalLauncher(
        workers=2,
        gpus_per_trial=1,
        compiled=folder.compiled,
        command=lambda one: [sys.executable, "-c", program, str(one.workdir.path)],
        environment={"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "3,7"},
    )
    names = ["a", "b", "c", "d"]
    for name in names:
        folder.add(trial(name))
    assert drive(Listed(folder, names), launcher, Silent())
    told = [read_lines(folder.trial(name).workdir.path / "told")[0] for name in names]
    assert {one["JAX_COMPILATION_CACHE_DIR"] for one in told} == {str(tmp_path / "compiled")}
    pairs = {(one["CUDA_VISIBLE_DEVICES"], tuple(one["cores"])) for one in told}
    shares = [tuple(sorted(share)) for share in local.shares_of_cores(2)]
    assert pairs == set(zip(["3", "7"], shares, strict=True))


def test_nothing_begins_where_there_is_less_than_no_room(tmp_path):
    folder = SweepFolder.at(tmp_path)
    folder.add(trial("a"))
    assert Listed(folder, ["a"]).take(-1, without=()) == []


def test_a_training_that_hangs_holds_nobody_after_a_second_signal(tmp_path):
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('up', flush=True); time.sleep(600)"
    )
    folder = SweepFolder.at(tmp_path)
    one = folder.add(trial("a"))
    launcher = local.LocalLauncher(
        workers=1,
        compiled=folder.compiled,
        command=lambda _: [sys.executable, "-c", program],
    )

    class Person(Silent):
        looks = 0

        def look(self, running):
            if one.log.read_text() and self.looks < 2:
                os.kill(os.getpid(), signal.SIGTERM)
                self.looks += 1

    assert not drive(Listed(folder, ["a"]), launcher, Person())
    assert one.state() == State.INTERRUPTED
    assert read_lines(one.attempts)[-1]["exit_code"] == KILLED
