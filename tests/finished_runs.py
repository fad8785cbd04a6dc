"""What a run left behind, and whether two finished ones are the same to the bit."""

import json

import jax
import numpy as np
from toys import restore_newest

from vit_jax import restoring
from vit_jax.train.checkpoint import Checkpointer


def final_leaves(workdir):
    """Every array of the last checkpoint, on the host; the optimizer's too."""
    learner, _, _ = restoring.restore(workdir)
    checkpointer = Checkpointer(workdir / "checkpoints", read_only=True)
    state, step = restore_newest(checkpointer, learner.abstract_state())
    assert step == json.loads((workdir / "result.json").read_text())["step"]
    state = state.replace(rng=jax.random.key_data(state.rng))
    return {
        jax.tree_util.keystr(path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def assert_same_run(a, b):
    assert_same_end(a, b)
    assert train_rows(a) == train_rows(b)


def assert_same_end(a, b):
    """The same result, however often was logged on the way."""
    left, right = final_leaves(a), final_leaves(b)
    assert left.keys() == right.keys()
    for name in left:
        np.testing.assert_array_equal(left[name], right[name], err_msg=name)
    assert metrics_of(a) == metrics_of(b)


def metrics_of(workdir):
    """The last evaluation."""
    return json.loads((workdir / "result.json").read_text())["metrics"]


def steps_on_disk(workdir):
    folder = workdir / "checkpoints"
    return [p.name for p in folder.iterdir() if p.name.isdigit()] if folder.exists() else []


def train_rows(workdir):
    """The logged training losses, which do not depend on the clock."""
    rows = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
