"""What a reader of a plan has to know: assumptions, estimates, and what looks wrong."""

from collections.abc import Mapping
from typing import Any

from vit_jax.analysis import roofline
from vit_jax.analysis.devices import Device
from vit_jax.planning.model import setting
from vit_jax.planning.speed import Traffic
from vit_jax.planning.work import Work

# More than so many times the expected bytes means that a compiler moves what it need not.
SUSPICIOUS, SMALL = 3, 2**20


def of(card: Mapping[str, Any], work: Work, device: Device | None) -> list[str]:
    found = [*_remat(work), *_compiled(card)]
    if device is None:
        return found
    if card["speed"] is None:
        return [*found, "the device's peak is not known, so neither time nor fit are told"]
    if card["fit"]:
        found.append(_fit(card["fit"], device))
    return [*found, *roofline.ASSUMPTIONS]


def is_suspicious(sent: list[Traffic], needed: list[Traffic]) -> bool:
    a, b = (sum(part.bytes_per_step for part in traffic) for traffic in (sent, needed))
    return a > SUSPICIOUS * b + SMALL


def _remat(work: Work) -> list[str]:
    unroll = setting(work.learner, "unroll", 1)
    if setting(work.learner, "remat", "none") == "none" or unroll == 1:
        return []
    return [
        f"remat is counted as if it held, but with unroll {unroll} XLA may merge what is computed "
        "again with what was computed before; with unroll 1 it cannot"
    ]


def _compiled(card: Mapping[str, Any]) -> list[str]:
    step = card["compiled"]
    if not step:
        return []
    found = []
    if step["backend"] == "cpu":
        found.append(
            "the step was compiled by XLA's CPU compiler, one layer a pass: bytes of arguments "
            "and the axes of collectives are exact; temporary buffers are its own, with weights of "
            "attention and much of bfloat16 as float32; sums of bfloat16 between devices count "
            "twice what an accelerator sends, and along fsdp it sums where accelerators scatter"
        )
    sent, needed = (
        [Traffic((), "", part["bytes_per_step"], None) for part in each["collectives"]]
        for each in (step, card)
    )
    if is_suspicious(sent, needed):
        sent, needed = (sum(part.bytes_per_step for part in each) for each in (sent, needed))
        found.append(
            f"the compiled step sends {sent / 1e9:.3g} GB, and the mesh needs {needed / 1e9:.3g} "
            "GB: the compiler moves what it need not"
        )
    if not step["collectives_are_exact"]:
        found.append("how often some collectives run is a guess, as loops may end early")
    return found


def _fit(fit: Mapping[str, Any], device: Device) -> str:
    text = f"{fit['reserve_share']:.0%} of the device's memory are kept as a reserve"
    if device.backend == "gpu":
        text += "; JAX takes 75 % of a GPU unless XLA_PYTHON_CLIENT_MEM_FRACTION=0.95 says more"
    return text
