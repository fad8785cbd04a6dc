"""Competitors in processes of their own, all alive, of which one runs at a time.

`answer` is within a process, `Worker` what its parent holds. Both talk in lines of JSON: a request
a line, an answer a line. A worker stands still between its answers, so that its threads take
nothing from the one that is measured.
"""

import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).parents[1]


class Worker:
    """A process that runs when asked and stands still otherwise.

    Attributes:
      name: what it is called in messages.
      log: what it and its libraries print.
    """

    def __init__(self, name: str, command: list[str], environment: Mapping[str, str]):
        self.name, self.log = name, tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            start_new_session=True,  # so that its workers can be stopped with it
            env={**os.environ, **environment},
        )

    def ask(self, request: Any) -> Any:
        """Lets it run until its answer; None where it ended instead, after printing why."""
        os.killpg(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.receive()

    def receive(self) -> Any:
        line = self.process.stdout.readline()
        if not line:
            self.log.seek(0)
            text = self.log.read().strip() or "no output"
            print(f"{self.name}: {text.splitlines()[-1]}", flush=True)
            self.close()
            return None
        os.killpg(self.process.pid, signal.SIGSTOP)
        return json.loads(line)

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def answer(handle: Callable[[Any], Any], *, hello: Any, to: TextIO) -> None:
    """Says `hello`, then answers requests by `handle` until the input ends."""
    print(json.dumps(hello), file=to, flush=True)
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), file=to, flush=True)


def take_output() -> TextIO:
    """The standard output, as a file; what libraries print goes to the log from now on."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


def versions(libraries: Iterable[str]) -> dict[str, str]:
    """Those of the libraries that are installed."""
    found = {}
    for name in libraries:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def machine() -> str:
    names = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
    name = names[0].split(":")[1].strip() if names else platform.processor()
    return f"{name}, {len(os.sched_getaffinity(0))} cores, Python {platform.python_version()}"


def public_command(script: Path, places: Iterable[str]) -> str:
    """This command, with PATH for the values of the arguments `places`, paths of this machine."""
    kept, is_place = [], False
    for argument in sys.argv[1:]:
        name, equals, _ = argument.partition("=")
        hidden = f"{name}=PATH" if equals and name in places else argument
        kept.append("PATH" if is_place else hidden)
        is_place = argument in places
    return "python " + shlex.join([str(script.relative_to(ROOT)), *kept])
