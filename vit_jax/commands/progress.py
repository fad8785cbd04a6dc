"""How far work on images is: a bar on a terminal, plain lines elsewhere."""

import datetime
import time

from rich import progress
from rich.console import Console

LINE_EVERY = 10.0  # seconds between two plain lines
_MEGABYTE = 1e6


class ImageProgress:
    """Shows images done, images/s, MB/s where bytes are counted, and the time left.

    Args:
      console: rich's; plain lines are printed where it is not a terminal.
      verb: what is done to the images, e.g. 'written'.
    """

    def __init__(self, console: Console, verb: str):
        self._console, self._verb = console, verb
        self._bar: progress.Progress | None = None
        self._first: tuple[float, int, int] | None = None  # time, images and bytes at the start
        self._last_line = 0.0

    def __enter__(self) -> "ImageProgress":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, done: tuple[int, int], total: tuple[int, int]) -> None:
        """Args: (images, bytes) done so far, those of earlier runs included, and in all.

        Without any images in all they are still being looked for.
        """
        if not total[0]:
            self._print("looking for the images")
            return
        now = time.monotonic()
        if self._first is None:
            self._first, self._last_line = (now, *done), now
            self._start(done, total)
        text = self._text(done, total, now)
        if self._bar is not None:
            self._bar.update(self._task, completed=done[0], description=text)
        elif now - self._last_line >= LINE_EVERY:
            self._last_line = now
            self._print(f"{done[0]:,} of {total[0]:,} images {self._verb}: {text}")

    def _start(self, done: tuple[int, int], total: tuple[int, int]) -> None:
        if done[0]:
            self._print(f"{done[0]:,} of {total[0]:,} images are {self._verb} already")
        if self._console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("images"),
                progress.MofNCompleteColumn(),
                progress.BarColumn(),
                progress.TextColumn("{task.description}"),
                progress.TimeElapsedColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task("starting", total=total[0], completed=done[0])
            self._bar.start()

    def _text(self, done: tuple[int, int], total: tuple[int, int], now: float) -> str:
        """'1,234 images/s | 56.7 MB/s | ETA 0:01:02'; of this run alone."""
        start, images, size = self._first
        if done[0] == images or now == start:
            return "starting"
        rate = (done[0] - images) / (now - start)
        megabytes = (done[1] - size) / (now - start) / _MEGABYTE
        bytes_text = f" | {megabytes:.1f} MB/s" if total[1] else ""
        left = datetime.timedelta(seconds=round((total[0] - done[0]) / rate))
        return f"{rate:,.0f} images/s{bytes_text} | ETA {left}"

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


class SectionProgress:
    """Shows which part of a page is being made, and how long each took.

    Args:
      console: rich's; plain lines are printed where it is not a terminal.
      total: parts in all.
    """

    def __init__(self, console: Console, total: int):
        self._console, self._total = console, total
        self._done, self._name, self._began = 0, "", 0.0
        self._bar = progress.Progress(
            progress.TextColumn("sections"),
            progress.MofNCompleteColumn(),
            progress.BarColumn(),
            progress.TextColumn("{task.description}"),
            progress.TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> "SectionProgress":
        self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        self._bar.stop()

    def begin(self, name: str) -> None:
        self._name, self._began = name, time.monotonic()
        self._bar.update(self._task, description=name)

    def end(self, problem: str = "") -> None:
        """`problem` is why there is nothing."""
        self._done += 1
        self._bar.update(self._task, completed=self._done)
        seconds = time.monotonic() - self._began
        told = f"left out: {problem}" if problem else f"{seconds:.1f} s"
        line = f"{self._done} of {self._total}: {self._name}, {told}"
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)
