"""A competitor in a process of its own: `serve` is within it, `Competitor` what others hold.

After its first batch the process says what it is, then answers each number of batches with the
seconds they took.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent), str(ROOT), str(ROOT / "tests")]

from side_by_side import Worker, answer, take_output, versions  # noqa: E402

WARM_BATCHES = 8  # more than any competitor's queues hold
LIBRARIES = (
    *("jax", "numpy", "pillow", "simplejpeg", "turbojpeg", "opencv-python-headless", "grain"),
    *("tensorflow-cpu", "tensorflow", "torch", "torchvision", "timm"),
)


def serve(name: str, settings: dict[str, Any]):
    """Until its input ends."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["cores"]])
    from competitors import COMPETITORS, Settings

    begin = time.perf_counter()
    answers = take_output()
    folder = Path(settings.pop("folder"))
    batches = COMPETITORS[name](Settings(folder=folder, **settings))
    batch = next(batches)
    first = time.perf_counter() - begin
    found = dict(first_batch=first, batch=_description(batch), versions=versions(LIBRARIES))

    def handle(count: int) -> float:
        _take(batches, WARM_BATCHES)
        begin = time.perf_counter()
        _take(batches, count)
        return time.perf_counter() - begin

    answer(handle, hello=found, to=answers)


def _take(batches, count: int):
    for _ in range(count):
        next(batches)


def _description(batch: Any) -> str:
    if isinstance(batch, int):
        return "none"
    if isinstance(batch, list | tuple):
        batch = batch[0]
    image = batch["image"] if isinstance(batch, dict) else batch
    return f"{str(image.dtype).removeprefix('torch.')}{list(image.shape)}"


class Competitor(Worker):
    """One that makes batches when asked."""

    def __init__(self, name: str, python: str, settings: dict[str, Any]):
        self.started = time.perf_counter()
        command = [python, str(HERE / "run.py"), "--worker", name, json.dumps(settings)]
        super().__init__(name, command, {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""})

    def first(self) -> dict[str, Any] | None:
        """What it says once it made a batch; None where it cannot, after printing why."""
        found = self.receive()
        if found is not None:
            found["start"] = time.perf_counter() - self.started  # imports included
        return found

    def run(self, batches: int) -> float:
        """Seconds for `batches`."""
        seconds = self.ask(batches)
        if seconds is None:
            raise SystemExit(f"{self.name} failed.")
        return seconds

    def memory(self) -> float:
        """MB of it and its workers; what they share is counted once (PSS)."""
        total = 0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(folder.name)) == self.process.pid:
                    lines = (folder / "smaps_rollup").read_text().splitlines()
                    total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            except OSError:  # it ended meanwhile
                continue
        return total / 1000
