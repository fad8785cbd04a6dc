"""A job is watched to its end, by what `scontrol` says of it; here a script stands in for that."""

import pytest

from vit_jax.errors import InputError
from vit_jax.launch import following

# Says one line of `states` after the other and then the last one again; each time the log grows.
SCONTROL = """#!/bin/bash
cd {folder}
head -n 1 states
[ "$(wc -l < states)" -gt 1 ] && sed -i 1d states
echo "asked for $4" >> log
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Sets what scontrol will say; gives the log."""

    def say(*lines):
        (tmp_path / "states").write_text("".join(f"{line}\n" for line in lines))
        (tmp_path / "scontrol").write_text(SCONTROL.format(folder=tmp_path))
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "log"

    return say


def line(state, code="0:0"):
    return f"JobId=7 JobName=a JobState={state} Reason=None Restarts=0 ExitCode={code} Nodes=1"


def test_a_job_is_followed_through_requeues_to_its_end(slurm, capsys):
    states = ("PENDING", "RUNNING", "COMPLETING", "PENDING", "RUNNING", "COMPLETED")
    log = slurm(*map(line, states))
    state = following.follow("7", log, poll_seconds=0)
    assert state == following.JobState(name="COMPLETED", exit_code=0)
    assert capsys.readouterr().out == len(states) * "asked for 7\n"


@pytest.mark.parametrize("name", following.FINAL_STATES)
def test_every_final_state_is_an_end(name, slurm):
    assert following.follow("7", slurm(line(name)), poll_seconds=0).name == name


@pytest.mark.parametrize("code, expected", [("0:0", 0), ("2:0", 2), ("75:0", 75), ("0:15", 143)])
def test_exit_codes_are_a_shells(code, expected, slurm):
    slurm(line("FAILED", code))
    assert following.state_of("7").exit_code == expected


def test_jobs_are_listed_with_their_comments(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    program.write_text("#!/bin/sh\nprintf '7_0 a mark\\n7_12 (null)\\n8 \\n'\nexit $(cat code)")
    program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "code").write_text("0")
    found = following.jobs_with_comments()
    assert found == [("7_0", "a mark"), ("7_12", "(null)"), ("8", "")]
    (tmp_path / "code").write_text("1")
    with pytest.raises(InputError, match="Slurm does not list its jobs"):
        following.jobs_with_comments()


def test_a_silent_controller_is_asked_again(slurm):
    log = slurm("", "slurm_load_jobs error: Unable to contact slurm controller", line("COMPLETED"))
    assert following.follow("7", log, poll_seconds=0).name == "COMPLETED"


def test_an_unknown_job_is_one_sentence(slurm, monkeypatch):
    monkeypatch.setattr(following, "MAX_SILENCE", 2)
    log = slurm("Invalid job id specified")
    with pytest.raises(InputError, match="Slurm tells nothing of job 7"):
        following.follow("7", log, poll_seconds=0)
    assert len(log.read_text().splitlines()) == 3
