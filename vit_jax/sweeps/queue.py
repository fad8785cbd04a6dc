"""Which trial begins when: one loop between what is to be tried and what runs it.

A `Source` knows the trials: a list (below), or a search (search.py). A `Launcher` runs them: as
processes of this machine (local.py), or as jobs of a cluster (cluster.py). Neither keeps anything
that is not in the trials' folders, so that the loop may be killed at any time.
"""

import contextlib
import signal
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple, Protocol

from vit_jax.sweeps import attempts
from vit_jax.sweeps.folder import FINAL, State, SweepFolder, TrialFolder
from vit_jax.workdir import read_json

# Ends of a trial from which no other can begin.
WITHOUT_RESULT = {State.FAILED: "failed", State.PRUNED: "was stopped early"}


class Ended(NamedTuple):
    """A trial that no longer runs."""

    folder: TrialFolder
    exit_code: int  # as a shell has it
    asked: bool  # to leave, by the launcher


class Source(Protocol):
    def unfinished(self) -> list[TrialFolder]:
        """Trials that are known and not final."""
        ...

    def take(self, number: int, *, without: Collection[str]) -> list[TrialFolder]:
        """Up to `number` trials that can begin now, none of those named in `without`."""
        ...

    def settled(self, folder: TrialFolder) -> None:
        """Hears of the end of an attempt, after which the trial may be final or not."""
        ...

    def hopeless(self, running: Collection[TrialFolder]) -> list[TrialFolder]:
        """Those that need not run on; their pruned.json says why."""
        ...

    def is_done(self) -> bool:
        """Is every trial final, and none to come?"""
        ...


class Launcher(Protocol):
    capacity: int  # trials at once
    poll_seconds: float

    def adopt(self, folders: Sequence[TrialFolder]) -> list[TrialFolder]:
        """Those that an earlier launcher started and that run without it."""
        ...

    def start(self, folders: Sequence[TrialFolder]) -> None: ...

    def ended(self) -> list[Ended]:
        """Trials that ended since the last call."""
        ...

    def stop(self, folder: TrialFolder) -> None:
        """Asks a trial to save and leave."""
        ...

    def leave(self) -> bool:
        """The sweep has to leave: may it at once, or only when all trials have ended?

        Called again, it ends them.
        """
        ...

    def close(self) -> None:
        """Leaves no process behind."""
        ...


class Watcher(Protocol):
    """Tells a person."""

    def waits(self, folder: TrialFolder) -> None:
        """Somebody else runs this trial."""
        ...

    def began(self, folder: TrialFolder) -> None: ...

    def ended(self, folder: TrialFolder) -> None: ...

    def look(self, running: Collection[TrialFolder]) -> None: ...


class Listed:
    """Trials that are all known; each begins after those that it needs."""

    def __init__(self, folder: SweepFolder, names: Sequence[str]):
        self._folder = folder
        self._open = [folder.trial(name) for name in names]

    def unfinished(self) -> list[TrialFolder]:
        self._open = [folder for folder in self._open if folder.state() not in FINAL]
        return self._open

    def take(self, number: int, *, without: Collection[str]) -> list[TrialFolder]:
        ready = []
        for folder in self.unfinished() if number > 0 else ():
            if folder.name not in without and self._is_ready(folder):
                ready.append(folder)
            if len(ready) == number:
                break
        return ready

    def _is_ready(self, folder: TrialFolder) -> bool:
        # One that runs already is saved by the process of a sweep that was killed: it comes back.
        is_ready = folder.state() != State.RUNNING
        for name in read_json(folder.trial)["needs"]:
            state = self._folder.trial(name).state()
            is_ready &= state == State.FINISHED
            if state in WITHOUT_RESULT:
                attempts.give_up(folder, f"it needs {name}, which {WITHOUT_RESULT[state]}")
                return False
        return is_ready

    def settled(self, folder: TrialFolder) -> None:
        pass

    def hopeless(self, running: Collection[TrialFolder]) -> list[TrialFolder]:
        return []

    def is_done(self) -> bool:
        return not self.unfinished()


def drive(source: Source, launcher: Launcher, watcher: Watcher) -> bool:
    """Runs the source's trials; True at their end, False where it was asked to leave before.

    SIGTERM and SIGINT ask the trials of this machine to save, and wait for them; once more, and
    it does not wait.
    """
    with stop_signals() as stop_requested, contextlib.closing(launcher):
        running = {folder.name: folder for folder in launcher.adopt(source.unfinished())}
        for folder in source.unfinished():
            if folder.name not in running and folder.state() == State.RUNNING:
                watcher.waits(folder)
        withdrawn: set[str] = set()  # by a person: they wait for the next command
        leaving = 0  # signals that were heard
        while True:
            for end in launcher.ended():
                running.pop(end.folder.name, None)
                attempts.settle(end.folder, end.exit_code, asked=end.asked)
                source.settled(end.folder)
                watcher.ended(end.folder)
                if end.asked and not leaving:
                    withdrawn.add(end.folder.name)
            if stop_requested() > leaving:
                leaving += 1
                if launcher.leave():
                    return False
            if leaving and not running:
                return False
            if not leaving:
                for folder in source.hopeless(running.values()):
                    launcher.stop(folder)
                begin(source, launcher, watcher, running, withdrawn)
                if not running and (source.is_done() or (withdrawn and is_quiet(source))):
                    return True
            watcher.look(running.values())
            time.sleep(launcher.poll_seconds)


def is_quiet(source: Source) -> bool:
    """Is no trial run by somebody else, for whom to wait?"""
    return all(folder.state() != State.RUNNING for folder in source.unfinished())


def begin(
    source: Source,
    launcher: Launcher,
    watcher: Watcher,
    running: dict[str, TrialFolder],
    withdrawn: set[str],
) -> None:
    """Starts what can begin, as many as there is room for."""
    found = source.take(launcher.capacity - len(running), without=running.keys() | withdrawn)
    if found:
        launcher.start(found)
    for folder in found:
        running[folder.name] = folder
        watcher.began(folder)


@contextlib.contextmanager
def stop_signals() -> Iterator[Callable[[], int]]:
    """Yields a function that says how often SIGTERM or SIGINT came; restores the handlers."""
    arrived: list[int] = []
    hear = lambda number, _: arrived.append(number)  # noqa: E731
    previous = {n: signal.signal(n, hear) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: len(arrived)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
