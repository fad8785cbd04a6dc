"""The card of a run (see `vit_jax.planning`) as tables for a console; plain text where piped."""

from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

# Keys of the card's memory, in the order of the table and of the picture.
MEMORY = {
    "parameters": "parameters",
    "averaged_parameters": "averaged parameters",
    "optimizer": "optimizer state",
    "other_state": "other state",
    "gradients": "gradients",
    "gathered": "parameters and gradients of layers while they are whole (estimate)",
    "batch": "batch",
    "activations": "activations kept for the backward pass (estimate)",
    "workspace": "what else the backward pass needs at its peak (estimate)",
    "total": "total",
}
# Parts of a step's time, likewise.
PARTS = {
    "products": "matrix products",
    "passes": "passes over memory between them",
    "optimizer": "optimizer and sums of gradients",
    "exposed_collectives": "collectives that nothing hides",
}
# Memory of a compiled step, likewise.
COMPILED = {
    "arguments": "arguments: state and batch",
    "results": "results: new state and metrics",
    "donated": "of which take an argument's place",
    "temporary": "temporary buffers",
    "total": "total",
}
UNKNOWN = "not known"
PLAIN_WIDTH = 100  # characters of a line that goes to a file or a pipe


def print_plan(plan: Mapping[str, Any], console: Console | None = None) -> None:
    console = console or Console()
    if not console.is_terminal:
        console.width = max(console.width, PLAIN_WIDTH)
    tables = [parameter_table(plan), cost_table(plan), memory_table(plan), collective_table(plan)]
    tables += [compiled_table(plan)] if plan["compiled"] else []
    tables += [fit_table(plan), speed_table(plan)] if plan["fit"] else []
    for table in tables:
        if table.row_count:
            console.print(table, highlight=False)
            console.print()
    if plan["fit"]:
        console.print(verdict(plan), highlight=False, soft_wrap=True, markup=False)
    for note in plan["notes"]:
        console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


def parameter_table(plan: Mapping[str, Any]) -> Table:
    found = plan["parameters"]
    table = _table("parameters", "shape", "count", "share")
    for row in found["table"]:
        shape = "" if row["shape"] is None else "×".join(map(str, row["shape"])) or "scalar"
        table.add_row(row["name"], shape, f"{row['count']:,}", f"{row['share']:.1%}")
    table.add_row("total", "", f"{found['total']:,}", "")
    table.add_row("trainable", "", f"{found['trainable']:,}", "")
    return table


def cost_table(plan: Mapping[str, Any]) -> Table:
    table = _table("run", "")
    for name, text in _cost_rows(plan):
        table.add_row(name, text)
    return table


def memory_table(plan: Mapping[str, Any]) -> Table:
    found = plan["memory_bytes"]
    table = _table("memory a device", "")
    for key, name in MEMORY.items():
        table.add_row(name, format_bytes(found[key]))
    table.add_row("activations an image", format_bytes(plan["activation_bytes_per_image"]))
    return table


def collective_table(plan: Mapping[str, Any]) -> Table:
    """What the mesh needs, and beside it what a compiled step does."""
    table = _table("collectives a step and device", "mesh axis", "executions", "bytes")
    for part in plan["collectives"]:
        table.add_row(f"needed: {part['kind']}", "+".join(part["axes"]), "", _bytes_of(part))
    step = plan["compiled"] or {"collectives": []}
    for part in step["collectives"]:
        count = f"{part['count_per_step']:,}"
        table.add_row(f"compiled: {part['kind']}", "+".join(part["axes"]), count, _bytes_of(part))
    return table


def compiled_table(plan: Mapping[str, Any]) -> Table:
    step = plan["compiled"]
    table = _table(f"compiled step on {step['backend']}, a device", "")
    for key, name in COMPILED.items():
        table.add_row(name, format_bytes(step["memory_bytes"][key]))
    table.add_row("time to trace and compile", f"{step['compile_seconds']:.1f} s")
    return table


def fit_table(plan: Mapping[str, Any]) -> Table:
    """For each remat policy the largest microbatch that fits."""
    fit, device = plan["fit"], plan["device"]
    columns = ("accum_steps", "microbatch a device", "memory", "GFLOPs an image", "step", "fits")
    table = _table(f"remat, on {device['name']}", *columns)
    for option in fit["options"]:
        table.add_row(
            option["remat"] or "(no such setting)",
            str(option["accum_steps"]),
            str(option["microbatch_per_device"]),
            format_bytes(option["memory_bytes"]["total"]),
            f"{option['gflops_per_example']:,.4g}",
            format_seconds(option["step_seconds"]),
            "yes" if option["fits"] else "no",
        )
    return table


