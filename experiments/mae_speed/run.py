"""MAE's pretraining step beside steps that see all tokens: is it as fast as its operations are few?

    python experiments/mae_speed/run.py cpu
    python experiments/mae_speed/run.py B16 L16 H14

The steps are those of steps.py. Those of a setting live in one process and take turns, `--steps`
at a time, to and fro, because a machine's speed drifts by more than what is to be told apart: a
ratio is of two steps of the same round. Each warms up with one turn that is not counted. Images are
random; reading and augmenting them is not measured. Writes results.json and results.md beside this
file; settings that it does not measure keep what an earlier command found.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from side_by_side import machine, public_command, versions  # noqa: E402
from steps import REFERENCE, SETTINGS, Setting, Step, learners, random_batch  # noqa: E402

LIBRARIES = ("jax", "jaxlib", "flax", "optax")
GIGA = 1e9


def main() -> None:
    arguments = parse()
    file = arguments.output / "results.json"
    found = json.loads(file.read_text()) if file.exists() else {}
    for name in arguments.settings:
        found[name] = measure(name, SETTINGS[name], arguments)
        file.write_text(json.dumps(found, indent=1) + "\n")
        (arguments.output / "results.md").write_text(report(found))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", choices=SETTINGS)
    parser.add_argument("--batch", type=int, help="images a step; by default the setting's")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=1, help="of a turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--note", default="", help="of the machine, e.g. what else ran on it")
    parser.add_argument("--output", type=Path, default=HERE)
    return parser.parse_args()


def measure(name: str, setting: Setting, arguments: argparse.Namespace) -> dict[str, Any]:
    import jax

    from vit_jax.analysis import cost

    batch = random_batch(arguments.batch or setting.batch, arguments.seed)
    made = learners(setting, arguments.seed)
    steps = {step: Step(learner, batch) for step, learner in made.items()}
    for step in steps.values():
        step.run(arguments.steps)
    rounds = alternate(steps, arguments.rounds, arguments.steps)
    device = jax.devices()[0]
    flops = {step: learner.flops_per_example() for step, learner in made.items()}
    compiled = {step: steps[step].compiled for step in steps}
    result = dict(
        command=public_command(Path(__file__), ("--output",)),
        note=arguments.note,
        machine=machine(),
        device=device.device_kind,
        peak=cost.peak_flops(device),
        versions=versions(LIBRARIES),
        seed=arguments.seed,
        model=" ".join(f"{key}={value}" for key, value in setting.model.items()),
        dtype=setting.dtype,
        batch=len(batch["mask"]),
        rounds=arguments.rounds,
        steps=arguments.steps,
        rows=summary(rounds, flops),
    )
    for row in result["rows"]:
        row["loss"] = steps[row["step"]].loss()  # of the last step: a number that was computed
        row["bytes"] = compiled[row["step"]].memory.get("total")
    print(f"{name}: {json.dumps(result['rows'])}", flush=True)
    return result


def alternate(steps: dict[str, Step], rounds: int, number: int) -> dict[str, list[float]]:
    """Seconds a step, one of each round."""
    found: dict[str, list[float]] = {name: [] for name in steps}
    for k in range(rounds):
        for name in list(steps)[:: -1 if k % 2 else 1]:
            began = time.perf_counter()
            steps[name].run(number)
            found[name].append((time.perf_counter() - began) / number)
    return found


def summary(rounds: dict[str, list[float]], flops: dict[str, int]) -> list[dict[str, Any]]:
    """A row a step: quartiles of its seconds and of its speed over the reference's, by rounds."""
    rows = []
    for name, seconds in rounds.items():
        ratios = [full / own for full, own in zip(rounds[REFERENCE], seconds, strict=True)]
        rows.append(
            dict(
                step=name,
                seconds=quartiles(seconds),
                ratio=quartiles(ratios),
                flops=flops[name],
                fewer_flops=flops[REFERENCE] / flops[name],
            )
        )
    return rows


def quartiles(values: list[float]) -> list[float]:
    """The first, the median and the third; a single value is all of them."""
    if len(values) == 1:
        return values * 3
    return statistics.quantiles(values, n=4, method="inclusive")


def report(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "# MAE's pretraining step beside steps that see all tokens",
        "",
        "Medians over rounds in which the steps take turns, with first and third quartile in "
        "brackets. Ratio: images a second, by those of `full` in the same round. Fewer FLOPs: "
        "those of `full` by the step's own, forward and backward, a multiply-add as two; were all "
        "FLOPs equally fast, both ratios were the same. Loss: of the last step. See README.md for "
        "what `mae`, `full` and `labels` are.",
    ]
    for name, result in found.items():
        about = [result["machine"], result["device"], result["note"]]
        about += [f"{library} {version}" for library, version in result["versions"].items()]
        model, images, rounds = (result[key] for key in ("model", "batch", "rounds"))
        lines += [
            "",
            f"## {name}: {model}, 224 pixels, {images} images a step, {result['dtype']}",
            "",
            f"{', '.join(filter(None, about))}; seed {result['seed']}; {rounds} rounds of "
            f"{result['steps']}.",
            "",
            f"    {result['command']}",
            "",
            *table(result),
        ]
    return "\n".join(lines) + "\n"


def table(result: dict[str, Any]) -> list[str]:
    """With the share of the peak that is reached (MFU) where the device's is known."""
    titles = ["step", "ms a step", "images/s", "ratio", "fewer FLOPs", "GFLOPs an image"]
    titles += ["GFLOP/s"] + ["MFU"] * (result["peak"] is not None) + ["memory GB", "loss"]
    lines = [f"| {' | '.join(titles)} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for row in result["rows"]:
        seconds = row["seconds"]
        speed = row["flops"] * result["batch"] / seconds[1]
        cells = [
            f"`{row['step']}`",
            spread(*(1000 * x for x in seconds), digits=1),
            spread(*(result["batch"] / x for x in reversed(seconds)), digits=1),
            spread(*row["ratio"], digits=2),
            f"{row['fewer_flops']:.2f}",
            f"{row['flops'] / GIGA:.1f}",
            f"{speed / GIGA:,.0f}",
            *([f"{speed / result['peak']:.0%}"] if result["peak"] else []),
            f"{row['bytes'] / GIGA:.2f}" if row["bytes"] else "",
            f"{row['loss']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def spread(first: float, median: float, third: float, *, digits: int) -> str:
    return f"{median:.{digits}f} ({first:.{digits}f} to {third:.{digits}f})"


if __name__ == "__main__":
    main()
