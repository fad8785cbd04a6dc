"""Training and inference speed of this project's ViT beside timm's and Hugging Face's.

    python experiments/throughput/run.py --models Ti/16 S/16 --torch_python=PYTHON

For each case (model, image size, work) each peer is a process of its own (processes.py), alive and
warm for the whole case but stopped while another runs. All begin from the same weights; before
anything is timed their losses, or logits, must agree. A round lets each make `--steps` steps (or as
many as fill `--seconds`), to and fro through the list. Reported are medians over rounds, of
images a second and of the ratio to the reference in the same round, because a machine's speed
drifts by more than what is to be told apart.

A peer is `ours`, `timm` or `huggingface`, with options behind '+': `timm+compile=default`,
`ours+unroll=1+remat=dots+accum_steps=4`, `'ours+xla_flags=--a=1 --b=2'`. So one call compares
this project's own settings, too. Finished cases are kept in results.json with `--resume`, and
`--minutes` ends what would take longer: rounds become fewer, then cases are left out by name.

This interpreter needs `vit_jax[weights]`; `--torch_python` names one with torch, timm,
transformers and safetensors, if not this one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import cases
from cases import Case
from processes import HERE, serve, start
from report import report
from side_by_side import Worker, machine, public_command

PEERS = ("timm", "timm+compile=default", "huggingface", "ours")
# Of the reference's: logits by the L2 norm of the difference, losses each.
LOGITS_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
LOSS_TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-2}
FEWEST_ROUNDS = 3
PLACES = ("--output", "--torch_python")  # arguments that are paths of a machine


def main():
    if sys.argv[1:2] == ["--worker"]:
        return serve(sys.argv[2], json.loads(sys.argv[3]))
    if sys.argv[1:2] == ["--weights"]:
        return prepare(Case(**json.loads(sys.argv[2])))
    arguments = parse()
    deadline = time.monotonic() + 60 * arguments.minutes
    result = read(arguments)
    todo = [case for case in all_cases(arguments) if case.name not in result["cases"]]
    for i, case in enumerate(todo):
        share = (deadline - time.monotonic()) / (len(todo) - i)
        if share < arguments.least_seconds:
            print(f"no time for {', '.join(c.name for c in todo[i:])}", flush=True)
            break
        found = measure(case, arguments, time.monotonic() + share)
        if found is not None:
            result["cases"][case.name] = found
            write(result, arguments.output)


def all_cases(arguments: argparse.Namespace) -> list[Case]:
    """Without those whose patches do not fill the image, which are named."""
    found = []
    for model in arguments.models:
        for image_size in arguments.sizes:
            if image_size % int(model.split("/")[1]):
                print(f"{model} at {image_size} is left out: no whole number of patches")
                continue
            for work in arguments.works:
                batch = cases.batch_of(model, work, arguments.device, arguments.batch)
                case = Case(
                    model=model,
                    image_size=image_size,
                    work=work,
                    batch=batch,
                    device=arguments.device,
                    dtype=arguments.dtype,
                    cores=arguments.cores,
                    weights="",
                )
                found.append(case)
    return found


def measure(case: Case, arguments: argparse.Namespace, until: float) -> dict[str, Any] | None:
    """One case: a row for each peer that could run."""
    print(case.name, flush=True)
    running: dict[str, Worker] = {}
    with tempfile.TemporaryDirectory() as folder:
        case = replace(case, weights=folder)
        flops = prepared(case)
        try:
            hellos = begin(case, arguments, running)
            refused = [peer for peer, hello in hellos.items() if hello["difference"] is None]
            for peer in refused:
                running.pop(peer).close()
            rounds = alternate(case, arguments, running, until)
        finally:
            for worker in running.values():
                worker.close()
    if not rounds or arguments.reference not in rounds:
        return None
    rows = [row(case, p, r, rounds[arguments.reference], hellos[p]) for p, r in rounds.items()]
    about = {key: value for key, value in case.to_dict().items() if key != "weights"}
    return dict(about, flops=flops, rows=rows, reference=arguments.reference)


def begin(case: Case, arguments: argparse.Namespace, running: dict[str, Worker]) -> dict[str, Any]:
    """Starts the peers, and compares what they compute with the reference's; None if it differs."""
    hellos = {}
    for peer in arguments.peers:
        running[peer] = start(peer, case, interpreter(peer, arguments))
        hello = running[peer].receive()
        if arguments.restart:
            running[peer].close()
        if hello is None:
            del running[peer]
        else:
            hellos[peer] = hello
    reference = hellos.get(arguments.reference)
    if reference is None:
        raise SystemExit(f"the reference {arguments.reference} did not start")
    for peer, hello in hellos.items():
        hello["difference"] = gate(peer, case, hello["gate"], reference["gate"])
    return hellos


def interpreter(peer: str, arguments: argparse.Namespace) -> str:
    return sys.executable if peer.startswith("ours") else arguments.torch_python


