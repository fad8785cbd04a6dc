"""What one of two processes with four devices each sees; test_hosts.py compares them.

    python tests/host_program.py FOLDER --coordinator=... --num_processes=2 --process_id=I

writes FOLDER/I.json. One start serves many tests, since starting costs more than all of them.
"""

import dataclasses
import itertools
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from vit_jax.commands import processes
from vit_jax.data import pipeline
from vit_jax.errors import InputError
from vit_jax.train import agreement, hosts, sharding
from vit_jax.train.checkpoint import SEAL, Checkpointer, checksums
from vit_jax.train.loop import example_indices

BATCH, BATCHES = 16, 3
STOP_AT = 3  # the call at which process 1 first wants to stop
BAD_BATCH = 2  # of process 1
MESHES = {
    "data": dict(data=8),
    "fsdp": dict(data=1, fsdp=8),
    "tensor": dict(data=1, tensor=8),
    "mixed": dict(data=2, tensor=4),
    "uneven": dict(data=1, fsdp=4, tensor=2),
}


class Recording:
    """A source that notes what is opened."""

    def __init__(self, source):
        self.source, self.opened = source, []

    def __getattr__(self, name):
        return getattr(self.source, name)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        self.opened.append(int(i))
        return self.source[i]


def message(action):
    try:
        action()
    except InputError as error:
        return f"{type(error).__name__}: {error}"
    return None


def shares():
    return {name: hosts.share_of_batch(sharding.make_mesh(**m)) for name, m in MESHES.items()}


def reading(mesh):
    """Examples opened, rows given to the devices, and rows of the global batches, by mesh."""
    share = hosts.share_of_batch(mesh)
    data = pipeline.build(
        source="digits",
        batch_size=BATCH,
        image_size=8,
        seed=0,
        num_threads=0,
        process_index=share.index,
        process_count=share.count,
    )
    source = Recording(data.train.source)
    train = dataclasses.replace(data.train, source=source)
    assert "image" in train.spec  # every host looks at the first example for the shapes
    source.opened.clear()
    rows = list(itertools.islice(train.iterate(5), BATCHES))
    global_rows = [example_indices(batch) for batch in sharding.to_devices(rows, mesh)]
    return {
        "opened": source.opened,
        "own": np.concatenate([batch["index"] for batch in rows]).tolist(),
        "global": global_rows,
    }


def one_fails():
    with agreement.together():
        if not hosts.is_first():
            raise InputError("there is no file a.png; allowed: one that is there.")


def all_fail():
    with agreement.together():
        raise InputError("the config lacks data.")


def first_fails():
    def refuse():
        raise InputError("the folder cannot be written.")

    agreement.from_first(refuse)


def answers():
    """What `Votes` answers, call after call, where process 1 wants to stop from `STOP_AT` on."""
    calls = itertools.count(1)
    votes = agreement.Votes(lambda: next(calls) >= STOP_AT and not hosts.is_first())
    return [votes() for _ in range(STOP_AT + agreement.LAG + 2)]


def failing_data(number):
    """Batches taken until all learn that process 1 has a bad one, and how they learn it."""

    def batches():
        for k in range(number):
            if k == BAD_BATCH and not hosts.is_first():
                raise InputError("k.png is no image.")
            yield k

    votes, taken = agreement.Votes(), []

    def train():
        for batch in votes.guard(batches(), -1, number=number):
            taken.append(batch)
            votes()

    return {"message": message(train), "taken": taken}


def save(folder):
    """Two checkpoints of a state that both processes hold parts of; the second gets damaged."""
    mesh = sharding.make_mesh(data=1, fsdp=8)
    values = np.arange(2.0**15, dtype=np.float32).reshape(256, 128)

    def state_at(scale):
        state = {"w": scale * values, "step": np.int32(scale)}
        places = sharding.state_sharding(state, mesh)
        return jax.tree.map(
            lambda x, s: jax.make_array_from_callback(x.shape, s, lambda i: x[i]), state, places
        )

    checkpointer = Checkpointer(folder, card={"a": 1})
    for step in (1, 2):
        checkpointer.save(step, state_at(step), {})
    checkpointer.wait()
    sealed = json.loads((folder / "2" / SEAL).read_text())
    complete = sealed == dict(checksums(folder / "2"))
    agreement.total(0, share=0)  # both have looked
    if hosts.is_first():
        victim = max((folder / "2" / "state").rglob("*"), key=lambda p: p.stat().st_size)
        content = bytearray(victim.read_bytes())
        content[len(content) // 2] ^= 1
        victim.write_bytes(content)
    newest = checkpointer.newest()
    target = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state_at(1)
    )
    restored = checkpointer.restore(newest, target)
    own = [np.array_equal(s.data, values[s.index]) for s in restored["w"].addressable_shards]
    missing = message(lambda: checkpointer.read_card(2))
    checkpointer.save(2, state_at(2), {})  # what was moved aside can be written again
    checkpointer.close()
    return {
        "writers": sorted({n.split("/")[1] for n in sealed if "ocdbt.process" in n}),
        "complete": complete,
        "newest": newest,
        "restored": all(own) and len(own) == 4,
        "missing": missing,
        "steps": checkpointer.steps(),
    }


def main(folder):
    told = {
        "shares": shares(),
        "reading": {name: reading(sharding.make_mesh(**m)) for name, m in MESHES.items()},
        "one_fails": message(one_fails),
        "all_fail": message(all_fail),
        "first_fails": message(first_fails),
        "from_first": agreement.from_first(lambda: {"é": [jax.process_index(), None]}),
        "answers": answers(),
        "failing_data": failing_data(100),
        "failing_evaluation": failing_data(BAD_BATCH + 1),
        "total": agreement.total(3 + jax.process_index(), share=jax.process_index()),
        "shared_total": agreement.total(3, share=0),
        "checkpoints": save(folder / "checkpoints"),
    }
    (folder / f"{jax.process_index()}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    values = flags.FlagValues()
    processes.define_flags(values)
    (folder,) = values(sys.argv)[1:]
    with processes.connected(values):
        assert jnp.ones(1).sum() == 1 and jax.device_count() == 8
        main(Path(folder))
