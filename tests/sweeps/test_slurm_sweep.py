"""A sweep through a real Slurm of one node: arrays, waves of needs, and jobs found again."""

import json
import signal
import subprocess
import sys
import time

import pytest
import slurm_cluster
from helpers import NUM_STEPS, ROOT, environment, tiny_config

from vit_jax.sweeps.folder import State, SweepFolder, read_lines
from vit_jax.train.preemption import EXIT_PREEMPTED

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        slurm_cluster.missing() is not None, reason=f"no Slurm here: {slurm_cluster.missing()}"
    ),
]
SECONDS = 400  # that any single wait may take; on an idle machine none takes a tenth of it

# The third begins with what the first has learned; the second is a mistake.
CONFIG = """
def get_config(arg):
    return {config!r}

def sweep():
    yield {{"name": "first", "train.seed": 0}}
    yield {{"name": "wrong", "data.source": "folder:/no/such/place"}}
    yield {{"name": "second", "train.seed": 1, "init.source": "trial:first"}}
"""


def test_an_array_of_trials_is_left_found_again_and_ends(tmp_path):
    (tmp_path / "configs").mkdir()
    config = tmp_path / "configs" / "tiny.py"
    evals = {"test": {"split": "test[:50]"}}
    config.write_text(CONFIG.format(config=tiny_config() | {"evals": evals}))
    sweep, output = SweepFolder.at(tmp_path / "sweep"), tmp_path / "out.txt"
    given = [f"--config={config}", f"--workdir={sweep.path}", "--launcher=slurm"]
    with slurm_cluster.running() as cluster:

        def start():
            return subprocess.Popen(
                [sys.executable, "-m", "vit_jax", "sweep", *given],
                cwd=ROOT,
                env={**environment(), **cluster.variables},
                stdout=output.open("a"),
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

        process, deadline = start(), time.monotonic() + SECONDS
        jobs = []
        while len(jobs) < 2:
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            lines = [line for one in sweep.known() for line in read_lines(one.attempts)]
            jobs = [line["job_id"] for line in lines if line["event"] == "start"]
            time.sleep(0.1)
        assert sorted(job.split("_")[1] for job in jobs) == ["0", "1"], "two jobs of one array"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=SECONDS) == EXIT_PREEMPTED, output.read_text()
        # As if it had been killed before it knew the job's number.
        told = sweep.trial("first").attempts
        told.write_text(told.read_text().splitlines(keepends=True)[0])
        assert start().wait(timeout=SECONDS) == 1, output.read_text() + cluster.logs()

    states = {record.name: record.state for record in sweep.records()}
    expected = {"first": State.FINISHED, "wrong": State.FAILED, "second": State.FINISHED}
    assert states == expected, output.read_text()
    # Nothing was submitted twice; the second wave had its own array.
    for folder in sweep.known():
        lines = read_lines(folder.attempts)
        assert [line["event"] for line in lines] == ["submit", "start", "end"]
        assert lines[-1]["exit_code"] == (2 if folder.name == "wrong" else 0)
    assert len({line["job_id"].split("_")[0] for f in sweep.known() for line in starts(f)}) == 2
    assert "Source 'folder:/no/such/place' needs" in sweep.trial("wrong").record().reason
    result = json.loads(sweep.trial("second").workdir.result.read_text())
    assert result["step"] == NUM_STEPS


def starts(folder):
    return [line for line in read_lines(folder.attempts) if line["event"] == "start"]
