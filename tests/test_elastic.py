"""A run that moves from 8 devices to 1, to 2 hosts of 4, to 2 hosts of 1 and back to 8."""

import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from elastic_program import NUM_STEPS, digest, part
from helpers import ROOT, environment
from together import PATIENCE, Together

from vit_jax import restoring
from vit_jax.train.agreement import LAG
from vit_jax.train.checkpoint import Checkpointer

WHOLE = dict(data=1, fsdp=8)
PROGRAM = str(ROOT / "tests" / "elastic_program.py")


def saved(workdir):
    """The newest checkpoint's state on this process's 8 devices, in another layout again."""
    learner, _, _ = restoring.restore(workdir)
    checkpointer = Checkpointer(workdir / "checkpoints", read_only=True)
    state = checkpointer.restore(checkpointer.newest(), learner.abstract_state())
    checkpointer.close()
    return state


def on_one_device(workdir, steps):
    target = workdir.parent / "one.json"
    command = [sys.executable, PROGRAM, str(workdir), "{}", str(steps), str(target)]
    output = workdir.parent / "one.txt"
    code = subprocess.run(
        command,
        cwd=ROOT,
        env=environment(1) | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=output.open("w"),
        stderr=subprocess.STDOUT,
        timeout=PATIENCE,
    ).returncode
    assert code == 0, output.read_text()
    return json.loads(target.read_text())


def on_two_hosts(workdir, mesh, steps, *, devices):
    target = workdir.parent / f"two{devices}.json"
    command = [PROGRAM, str(workdir), json.dumps(mesh), str(steps), str(target)]
    together = Together(command, workdir.parent, f"two{devices}", devices=devices)
    assert together.codes() == [0, 0], together.texts()
    return json.loads(target.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The uninterrupted run, the moved one, and what was told of each part."""
    folder = tmp_path_factory.mktemp("elastic")
    whole, moved = folder / "whole", folder / "moved"
    told_of_whole = part(whole, WHOLE, NUM_STEPS + 1)
    parts, states = [part(moved, WHOLE, 2)], [digest(saved(moved))]
    for move in (
        lambda: on_one_device(moved, 2),
        lambda: on_two_hosts(moved, dict(data=2, fsdp=4), 1, devices=4),
        lambda: on_two_hosts(moved, dict(data=1, fsdp=2), 1, devices=1),
        lambda: part(moved, WHOLE, NUM_STEPS + 1),
    ):
        parts.append(move())
        states.append(digest(saved(moved)))
    return whole, moved, told_of_whole, parts, states


def test_what_is_restored_has_the_bits_that_were_saved(runs):
    _, _, _, parts, states = runs
    assert [told["restored"] for told in parts[1:]] == states[:-1]
    assert len(set(states)) == len(states)  # and every part trained


def test_every_step_has_the_batch_it_would_have_had(runs):
    _, _, told_of_whole, parts, _ = runs
    steps = [list(map(int, told["indices"])) for told in parts]
    hosts = 1 + LAG  # what several processes agree on comes LAG steps later
    assert list(map(len, steps)) == [2, 2, hosts, hosts, NUM_STEPS - 4 - 2 * hosts]
    assert list(itertools.chain(*steps)) == list(range(NUM_STEPS))
    seen = {step: rows for told in parts for step, rows in told["indices"].items()}
    assert seen == told_of_whole["indices"]


def test_the_end_is_that_of_the_uninterrupted_run(runs):
    whole, moved, *_ = runs
    left, right = saved(whole), saved(moved)
    assert int(left.step) == int(right.step) == NUM_STEPS
    # Sums over devices in another order change a gradient's last bits. Where a gradient is nearly
    # zero Adam's first steps turn these into a part of the learning rate, 2e-3 at its highest.
    for a, b in zip(jax.tree.leaves(left.params), jax.tree.leaves(right.params), strict=True):
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=1e-3)
