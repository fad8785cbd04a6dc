"""What a sweep has cost: the time of its attempts, and that times the devices of each.

An attempt whose end nobody could write down, since it was killed together with its runner, has no
known time: it is counted apart, and the sums are then too low. Jobs of a cluster begin when they
are submitted, so their time includes the waiting.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

from vit_jax.sweeps.folder import Record, State

_DEVICES = re.compile(r"(\d+) x (.+)")  # as in the cards: '8 x NVIDIA H100'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spent:
    """Of one trial. `seconds` is None where no attempt's time is known."""

    attempts: int
    unknown: int
    seconds: float | None
    num_devices: int | None
    kind: str | None

    @property
    def device_hours(self) -> float | None:
        if self.seconds is None or self.num_devices is None:
            return None
        return self.seconds * self.num_devices / 3600


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """Of all trials.

    Attributes:
      seconds: of all attempts, one after another, as if no two had run at once.
      device_hours: seconds times devices, of trials whose card tells their devices.
      unknown: attempts whose time is not in the sums, since they run or were killed.
      has_jobs: some attempts were jobs of a cluster, and so waited in its queue.
      devices: '1 x cpu' and the like.
    """

    seconds: float
    device_hours: float
    attempts: int
    unknown: int
    has_jobs: bool
    devices: tuple[str, ...]


def spent(record: Record) -> Spent:
    times = list(_times(record.attempts))
    known = [seconds for seconds in times if seconds is not None]
    if not record.attempts and record.state == State.FINISHED:  # trained by hand, not by a sweep
        seconds = (record.workdir.read_result() or {}).get("seconds")
        times = [seconds]
        known = [] if seconds is None else [float(seconds)]
    found = _DEVICES.fullmatch(record.card.get("devices", ""))
    return Spent(
        attempts=len(times),
        unknown=len(times) - len(known),
        seconds=sum(known) if known else None,
        num_devices=int(found[1]) if found else None,
        kind=found[2] if found else None,
    )


def total(records: Sequence[Record]) -> Cost:
    each = [spent(record) for record in records]
    return Cost(
        seconds=sum(one.seconds or 0.0 for one in each),
        device_hours=sum(one.device_hours or 0.0 for one in each),
        attempts=sum(one.attempts for one in each),
        unknown=sum(one.unknown for one in each),
        has_jobs=any("job_id" in line for record in records for line in record.attempts),
        devices=tuple(sorted({r.card["devices"] for r in records if "devices" in r.card})),
    )


def _times(attempts: Sequence[dict[str, Any]]) -> Iterator[float | None]:
    """Seconds of each attempt; None where a start has no end."""
    began = None
    for line in attempts:
        if line.get("event") == "start":
            if began is not None:
                yield None
            began = line.get("time", float("nan"))
        elif line.get("event") == "end" and began is not None:
            seconds = line.get("time", float("nan")) - began
            yield seconds if seconds >= 0 else None  # NaN, too: a line without its time
            began = None
    if began is not None:
        yield None
