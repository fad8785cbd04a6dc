"""Several processes, usually one a host, that train as one.

They run the same program on one mesh. `connected` lets them meet and part. Between the two every
process must come to the same collectives in the same order; whoever leaves the way alone would
leave the others waiting. `cluster.py` says whether there are several at all.

A process that fails alone ends at once, without the barrier at which JAX would have it wait for
the others: its closed connections tell them. Where the backend waits on regardless (NCCL), JAX's
heartbeats end the others after `HEARTBEAT_SECONDS`.
"""

import collections
import contextlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from vit_jax.errors import InputError
from vit_jax.train import sharding
from vit_jax.train.cluster import Cluster, port_of

EXIT_LOST = 69  # EX_UNAVAILABLE of sysexits.h: another process is gone, or never came
CONNECT_SECONDS = 300  # nodes of a large job may start minutes apart
HEARTBEAT_SECONDS = 60  # without a sign of life a process counts as lost
SHUTDOWN_SECONDS = 120  # to wait at the end for process 0, which writes results and figures
# Words of errors that tell of another process rather than of this one's own work.
_SIGNS_OF_LOSS = ("gloo", "nccl", "peer", "coordination", "barrier", "heartbeat", "socket closed")


def is_first() -> bool:
    """Does this process write the files and speak for all?"""
    return jax.process_index() == 0


def count() -> int:
    return jax.process_count()


class Share(NamedTuple):
    """Which part of each global batch a process reads."""

    index: int  # position of its block of rows
    count: int  # such blocks in a batch


WHOLE = Share(0, 1)


def share_of_batch(mesh: Mesh) -> Share:
    """This process's rows, which are those that its devices hold.

    Where the `tensor` axis reaches over several hosts these read the same rows.

    Raises:
      InputError: unless its rows are one block, and the batch is made of blocks of that size.
    """
    if count() == 1:
        return WHOLE
    shards = sharding.num_batch_shards(mesh)
    rows = sharding.batch_sharding(mesh).addressable_devices_indices_map((shards,))
    own = sorted({row for (rows_of_one,) in rows.values() for row in range(shards)[rows_of_one]})
    is_block = own == list(range(own[0], own[0] + len(own)))
    if not is_block or shards % len(own) or own[0] % len(own):
        raise InputError(
            f"config.mesh gives process {jax.process_index()} the parts {own} of the {shards} of "
            "each batch; allowed: a mesh whose tensor axis divides the devices of a process, or is "
            "a multiple of them."
        )
    return Share(own[0] // len(own), shards // len(own))


@contextlib.contextmanager
def connected(
    cluster: Cluster | None, *, timeout_seconds: float = CONNECT_SECONDS
) -> Iterator[None]:
    """Joins the other processes for the duration of a `with` block; before JAX opens any device.

    Does nothing where `cluster` is None. An error that is this process's alone, and the loss of
    another process, end this process inside: with a sentence or a traceback and an exit code other
    than 0. Errors whose `on_every_host` is true pass, since the others part in the same way.

    Raises:
      InputError: if the cluster's description does not suffice.
    """
    if cluster is None:
        yield
        return
    _connect(cluster, timeout_seconds)
    try:
        with contact():
            check_devices([device.process_index for device in jax.devices()])
            yield
    finally:
        jax.distributed.shutdown()


def check_devices(owners: Sequence[int]) -> None:
    """Raises `InputError` unless all processes, which are given device by device, have as many."""
    found = collections.Counter(owners)
    if len(set(found.values())) > 1 or len(found) < count():
        raise InputError(
            f"the processes have {[found[i] for i in range(count())]} devices; allowed: as many "
            "for each."
        )


@contextlib.contextmanager
def contact() -> Iterator[None]:
    """Inside, an error that is this process's alone ends it: to clean up would be to wait in vain.

    Does nothing where there is one process.
    """
    try:
        yield
    except BaseException as error:
        if count() > 1 and not getattr(error, "on_every_host", False):
            _leave(error)
        raise


def _connect(cluster: Cluster, timeout_seconds: float) -> None:
    # JAX would abort with a stack trace after its own time-out, so that comes later.
    alarm = threading.Timer(timeout_seconds, _give_up, [cluster, timeout_seconds])
    alarm.daemon = True
    alarm.start()
    _check_port(cluster)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours, see `agreement.py`
    try:
        jax.distributed.initialize(
            coordinator_address=cluster.coordinator,
            num_processes=cluster.num_processes,
            process_id=cluster.process_id,
            local_device_ids=cluster.local_device_ids,
            cluster_detection_method=cluster.method,
            initialization_timeout=int(timeout_seconds) + 60,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"the processes told of by {cluster.reason} cannot be connected "
            f"({_first_line(error)}); allowed: what jax.distributed.initialize takes."
        ) from error
    finally:
        alarm.cancel()


def _check_port(cluster: Cluster) -> None:
    """JAX would crash without a word where the coordinator's port is taken."""
    if cluster.coordinator is None or cluster.process_id != 0:
        return
    port = port_of(cluster.coordinator)
    with socket.socket(socket.AF_INET6 if socket.has_ipv6 else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(
                f"port {port} of the coordinator {cluster.coordinator} cannot be opened here "
                f"({error.strerror}); allowed: a free port of the host of process 0."
            ) from error


def _give_up(cluster: Cluster, timeout_seconds: float) -> None:
    which = "" if cluster.process_id is None else f" {cluster.process_id}"
    number = "" if cluster.num_processes is None else f" {cluster.num_processes}"
    where = "" if cluster.coordinator is None else f" at {cluster.coordinator}"
    _exit(
        EXIT_LOST,
        f"error: process{which} waited {timeout_seconds:g} seconds for all{number} processes to "
        f"meet{where} (by {cluster.reason}), and not all came.",
    )


def _leave(error: BaseException) -> None:
    """Ends this process alone and at once, which the others will notice."""
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        _exit(error.code)
    if isinstance(error, KeyboardInterrupt):
        _exit(128 + signal.SIGINT)
    if isinstance(error, InputError):
        _exit(2, f"error: {error}")  # as `__main__` has it
    if tells_of_loss(error):
        _exit(
            EXIT_LOST,
            f"error: process {jax.process_index()} has lost another process "
            f"({_first_line(error)}); the same command continues from the last checkpoint.",
        )
    _exit(1, "".join(traceback.format_exception(error)).rstrip())


def tells_of_loss(error: BaseException) -> bool:
    """Does this error of a backend or of Orbax say that another process is gone?"""
    text = str(error).lower()
    is_backend = isinstance(error, (ValueError, RuntimeError, TimeoutError))
    return is_backend and any(sign in text for sign in _SIGNS_OF_LOSS)


def _exit(code: int, message: str | None = None) -> None:
    if message:
        print(message, file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
