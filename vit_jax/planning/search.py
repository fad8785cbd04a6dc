"""Which rematerialisation and which number of microbatches fit a device.

The global batch is what the config says; more microbatches, fewer rows at once. For each policy
the fewest microbatches that fit are the largest microbatch. The cheapest policy computes least
again; among equals the one with fewer microbatches, as each sums gradients and sends parameters.
"""

import bisect
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vit_jax.errors import InputError
from vit_jax.learner import Learner
from vit_jax.planning.model import setting
from vit_jax.planning.work import Work

# Of a device's memory: for the runtime's own buffers, for holes between arrays, and for what
# differs between the traced program and the compiled one.
RESERVE = 0.1


class Option(NamedTuple):
    """A policy with the fewest microbatches that fit, or if none does, with as many as can be."""

    remat: str | None  # None: of a model that has no such setting
    accum_steps: int
    microbatch: int  # rows of a device
    memory: Mapping[str, int]
    flops_per_example: float
    fits: bool
    work: Work


def search(
    config: Mapping[str, Any],
    work: Work,
    build: Callable[[Mapping[str, Any]], Learner],
    usable_bytes: float,
    policies: tuple[str, ...],
) -> list[Option]:
    """One option for each policy; `work` is the config's own."""
    configured = setting(work.learner, "remat")
    if configured is None:
        return [option(work, None, usable_bytes)]
    works = {configured: work}
    for name in policies:
        if name not in works:
            with contextlib.suppress(InputError):  # not every model has every policy
                works[name] = Work(build(set_key(config, REMAT, name)), work.batch_size)
    return [option(works[name], name, usable_bytes) for name in policies if name in works]


def option(work: Work, remat: str | None, usable_bytes: float) -> Option:
    steps = divisors(work.rows)
    if work.learner.task.mixes_examples:
        steps = [1]  # microbatches would change the loss

    def fits(accum_steps: int) -> bool:
        return work.memory(accum_steps)["total"] <= usable_bytes

    # The first is apart: from two on there is one more copy of the gradients.
    if not fits(found := 1) and len(steps) > 1:
        place = bisect.bisect_left(steps, True, lo=1, hi=len(steps) - 1, key=fits)
        found = steps[place]
    return Option(
        remat=remat,
        accum_steps=found,
        microbatch=work.rows // found,
        memory=work.memory(found),
        flops_per_example=work.flops_per_example,
        fits=fits(found),
        work=work,
    )


def cheapest(options: list[Option]) -> Option | None:
    """None where nothing fits."""
    fitting = [option for option in options if option.fits]
    return min(fitting, key=lambda o: (o.flops_per_example, o.accum_steps), default=None)


def flags(option: Option) -> list[str]:
    found = [f"--config.train.accum_steps={option.accum_steps}"]
    return found + ([f"--config.{'.'.join(REMAT)}={option.remat}"] if option.remat else [])


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def set_key(config: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """The config with one key set, as a copy."""
    first, *rest = path
    inner = set_key(config.get(first, {}), tuple(rest), value) if rest else value
    return {**config, first: inner}


REMAT = ("task", "model", "remat")
