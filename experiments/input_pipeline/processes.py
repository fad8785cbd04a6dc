"""A competitor in a process of its own: `serve` is within it, `Competitor` what others hold.

Both sides talk in lines of JSON: after its first batch the process says what it is, then answers
each number of batches with the seconds they took.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
WARM_BATCHES = 8  # more than any competitor's queues hold
LIBRARIES = (
    *("jax", "numpy", "pillow", "simplejpeg", "turbojpeg", "opencv-python-headless", "grain"),
    *("tensorflow-cpu", "tensorflow", "torch", "torchvision", "timm"),
)


def serve(name: str, settings: dict[str, Any]):
    """Until its input ends."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: settings["cores"]])
    sys.path[:0] = [str(HERE), str(ROOT), str(ROOT / "tests")]
    from competitors import COMPETITORS, Settings

    begin = time.perf_counter()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not be taken for an answer
    folder = Path(settings.pop("folder"))
    batches = COMPETITORS[name](Settings(folder=folder, **settings))
    batch = next(batches)
    first = time.perf_counter() - begin
    found = dict(first_batch=first, batch=_description(batch), versions=_versions())
    print(json.dumps(found), file=answers, flush=True)
    for line in sys.stdin:
        _take(batches, WARM_BATCHES)
        begin = time.perf_counter()
        _take(batches, int(line))
        print(json.dumps(time.perf_counter() - begin), file=answers, flush=True)


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


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Competitor:
    """A process that runs when asked and stands still otherwise."""

    def __init__(self, name: str, python: str, settings: dict[str, Any]):
        self.name, self.log = name, tempfile.TemporaryFile("w+")  # noqa: SIM115
        command = [python, str(HERE / "run.py"), "--worker", name, json.dumps(settings)]
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,  # so that its workers can be stopped with it
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )

    def first(self) -> dict[str, Any]:
        """What it says once it made a batch; None where it cannot, after printing why."""
        found = self._answer()
        if found is not None:
            found["start"] = time.perf_counter() - self.started  # imports included
            os.killpg(self.process.pid, signal.SIGSTOP)
        return found

    def run(self, batches: int) -> float:
        """Seconds for `batches`."""
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(f"{batches}\n")
        self.process.stdin.flush()
        seconds = self._answer()
        os.killpg(self.process.pid, signal.SIGSTOP)
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

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answer(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            print(f"{self.name}: {(self.log.read().strip() or 'no output').splitlines()[-1]}")
            self.close()
            return None
        return json.loads(line)
