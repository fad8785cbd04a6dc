"""Images a second of this project's input pipeline, beside those of others.

    python experiments/input_pipeline/run.py --tf_python=PYTHON --torch_python=PYTHON

Reads, decodes, crops, mirrors and batches JPEGs like ImageNet's (photographs.py) with each of
competitors.py, which say what they do. Each competitor is a process of its own, alive and warm
for the whole measurement, but stopped while another runs. A round lets each make `--batches`
batches, after some that are not counted and empty its queues; rounds go to and fro through the
list. Reported are medians over rounds, of images a second and of the ratio to a reference in the
same round, because a machine's speed drifts by more than what is to be told apart.

--tf_python and --torch_python name interpreters where TensorFlow, PyTorch and timm are installed;
what is not named is run in this one, and left out where its import fails. `--startup` measures
the time to the first batch of a fresh process instead, over a folder of as many names as
ImageNet has. Writes results.json and results.md beside this file.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import photographs
from competitors import COMPETITORS
from processes import HERE, Competitor, serve
from report import report
from side_by_side import machine, public_command

IMAGENET = 1_281_167  # images of its training split
START_ROUNDS = 3
# Arguments that are paths of a machine.
PLACES = ("--images", "--output", "--tf_python", "--torch_python")
STARTED = ("tf_data_uint8", "torchvision_pillow", "ours_by_part", "ours_processes")


def pythons(arguments: argparse.Namespace) -> dict[str, str]:
    """Competitor -> interpreter."""
    found = {}
    for name in arguments.competitors:
        chosen = dict(tf=arguments.tf_python, to=arguments.torch_python, ti=arguments.torch_python)
        found[name] = chosen.get(name[:2]) or sys.executable
    return found


def measure(arguments: argparse.Namespace, cores: int) -> list[dict[str, Any]]:
    """One row a competitor."""
    settings = dict(folder=str(arguments.images), cores=cores, batch_size=arguments.batch_size)
    settings |= dict(size=arguments.size, seed=arguments.seed)
    running, firsts = {}, {}
    try:
        for name, python in pythons(arguments).items():
            running[name] = Competitor(name, python, settings)
            firsts[name] = running[name].first()
            if firsts[name] is None:
                del running[name]
        before = {}
        seconds: dict[str, list[float]] = {name: [] for name in running}
        for k in range(arguments.rounds + 1):
            for name in list(running)[:: 1 if k % 2 else -1]:
                taken = running[name].run(arguments.batches)
                if k:  # the first round is warming up
                    seconds[name].append(taken)
                before.setdefault(name, running[name].memory())
            print(cores, k, {n: round(s[-1], 2) for n, s in seconds.items() if s}, flush=True)
        after = {name: competitor.memory() for name, competitor in running.items()}
    finally:
        for competitor in running.values():
            competitor.close()
    images = arguments.batches * arguments.batch_size
    reference = seconds.get(arguments.reference)
    return [
        dict(
            name=name,
            cores=cores,
            images_per_second=images / statistics.median(times),
            ratio=reference and ratio(reference, times),
            spread=[images / max(times), images / min(times)],
            seconds=times,
            memory=before[name],
            growth=after[name] - before[name],
            **firsts[name],
        )
        for name, times in seconds.items()
    ]


def ratio(reference: list[float], times: list[float]) -> float:
    """Speed as a multiple of the reference's, the median over rounds."""
    return statistics.median(r / t for r, t in zip(reference, times, strict=True))


def start_ups(arguments: argparse.Namespace, cores: int) -> list[dict[str, Any]]:
    """Seconds from the start of a process to its first batch, and then its memory in MB."""
    settings = dict(folder=str(crowd(arguments.images)), cores=cores, seed=arguments.seed)
    settings |= dict(batch_size=arguments.batch_size, size=arguments.size)
    chosen = {n: p for n, p in pythons(arguments).items() if n in STARTED}
    rows = {name: [] for name in chosen}
    found = []
    for _ in range(START_ROUNDS):
        for name, python in chosen.items():
            competitor = Competitor(name, python, settings)
            if (first := competitor.first()) is not None:
                rows[name].append((first["start"], competitor.memory()))
                competitor.close()
    for name, values in rows.items():
        if values:
            start, memory = map(statistics.median, zip(*values, strict=True))
            found.append(dict(name=name, cores=cores, start=start, memory=memory))
    return found


def crowd(images: Path) -> Path:
    """A folder with as many files as ImageNet, in 1000 classes: hard links to `images`."""
    folder = images.parent / f"{images.name}-{IMAGENET}"
    if not (folder / "done").exists():
        files = photographs.paths(images)
        for k in range(IMAGENET):
            to = folder / "train" / f"{k % 1000:04d}" / f"{k:07d}.jpg"
            to.parent.mkdir(parents=True, exist_ok=True)
            to.unlink(missing_ok=True)
            os.link(files[k % len(files)], to)
        (folder / "done").touch()
    return folder


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, help="cache of the JPEGs; made where missing")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--competitors", nargs="+")
    parser.add_argument("--reference", default="tf_data_uint8")
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=32)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tf_python", help="an interpreter with TensorFlow")
    parser.add_argument("--torch_python", help="an interpreter with PyTorch, torchvision, timm")
    parser.add_argument("--startup", action="store_true", help="also measure start-ups")
    parser.add_argument("--output", type=Path, default=HERE, help="folder of the results")
    arguments = parser.parse_args()
    arguments.images = arguments.images or Path(tempfile.gettempdir()) / "vit_jax_photographs"
    return arguments


def main():
    if sys.argv[1:2] == ["--worker"]:
        return serve(sys.argv[2], json.loads(sys.argv[3]))
    arguments = parse()
    arguments.competitors = arguments.competitors or list(COMPETITORS)
    mean_bytes = photographs.write(arguments.images, count=arguments.count, seed=arguments.seed)
    result = dict(
        machine=machine(),
        command=public_command(Path(__file__), PLACES),
        mean_bytes=mean_bytes,
        crowd=IMAGENET,
        rows=[row for cores in arguments.cores for row in measure(arguments, cores)],
        start_ups=[],
        **{key: getattr(arguments, key) for key in ("count", "rounds", "batches", "batch_size")},
        **{key: getattr(arguments, key) for key in ("size", "seed", "reference")},
    )
    if arguments.startup:
        result["start_ups"] = start_ups(arguments, max(arguments.cores))
    (arguments.output / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    (arguments.output / "results.md").write_text(report(result))


if __name__ == "__main__":
    main()
