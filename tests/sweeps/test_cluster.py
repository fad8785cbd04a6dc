"""Jobs of a cluster that a killed sweep left behind. Slurm's answers are made up here."""

import cheap_trials
import pytest

from vit_jax.launch import following, slurm
from vit_jax.sweeps import attempts
from vit_jax.sweeps.cluster import SlurmLauncher, last_line, open_job
from vit_jax.sweeps.folder import SweepFolder, read_lines
from vit_jax.sweeps.trials import make_trial
from vit_jax.workdir import replace_json

pytest.importorskip("submitit", reason="needs the extra: pip install 'vit_jax[slurm]'")


class Killed(BaseException):
    """In place of SIGKILL."""


class Slurm:
    """Takes jobs, and is killed with its caller once it has them."""

    def __init__(self, monkeypatch):
        self.jobs, self.cancelled, self.is_first = [], [], True
        monkeypatch.setattr(slurm, "submit", self.submit)
        monkeypatch.setattr(slurm, "cancel", self.cancelled.append)
        monkeypatch.setattr(following, "jobs_with_comments", lambda: self.jobs)

    def submit(self, runs, settings, *, folder):
        number, comment = 10 + len(self.jobs), settings.sbatch["comment"]
        endings = [f"_{i}" for i in range(len(runs))] if len(runs) > 1 else [""]
        self.jobs += [(f"{number}{ending}", comment) for ending in endings]
        raise Killed


def config(**launch):
    return cheap_trials.config() | {"launch": launch}


@pytest.fixture
def cluster(monkeypatch):
    return Slurm(monkeypatch)


@pytest.fixture
def sweep(tmp_path):
    """Three trials: two of one array, and one with machines of its own."""
    folder = SweepFolder.at(tmp_path)
    for name, launch in (
        ("a", {}),
        ("b", {"hours": 3, "sbatch": {"comment": "of mine"}}),
        ("c", {}),
    ):
        folder.add(make_trial(config(**launch), {"name": name}))
    return folder


def submitted(sweep, names):
    """What a launcher does that is killed in the middle of it."""
    with pytest.raises(Killed):
        SlurmLauncher(sweep, capacity=9).start([sweep.trial(name) for name in names])


def test_jobs_are_found_again_whose_numbers_nobody_wrote_down(sweep, cluster):
    submitted(sweep, "ca")
    submitted(sweep, "b")
    assert cluster.jobs[-1][1].startswith("of mine ")
    cluster.jobs += [("99_0", ""), ("98_1", "somebody else's")]
    folders = sweep.known()
    found = SlurmLauncher(sweep, capacity=9).adopt(folders)
    assert found == folders
    assert [open_job(one) for one in folders] == ["10_1", "12", "10_0"]
    assert last_line(sweep.trial("a"))["log"] == str(sweep.slurm / "10_1_0_log.out")
    assert [attempts.starts(one) for one in folders] == [1, 1, 1]


def test_what_slurm_never_got_is_not_waited_for(sweep, cluster):
    submitted(sweep, "a")
    cluster.jobs.clear()
    assert SlurmLauncher(sweep, capacity=9).adopt(sweep.known()) == []


def test_the_job_of_a_trial_that_was_stopped_early_is_cancelled(sweep, cluster):
    """Also if its sweep was killed before it could."""
    submitted(sweep, "ac")
    for one in ("a", "c"):
        replace_json(sweep.trial(one).pruned, {"reason": "hopeless"})
    for _ in range(2):  # and once is enough
        SlurmLauncher(sweep, capacity=9).adopt([])
    assert cluster.cancelled == ["10_0", "10_1"]


def test_ends_that_nobody_saw_are_noted_once(sweep, cluster):
    """A trial that finished while no sweep watched has as whole a history as any other."""
    submitted(sweep, "a")
    SlurmLauncher(sweep, capacity=9).adopt(sweep.known())
    folder = sweep.trial("a")
    replace_json(folder.workdir.result, {"step": 1, "metrics": {}})
    for _ in range(2):
        SlurmLauncher(sweep, capacity=9).adopt([])
    last = read_lines(folder.attempts)
    assert [line["event"] for line in last] == ["submit", "start", "end"]
    assert last[-1]["exit_code"] == 0 and not last[-1]["asked"]
    assert cluster.cancelled == []
