"""A peer in a process of its own: `serve` is within it, `start` begins one."""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cases import GATE_STEPS, Case, parse_peer

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE.parent), str(ROOT), str(ROOT / "tests")]

from side_by_side import Worker, answer, take_output, versions  # noqa: E402

from vit_jax.xla_flags import prefer_batches  # noqa: E402

LIBRARIES = ("jax", "jaxlib", "flax", "optax", "torch", "timm", "transformers")


def make(peer: str, case: Case):
    name, options = parse_peer(peer)
    if name == "ours":
        from ours import Ours

        return Ours(case, options)
    from theirs import HuggingFace, Timm

    return {"timm": Timm, "huggingface": HuggingFace}[name](case, options)


def serve(peer: str, settings: dict[str, Any]) -> None:
    """Says what it is and what its first steps gave, then answers numbers of steps by seconds."""
    import time

    case = Case(**settings)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: case.cores])
    answers = take_output()
    made = make(peer, case)
    gate = made.gate(GATE_STEPS)
    _reset_peak()

    def handle(steps: int) -> dict[str, Any]:
        begin = time.perf_counter()
        made.run(steps)
        seconds = time.perf_counter() - begin
        return dict(seconds=seconds, bytes=made.memory() or _peak())

    answer(handle, hello=dict(gate=gate, versions=versions(LIBRARIES), **made.about()), to=answers)


def start(peer: str, case: Case, python: str) -> Worker:
    """JAX takes memory as it needs it, since the peers are alive together."""
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(case.cores)}
    if case.device == "cpu":
        environment |= {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    name, options = parse_peer(peer)
    if name == "ours":
        environment["XLA_FLAGS"] = options.get("xla_flags", "")
        if case.work != "infer1":
            prefer_batches(environment)  # as the commands `train` and `evaluate` do
    command = [python, str(HERE / "run.py"), "--worker", peer, json.dumps(asdict(case))]
    return Worker(peer, command, environment)


def _reset_peak() -> None:
    """From now on the process's peak is counted anew: importing and compiling are left out."""
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Peak bytes of this process in memory."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
