"""Progress for a person: a bar on a terminal, plain lines elsewhere."""

import datetime
import re
from collections.abc import Mapping

from rich import progress
from rich.console import Console

from vit_jax.train.sinks import COUNTS

# Metrics that are shares of something, from 0 to 1, wherever in their name they say so. Of an error
# only that of a classification, since others have units.
SHARE = re.compile(
    r"(?:^|_)(?:top\d+|accuracy|precision|recall|f1|ece|auroc|aupr|fpr\d*|map|mfu)(?:_|$)"
    r"|^(?:vtab|corrupted_error|relative_error)$"
)


class ConsoleSink:
    """Shows each log line.

    Args:
      console: rich's; plain lines are printed where it is not a terminal.
      num_steps, start_step: optimizer steps in all, and done before.
      batch_size: examples of a step, for the time left.
    """

    def __init__(self, console: Console, *, num_steps: int, start_step: int, batch_size: int):
        self._console, self._num_steps, self._batch_size = console, num_steps, batch_size
        self._bar = None
        if console.is_terminal:
            self._bar = progress.Progress(
                progress.TextColumn("step"),
                progress.MofNCompleteColumn(),
                progress.BarColumn(),
                progress.TextColumn("{task.description}"),
                progress.TimeElapsedColumn(),
                console=console,
            )
            self._task = self._bar.add_task("starting", total=num_steps, completed=start_step)
            self._bar.start()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        if "speed/images_per_second" not in values:
            self._print(f"step {step}: {evaluation_text(values)}")
            return
        text = training_text(values)
        left = (self._num_steps - step) * self._batch_size / values["speed/images_per_second"]
        text += f" | ETA {datetime.timedelta(seconds=round(left))}"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        else:
            self._print(f"step {step}/{self._num_steps}: {text}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, soft_wrap=True, markup=False)


def training_text(values: Mapping[str, float]) -> str:
    parts = [f"loss {values['train/loss']:.4f}"]
    if "train/top1" in values:
        parts.append(f"top1 {values['train/top1']:.2%}")
    parts.append(f"lr {values['train/learning_rate']:.2e}")
    parts.append(speed_text(values))
    if "speed/mfu" in values:
        parts.append(f"MFU {values['speed/mfu']:.1%}")
    if "memory/device_peak_bytes" in values:
        parts.append(f"peak {values['memory/device_peak_bytes'] / 2**30:.1f} GiB")
    elif "memory/host_peak_bytes" in values:  # where devices do not count
        parts.append(f"peak {values['memory/host_peak_bytes'] / 2**30:.1f} GiB of RAM")
    shares = [f"{what} {values[f'speed/{what}_share']:.0%}" for what in ("data", "host", "device")]
    parts.append(f"time: {', '.join(shares)}")
    return " | ".join(parts)


def speed_text(values: Mapping[str, float]) -> str:
    """'2,000 images/s', and on several devices '2,000 images/s (250 a device)'."""
    rate = values["speed/images_per_second"]
    share = values.get("speed/images_per_second_per_device", rate)
    return f"{rate:,.0f} images/s" + (f" ({share:,.0f} a device)" if share != rate else "")


def evaluation_text(values: Mapping[str, float]) -> str:
    """'test/loss 0.0712 | test/top1 98.61% | test: 360 of 360 scored'."""
    shown, names = [], {}
    for name, value in values.items():
        head, _, metric = name.rpartition("/")
        if metric in COUNTS:
            names.setdefault(head, {})[metric] = round(value)
        else:
            shown.append(f"{name} {value_text(metric, value)}")
    shown += [f"{head}: {coverage(**numbers)}" for head, numbers in names.items()]
    return " | ".join(shown)


def value_text(metric: str, value: float | int) -> str:
    """'98.61%' of a share, '1,234' of a rate, else '0.0712'."""
    if metric.startswith("images_per_second"):
        return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"
    return f"{value:.2%}" if SHARE.search(metric) else f"{value:.4f}"


def coverage(*, scored: int, examples: int, unreadable: int = 0) -> str:
    """'49,998 of 50,000 scored, 2 unreadable'."""
    missing = {"unreadable": unreadable, "left out": examples - scored - unreadable}
    parts = [f"{count:,} {what}" for what, count in missing.items() if count]
    return ", ".join([f"{scored:,} of {examples:,} scored", *parts])
