"""What does fp8 cost in accuracy? The same small ViT in float32, bfloat16 and fp8.

    apt-get install dataset-fashion-mnist
    python experiments/fp8/run.py

`fp8` is bfloat16 with the blocks' matrix products in fp8 (`layers/products.py`). A seed fixes the
first parameters and the data order, so runs of one seed differ in number formats alone. No setting
was chosen by its result; the lengths are what two busy cores had time for. On a CPU fp8 is
emulated: the values are those of fp8, the speed says nothing.

Each run is kept in runs/fp8 when it ends, and the same command trains those that are missing;
`--seeds=0` trains some, so several processes can share the work. The last one writes results.json,
results.md and loss.png beside this file; what stands below the table was added by hand.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
from pathlib import Path

import jax
import matplotlib
from rich.console import Console

from vit_jax import experiment

HERE = Path(__file__).parent
DONE = Path("runs/fp8")
SEEDS = (0, 1, 2)
FORMATS = {
    "float32": dict(dtype="float32"),
    "bfloat16": dict(dtype="bfloat16"),
    "fp8": dict(dtype="bfloat16", matmul="fp8"),
}
MODEL = dict(name="vit", width=128, depth=4, mlp_dim=512, num_heads=4, pool="gap", unroll=1)
DATA = {
    "digits": dict(
        model=dict(patch_size=4),
        data=dict(
            source="digits",
            image_size=(16, 16),
            batch_size=64,
            augment=dict(crop="shift", padding=2),
        ),
        num_steps=300,
    ),
    "Fashion-MNIST": dict(
        model=dict(patch_size=7),
        data=dict(
            source="idx:/usr/share/datasets/fashion-mnist",
            image_size=(28, 28),
            batch_size=64,
            augment=dict(flip_probability=0.5),
        ),
        num_steps=200,
    ),
}
SILENT = Console(quiet=True)


def train(data: str, number_format: str, seed: int) -> dict:
    """The run's test accuracy and its training loss, averaged between log lines."""
    case = DATA[data]
    model = MODEL | case["model"] | FORMATS[number_format]
    config = dict(
        task=dict(name="classification", model=model),
        data=dict(train="train", **case["data"]),
        optimizer=dict(learning_rate=1e-3, warmup_steps=50, weight_decay=0.05, clip_norm=1.0),
        train=dict(num_steps=case["num_steps"], seed=seed, log_every=20),
        evals=dict(test=dict(split="test", batch_size=500)),
    )
    with tempfile.TemporaryDirectory() as folder:
        metrics = experiment.run(config, folder, console=SILENT)
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").open()]
    loss = [(line["step"], line["train/loss"]) for line in lines if "train/loss" in line]
    case = dict(data=data, format=number_format, seed=seed)
    return case | dict(top1=metrics["test/top1"], loss=loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, choices=SEEDS)
    seeds = parser.parse_args().seeds
    DONE.mkdir(parents=True, exist_ok=True)
    paths = {}
    for data, seed, number_format in itertools.product(DATA, SEEDS, FORMATS):
        path = paths[data, seed, number_format] = DONE / f"{data}-{number_format}-{seed}.json"
        if seed in seeds and not path.is_file():
            path.write_text(json.dumps(train(data, number_format, seed)))
            print(path, flush=True)
    if missing := [str(path) for path in paths.values() if not path.is_file()]:
        print(f"still missing: {', '.join(missing)}")
        return
    runs = [json.loads(path.read_text()) for path in paths.values()]
    machine = (
        f"{os.cpu_count()} {jax.devices()[0].device_kind} cores ({platform.machine()}) beside "
        f"other work, Python {platform.python_version()}, JAX {jax.__version__}"
    )
    result = dict(command="python experiments/fp8/run.py", machine=machine, runs=runs)
    (HERE / "results.json").write_text(json.dumps(result, indent=None) + "\n")
    (HERE / "results.md").write_text(table(runs, machine))
    draw(runs)


def of(runs: list[dict], data: str, number_format: str) -> list[dict]:
    return [run for run in runs if (run["data"], run["format"]) == (data, number_format)]


def spread(values: list[float], unit: str) -> str:
    """Mean ± standard deviation, which has no sign."""
    return f"{statistics.mean(values):{unit}} ± {statistics.stdev(values):{unit.lstrip('+')}}"


def table(runs: list[dict], machine: str) -> str:
    lines = [
        "# A small ViT in float32, bfloat16 and fp8",
        "",
        f"Mean ± standard deviation of seeds {SEEDS}; `python experiments/fp8/run.py`; {machine}.",
        "The difference is to float32's run of the same seed; the loss is the mean of the last "
        "100 steps.",
        "",
        "| data | steps | format | test top-1, % | difference, points | training loss |",
        "|---|---:|---|---:|---:|---:|",
    ]
    for data, case in DATA.items():
        exact = [100 * run["top1"] for run in of(runs, data, "float32")]
        for name in FORMATS:
            found = of(runs, data, name)
            top1 = [100 * run["top1"] for run in found]
            less = [a - b for a, b in zip(top1, exact, strict=True)]
            loss = [statistics.mean(value for _, value in run["loss"][-5:]) for run in found]
            difference = "" if name == "float32" else spread(less, "+.2f")
            cells = (data, case["num_steps"], name, spread(top1, ".2f"), difference)
            lines.append(f"| {' | '.join(map(str, cells))} | {spread(loss, '.4f')} |")
    return "\n".join(lines) + "\n"


def draw(runs: list[dict]) -> None:
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(DATA), figsize=(11, 4), layout="constrained")
    for axis, data in zip(axes, DATA, strict=True):
        for name, colour in zip(FORMATS, ("black", "tab:blue", "tab:red"), strict=True):
            for i, run in enumerate(of(runs, data, name)):
                steps, loss = zip(*run["loss"], strict=True)
                axis.plot(steps, loss, color=colour, alpha=0.7, lw=1, label=None if i else name)
        axis.set(title=f"{data}, seeds {SEEDS}", xlabel="step", ylabel="training loss")
        axis.set_yscale("log")
        axis.legend()
    figure.savefig(HERE / "loss.png", dpi=110)


if __name__ == "__main__":
    main()
