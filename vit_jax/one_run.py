"""Several processes that train as one must have been given one run, and see one folder.

Otherwise they would compile different steps: the sums of both would be wrong without a word, or one
would wait in vain for the other. With a single process nothing is compared.
"""

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from vit_jax.errors import InputError
from vit_jax.train import agreement, hosts
from vit_jax.workdir import Workdir, claim, contradictions

# Keys that may differ between the hosts of a run: how each reads its rows.
OWN_KEYS = ("launch", "data.data_dir", "data.num_workers", "data.num_threads", "data.prefetch")
PATIENCE_SECONDS = 30.0  # network file systems may show a new file that much later


def agreed(read: Callable[[], dict[str, Any]], workdir: str | Path) -> dict[str, Any]:
    """This process's config, as `read` finds it.

    Raises:
      InputError: what `read` raises; or, on every process, if one of them was given another config
        or workdir than process 0.
    """
    with agreement.together():
        config = read()
    if hosts.count() == 1:
        return config
    run = {"workdir": str(Workdir.at(workdir).path), **config}
    first = agreement.from_first(lambda: json.loads(json.dumps(run)))
    with agreement.together():
        if different := contradictions(first, run, free=OWN_KEYS):
            raise InputError(
                f"was given another run than process 0: {'; '.join(different)}. Allowed: the same "
                "command for all processes."
            )
    return config


@contextlib.contextmanager
def claimed(workdir: str | Path, config: Mapping[str, Any]) -> Iterator[None]:
    """`workdir.claim` by process 0; raises `InputError` where another does not see its folder."""
    with agreement.held_by_first(claim(workdir, config)):
        lock = Workdir.at(workdir).lock
        with agreement.together():
            if not hosts.is_first() and not appears(lock, seconds=PATIENCE_SECONDS):
                raise InputError(
                    f"{lock.parent} is not the folder that process 0 sees under this name; "
                    "allowed: a workdir on a file system that all hosts share."
                )
        yield


def appears(path: Path, *, seconds: float) -> bool:
    """Is there such a file, or will there be one within so many seconds?"""
    deadline = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
