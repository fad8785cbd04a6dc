"""The picture of a plan: bytes of a device for each remat policy, time of a step by part."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vit_jax.analysis.figures import new_figure
from vit_jax.analysis.tables import PARTS, format_bytes, format_seconds

GIB = 2**30
CUT = 1.8  # times the device's memory
# Short names of what is alike, from the bottom of a bar to its top.
STACK = {
    "parameters": ("parameters", "averaged_parameters", "other_state"),
    "optimizer": ("optimizer",),
    "gradients": ("gradients",),
    "whole layers": ("gathered",),
    "batch": ("batch",),
    "activations": ("activations",),
    "workspace": ("workspace",),
}
COLOURS = ("#2c5d8a", "#5f9bc9", "#8fc1a9", "#4f8f6f", "#b5b5b5", "#e0a458", "#c8553d")


def draw_plan(plan: Mapping[str, Any], target: Path) -> None:
    """Draws memory, and beside it the step's time where a device is known."""
    has_speed = plan["speed"] is not None
    bars = len(_bars(plan))
    width = 3.6 + 1.3 * bars
    figure = new_figure(width + (5.5 if has_speed else 0), 4.8)
    columns = figure.add_gridspec(1, 1 + has_speed, width_ratios=[width, 5.5][: 1 + has_speed])
    draw_memory(figure.add_subplot(columns[0]), plan)
    if has_speed:
        draw_time(figure.add_subplot(columns[1]), plan)
    mesh = " × ".join(f"{axis} {size}" for axis, size in plan["run"]["mesh"].items())
    size = f"{plan['parameters']['total'] / 1e6:,.0f} M parameters"
    kind = plan["device"]["name"] if plan["device"] else "devices"
    devices = f"{plan['run']['num_devices']:,} {kind} ({mesh})"
    title = f"{size}, batch {plan['run']['batch_size']:,}, on {devices}"
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.savefig(target, dpi=120)


def draw_memory(axes: Any, plan: Mapping[str, Any]) -> None:
    bars = _bars(plan)
    base = [0.0] * len(bars)
    for (name, keys), colour in zip(STACK.items(), COLOURS, strict=True):
        sizes = [sum(memory[key] for key in keys) / GIB for _, memory in bars]
        axes.bar(range(len(bars)), sizes, 0.6, bottom=base, label=name, color=colour)
        base = [a + b for a, b in zip(base, sizes, strict=True)]
    top = max(base)
    if plan["fit"]:  # a bar that is much too high is cut, so that the others can be seen
        whole = plan["device"]["memory_bytes"] / GIB
        top = min(max(top, whole), CUT * whole)
    for i, (_, memory) in enumerate(bars):
        axes.annotate(
            format_bytes(memory["total"]) + (" (cut)" if base[i] > top else ""),
            (i, min(base[i], top)),
            ha="center",
            xytext=(0, 3),
            textcoords="offset points",
        )
    if plan["fit"]:
        usable = plan["fit"]["usable_bytes"] / GIB
        axes.axhline(whole, color="black", linewidth=1.2)
        axes.axhline(usable, color="black", linewidth=1.2, linestyle="--")
        place = dict(x=len(bars) - 0.52, fontsize=8, ha="right")
        axes.text(y=whole, s=f"memory of {plan['device']['name']}", va="bottom", **place)
        axes.text(y=usable, s="usable", va="top", **place)
    axes.set_xticks(range(len(bars)), [label for label, _ in bars], fontsize=9)
    axes.set_xlim(-0.5, len(bars) - 0.5)
    axes.set_ylim(0, 1.12 * top)
    axes.set_ylabel("GiB a device")
    axes.set_title("memory" + (", at the largest microbatch that fits" if plan["fit"] else ""))
    axes.legend(*_reversed(axes), fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes.spines[["top", "right"]].set_visible(False)


def draw_time(axes: Any, plan: Mapping[str, Any]) -> None:
    parts = plan["speed"]["parts_seconds"]
    names = [_short(key) for key in PARTS]
    seconds = [1e3 * parts[key] for key in PARTS]
    axes.barh(names, seconds, color=("#2c5d8a", "#e0a458", "#5f9bc9", "#c8553d"))
    for i, key in enumerate(PARTS):
        text = f" {format_seconds(parts[key])}"
        axes.annotate(text, (1e3 * parts[key], i), va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(seconds))
    axes.set_xlabel("ms")
    found = plan["speed"]
    step = f"step {format_seconds(found['step_seconds'])}, MFU {found['mfu']:.0%}"
    rate = f"{found['images_per_second']:,.0f} images/s"
    axes.set_title(f"{step}\n{rate} (estimate)")
    axes.spines[["top", "right"]].set_visible(False)


def _bars(plan: Mapping[str, Any]) -> list[tuple[str, Mapping[str, int]]]:
    """Label and memory of each bar: what is configured, then the options."""
    run = plan["run"]
    bars = [(_label("as set", run), plan["memory_bytes"])]
    for option in plan["fit"]["options"] if plan["fit"] else ():
        label = _label(f"remat {option['remat']}" if option["remat"] else "fitted", option)
        bars.append((label if option["fits"] else f"{label}\ndoes not fit", option["memory_bytes"]))
    return bars


def _label(name: str, run: Mapping[str, Any]) -> str:
    rows, times = run["microbatch_per_device"], run["accum_steps"]
    return f"{name}\n{rows:,} images" + (f"\n× {times} microbatches" if times > 1 else "")


def _short(key: str) -> str:
    return {"passes": "memory\npasses", "exposed_collectives": "exposed\ncollectives"}.get(key, key)


def _reversed(axes: Any) -> tuple[list, list]:
    """Handles and labels in the order of the stack, from the top."""
    handles, labels = axes.get_legend_handles_labels()
    return handles[::-1], labels[::-1]