def speed_table(plan: Mapping[str, Any]) -> Table:
    found, device = plan["speed"], plan["device"]
    table = _table(f"speed on {plan['run']['num_devices']:,} {device['name']} (estimate)", "")
    for key, name in PARTS.items():
        table.add_row(name, format_seconds(found["parts_seconds"][key]))
    table.add_row("step", format_seconds(found["step_seconds"]))
    table.add_row("images a second", f"{found['images_per_second']:,.0f}")
    table.add_row("images a second and device", f"{found['images_per_second_per_device']:,.1f}")
    peak = f"of {device['peak_teraflops']:,g} TFLOP/s in bfloat16"
    table.add_row("MFU", f"{found['mfu']:.1%} {peak}")
    table.add_row("run", _number(found["run_hours"], ",.3g") + " hours")
    table.add_row("run, all devices", _number(found["run_device_hours"], ",.4g") + " device-hours")
    return table


def verdict(plan: Mapping[str, Any]) -> str:
    """One line: does it fit, and what to set."""
    fit, device = plan["fit"], plan["device"]
    needed = format_bytes(plan["memory_bytes"]["total"])
    usable = f"the usable {format_bytes(int(fit['usable_bytes']))} of {device['name']}"
    text = f"{needed} {'fit' if fit['fits'] else 'do not fit'} {usable}"
    if fit["cheapest"] is None:
        return f"{text}; no remat policy and microbatch does: a larger fsdp or more devices would"
    return f"{text}; cheapest that fits: {' '.join(fit['cheapest']['flags'])}"


def format_seconds(seconds: float) -> str:
    """0.0123 -> '12.3 ms', 0.1234 -> '123 ms', 12.34 -> '12.3 s'."""
    value, unit = (1e3 * seconds, "ms") if seconds < 0.9995 else (seconds, "s")
    return f"{value:.3g} {unit}" if value < 99.95 else f"{value:,.0f} {unit}"


def _bytes_of(part: Mapping[str, Any]) -> str:
    return format_bytes(round(part["bytes_per_step"]))


def format_bytes(count: int) -> str:
    """1536 -> '1.50 KiB'."""
    size, units = float(count), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{count} B" if units[0] == "B" else f"{size:.2f} {units[0]}"


def _cost_rows(plan: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    run, flops, tokens = plan["run"], plan["flops"], plan["tokens"]
    yield "model", plan["model"]
    yield "image", "×".join(map(str, plan["image"]))
    text = "n/a"
    if tokens:
        text = f"{tokens['sequence']} ({tokens['patches']} patches, {tokens['prefix']} before them)"
    yield "tokens", text
    yield "classes", f"{run['num_classes']:,}"
    yield "training examples", _number(run["num_examples"])
    each = f"{run['microbatch_per_device']:,} a device and microbatch"
    yield "batch size", f"{run['batch_size']:,} ({each}, accum_steps {run['accum_steps']})"
    yield "steps", _number(run["num_steps"])
    yield "epochs", _number(run["num_epochs"], ".4g")
    yield "examples seen", _number(run["examples_seen"])
    yield "devices", " × ".join(f"{axis} {size}" for axis, size in run["mesh"].items())
    macs = f"GFLOPs = 2 × {flops['forward_gmacs']:.4g} GMACs"
    yield "forward, an image", f"{flops['forward_gflops']:.4g} {macs}"
    again = f" and {flops['recomputed_gflops']:.4g} again" if flops["recomputed_gflops"] else ""
    yield "training, an image", f"{flops['training_gflops']:.4g} GFLOPs{again}"
    yield "training, a step", f"{flops['step_teraflops']:,.4g} TFLOPs"
    exaflops = flops["run_exaflops"]
    yield "training, in all", UNKNOWN if exaflops is None else f"{exaflops:.4g} exaFLOPs"


def _number(value: float | None, spec: str = ",") -> str:
    return UNKNOWN if value is None else f"{value:{spec}}"


def _table(first: str, *others: str) -> Table:
    table = Table(first, box=None, pad_edge=False, header_style="bold")
    for name in others:
        table.add_column(name, justify="right")
    return table