def gate(peer: str, case: Case, found: dict[str, Any], expected: dict[str, Any]) -> float | None:
    """How far a peer is from the reference, relatively; None where that is too far."""
    if case.work == "train":
        pairs = list(zip(found["losses"], expected["losses"], strict=True))
        difference = max(abs(a - b) / abs(b) for a, b in pairs)
        limit = LOSS_TOLERANCE[case.dtype]
    else:
        pairs = [
            p
            for a in zip(found["logits"], expected["logits"], strict=True)
            for p in zip(*a, strict=True)
        ]
        squares = sum((a - b) ** 2 for a, b in pairs), sum(b**2 for _, b in pairs)
        difference = (squares[0] / squares[1]) ** 0.5
        limit = LOGITS_TOLERANCE[case.dtype]
    print(f"  {peer}: differs by {difference:.1e} (allowed {limit:.0e})", flush=True)
    return difference if difference <= limit else None


def alternate(
    case: Case, arguments: argparse.Namespace, running: dict[str, Worker], until: float
) -> dict[str, list[dict[str, Any]]]:
    """Each peer's answers, one a round; the first round warms up and tells how many steps fit."""
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in running}
    steps = dict.fromkeys(running, 1)
    for k in range(arguments.rounds + 1):
        begin = time.monotonic()
        for peer in list(running)[:: 1 if k % 2 else -1]:
            answer = turn(case, arguments, running, peer, steps[peer])
            if answer is None:
                del running[peer], found[peer]
                continue
            if k:
                found[peer].append(dict(answer, steps=steps[peer]))
            else:
                fits = arguments.seconds / answer["seconds"]
                steps[peer] = arguments.steps or max(1, round(fits))
        if k:
            rates = {p: round(a[-1]["seconds"] / a[-1]["steps"], 4) for p, a in found.items()}
            print(f"  {k}", rates, flush=True)
        taken = time.monotonic() - begin
        if k >= FEWEST_ROUNDS and time.monotonic() + taken > until:
            break
    return found


def turn(
    case: Case, arguments: argparse.Namespace, running: dict[str, Worker], peer: str, steps: int
) -> dict[str, Any] | None:
    """What a peer answers; by a new process of it with `--restart`."""
    if arguments.restart:
        running[peer] = start(peer, case, interpreter(peer, arguments))
        if running[peer].receive() is None:
            return None
    answer = running[peer].ask(steps)
    if arguments.restart:
        running[peer].close()
    return answer


def row(case: Case, peer: str, rounds: list, reference: list, hello: dict) -> dict[str, Any]:
    times = [r["seconds"] / r["steps"] for r in rounds]
    others = [r["seconds"] / r["steps"] for r in reference]
    return dict(
        peer=peer,
        seconds=statistics.median(times),
        spread=[min(times), max(times)],
        ratio=statistics.median(o / t for o, t in zip(others, times, strict=True)),
        images_per_second=case.batch / statistics.median(times),
        bytes=max(r["bytes"] for r in rounds),
        rounds=len(rounds),
        steps=rounds[0]["steps"],
        **{key: hello[key] for key in ("compile", "device", "difference", "versions")},
    )


def prepared(case: Case) -> int:
    """Writes the weights that all begin from, in a process of its own; FLOPs of an image."""
    command = [sys.executable, str(HERE / "run.py"), "--weights", json.dumps(case.to_dict())]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    found = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return int(found.stdout.split()[-1])


def prepare(case: Case) -> None:
    from ours import flops, write_weights

    write_weights(case)
    print(flops(case))


def read(arguments: argparse.Namespace) -> dict[str, Any]:
    file = arguments.output / "results.json"
    command = public_command(Path(__file__), PLACES)
    if arguments.resume and file.exists():
        result = json.loads(file.read_text())
        result["commands"] = list(dict.fromkeys([*result["commands"], command]))
        return result
    return dict(machine=machine(), note=arguments.note, commands=[command], cases={})


def write(result: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (folder / "results.md").write_text(report(result))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["Ti/16", "S/16"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[224], help="pixels of a side")
    parser.add_argument("--works", nargs="+", default=cases.WORKS, choices=cases.WORKS)
    parser.add_argument("--peers", nargs="+", default=PEERS)
    parser.add_argument("--reference", default="timm", help="the peer that ratios are to")
    parser.add_argument("--device", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="by the device")
    parser.add_argument("--batch", type=int, help="of training and of large inference")
    parser.add_argument("--cores", type=int, help="of the CPU; all")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, help="of a round")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a round, if no --steps")
    parser.add_argument("--minutes", type=float, default=60.0, help="of everything")
    parser.add_argument("--least_seconds", type=float, default=20.0, help="of a case")
    parser.add_argument("--resume", action="store_true", help="keep finished cases")
    restart = "a new process for each turn, where they do not fit into memory together"
    parser.add_argument("--restart", action="store_true", help=restart)
    parser.add_argument("--torch_python", default=sys.executable)
    parser.add_argument("--note", default="", help="a sentence about the machine")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    arguments = parser.parse_args()
    arguments.cores = arguments.cores or len(os.sched_getaffinity(0))
    default = {"cpu": "float32", "gpu": "bfloat16"}[arguments.device]
    arguments.dtype = arguments.dtype or default
    return arguments


if __name__ == "__main__":
    main()
