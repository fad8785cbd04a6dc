"""The measurements as a page of Markdown."""

from typing import Any

from competitors import COMPETITORS


def report(result: dict[str, Any]) -> str:
    lines = [
        "# Images a second of input pipelines",
        "",
        f"{result['machine']}. {result['count']} JPEGs of {result['mean_bytes'] / 1000:.0f} KB "
        f"(photographs.py), {result['size']} × {result['size']} pixels, batches of "
        f"{result['batch_size']}, seed {result['seed']}; medians of {result['rounds']} rounds of "
        f"{result['batches']} batches, ratios to {result['reference']} within each round; memory "
        "of the process and its workers after the first round, and what was added until the last.",
        "",
        f"    {result['command']}",
        "",
        "| competitor | cores | images/s | slowest to fastest | ratio | batch | MB | added |",
        "|---|---:|---:|---:|---:|---|---:|---:|",
    ]
    for row in result["rows"]:
        low, high = row["spread"]
        quotient = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        lines.append(
            f"| {row['name']} | {row['cores']} | {row['images_per_second']:.0f} | {low:.0f} to "
            f"{high:.0f} | {quotient} | {row['batch']} | {row['memory']:.0f} | "
            f"{row['growth']:+.0f} |"
        )
    if result["start_ups"]:
        lines += [
            "",
            f"From the start to the first batch, {result['crowd']:,} files in 1,000 folders:",
        ]
        lines += ["", "| competitor | cores | seconds | MB |", "|---|---:|---:|---:|"]
        for row in result["start_ups"]:
            cells = (row["name"], row["cores"], f"{row['start']:.1f}", f"{row['memory']:.0f}")
            lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "What each does:", ""]
    names = dict.fromkeys(row["name"] for row in result["rows"])
    lines += [f"- `{name}`: {' '.join(COMPETITORS[name].__doc__.split())}" for name in names]
    versions: dict[str, str] = {}
    for row in result["rows"]:
        versions |= row["versions"]
    lines += ["", "Versions: " + ", ".join(f"{k} {v}" for k, v in sorted(versions.items())) + "."]
    return "\n".join(lines) + "\n"
