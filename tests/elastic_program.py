"""A part of one training, on whatever devices there are; test_elastic.py puts the parts together.

    python tests/elastic_program.py WORKDIR MESH STEPS TOLD [--coordinator=... ...]

MESH is the config's section as JSON; after STEPS steps the run is asked to stop. What was restored
and which examples were seen goes to the file TOLD, as JSON.
"""

import contextlib
import hashlib
import itertools
import json
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
from absl import flags
from helpers import tiny_config
from jax.experimental import multihost_utils

from vit_jax import experiment
from vit_jax.commands import processes
from vit_jax.train import hosts, loop
from vit_jax.train.preemption import Preempted

NUM_STEPS = 12
# Wide enough that kernels are split by `fsdp`: 2 · 64 · 256 elements are more than SMALLEST_SPLIT.
MODEL = dict(width=64, mlp_dim=256, num_heads=4)


def digest(state):
    """Of every bit of a state, wherever its parts are."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        whole = np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        total.update(jax.tree_util.keystr(path).encode() + whole.tobytes())
    return total.hexdigest()


def part(workdir, mesh, steps):
    """Trains until asked to stop after `steps` steps, or to the end."""
    config = tiny_config(
        train__num_steps=NUM_STEPS,
        train__checkpoint_every=0,
        **{f"task__model__{name}": value for name, value in MODEL.items()},
    )
    config |= {"mesh": mesh, "evals": {}}
    told = {"indices": {}}
    fit, calls = loop.fit, itertools.count(1)

    def noted_fit(step_fn, state, data, **settings):
        told["restored"] = digest(state)

        def noted_data(start):
            for step, batch in enumerate(data(start), start):
                told["indices"][str(step)] = loop.example_indices(batch)
                yield batch

        return fit(step_fn, state, noted_data, **settings)

    @contextlib.contextmanager
    def asked_to_stop():
        yield lambda: next(calls) >= steps

    with (
        mock.patch.object(loop, "fit", noted_fit),
        mock.patch.object(experiment, "on_sigterm", asked_to_stop),
        contextlib.suppress(Preempted),
    ):
        experiment.run(config, workdir)
    return told


if __name__ == "__main__":
    values = flags.FlagValues()
    processes.define_flags(values)
    workdir, mesh, steps, target = values(sys.argv)[1:]
    with processes.connected(values):
        found = part(workdir, json.loads(mesh), int(steps))
        if hosts.is_first():
            Path(target).write_text(json.dumps(found))
