"""The measurements as a page of Markdown."""

from typing import Any

GIGA, TERA = 1e9, 1e12
# What matrix products of 8192 x 8192 x 8192 bfloat16 random numbers were measured to reach.
MEASURED_PEAKS = {"h200": 790e12}


def report(result: dict[str, Any]) -> str:
    cases = result["cases"].values()
    devices = sorted({row["device"] for case in cases for row in case["rows"]} - {"cpu"})
    lines = [
        "# Speed of training and inference, side by side",
        "",
        f"{'; '.join([result['machine'], *devices])}. Medians over rounds in which the peers take "
        "turns; the ratio is of speeds within a round, more than 1 is faster than the reference. "
        "Spread: slowest to fastest round. Memory: the peak of the process (CPU) or of its arrays "
        "(GPU) while it is timed. Compile: tracing and compiling; of torch with the first step. "
        "Difference: of the losses of the first steps, or of the logits, from the reference's, "
        "relatively. A multiply-add is two operations, and training three times inference; "
        "MFU is of the data sheet's bfloat16 peak.",
        "",
        *([f"**{result['note']}**", ""] if result.get("note") else []),
        *(f"    {command}" for command in result["commands"]),
    ]
    for name, case in result["cases"].items():
        lines += ["", f"## {name}", "", *table(case)]
    versions: dict[str, str] = {}
    for case in cases:
        for row in case["rows"]:
            versions |= row["versions"]
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) + "."]
    return "\n".join(lines) + "\n"


def table(case: dict[str, Any]) -> list[str]:
    is_gpu = case["device"] == "gpu"
    titles = ["peer", "ms a step", "images/s", "spread", f"ratio to {case['reference']}"]
    titles += ["memory GB", "memory ratio", "compile s", "TFLOP/s" if is_gpu else "GFLOP/s"]
    titles += ["MFU", "of measured peak"] * is_gpu + ["difference", "rounds × steps"]
    reference = next(row for row in case["rows"] if row["peer"] == case["reference"])
    lines = [f"| {' | '.join(titles)} |", "|---" + "|---:" * (len(titles) - 1) + "|"]
    for row in case["rows"]:
        slow, fast = (case["batch"] / seconds for seconds in reversed(row["spread"]))
        speed = case["flops"] * row["images_per_second"]
        cells = [
            f"`{row['peer']}`",
            f"{1000 * row['seconds']:.1f}",
            f"{row['images_per_second']:.1f}",
            f"{slow:.1f} to {fast:.1f}",
            f"{row['ratio']:.2f}",
            f"{row['bytes'] / GIGA:.2f}",
            f"{row['bytes'] / reference['bytes']:.2f}",
            f"{row['compile']:.1f}",
            f"{speed / (TERA if is_gpu else GIGA):.0f}",
            *(utilisation(row["device"], speed) if is_gpu else []),
            f"{row['difference']:.0e}",
            f"{row['rounds']} × {row['steps']}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def utilisation(device: str, speed: float) -> list[str]:
    """Of the data sheet's peak, and of a measured one; empty where they are not known."""
    from vit_jax.analysis import devices

    name = devices.name_of(device)
    sheet = None if name is None else devices.DEVICES[name].peak_flops
    peaks = (sheet, MEASURED_PEAKS.get(name))
    return [f"{speed / peak:.0%}" if peak else "" for peak in peaks]
