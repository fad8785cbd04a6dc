"""The flags of commands that several processes can run together."""

import contextlib
import os
from collections.abc import Iterator

from absl import flags

from vit_jax.errors import InputError


def define_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "that run together", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which of them this is, from 0", flag_values=values)
    flags.DEFINE_list(
        "local_device_ids", None, "GPUs of this process, e.g. 0,1", flag_values=values
    )
    flags.DEFINE_float(
        "connect_timeout",
        300,
        "seconds to wait for the other processes",
        lower_bound=1,
        flag_values=values,
    )


@contextlib.contextmanager
def connected(values: flags.FlagValues) -> Iterator[None]:
    """Inside, this process is one of several where flags or environment say so."""
    from vit_jax.train import cluster, hosts

    found = cluster.detect(
        os.environ,
        coordinator=values.coordinator,
        num_processes=values.num_processes,
        process_id=values.process_id,
        local_device_ids=_numbers(values.local_device_ids),
    )
    with hosts.connected(found, timeout_seconds=values.connect_timeout):
        if found is not None and hosts.is_first():
            print(f"{hosts.count()} processes, as told by {found.reason}", flush=True)
        yield


def refuse(command: str) -> None:
    """Raises `InputError` where this process was started as one of several."""
    from vit_jax.train import cluster

    if (found := cluster.detect(os.environ)) is not None:
        raise InputError(
            f"{command} was started as several processes, as told by {found.reason}; allowed: one."
        )


def _numbers(texts: list[str] | None) -> tuple[int, ...] | None:
    if texts is None:
        return None
    if not all(text.isdigit() for text in texts):
        raise InputError(f"--local_device_ids is {','.join(texts)}; allowed: numbers, e.g. 0,1.")
    return tuple(map(int, texts))
