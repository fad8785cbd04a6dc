"""python -m vit_jax plan --config=FILE [--config.KEY=VALUE ...] [--mesh.AXIS=N ...] [--device=NAME]

Tells what a run is and costs, without running it: parameters, FLOPs, bytes of each device,
collectives, whether it fits and what would, time and MFU by roofline. --mesh.data=32 --mesh.fsdp=8
is short for --config.mesh.data=32 --config.mesh.fsdp=8; with them the devices need not be there,
and the step is compiled for as many virtual ones. GFLOPs count a multiply-add as two operations,
GMACs as one.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from vit_jax.commands import parsing
from vit_jax.errors import InputError

MESH, SECTION = "--mesh.", "--config.mesh."
PICTURE, PICTURES = "plan.png", (".png", ".pdf", ".svg", ".jpg")


def main(arguments: list[str]) -> int:
    values = define_flags()
    given = [SECTION + a.removeprefix(MESH) if a.startswith(MESH) else a for a in arguments]
    config, rest = parsing.take_config(given)
    parsing.reject_positional(parsing.parse(values, "plan", rest, doc=__doc__))
    if config is None:
        raise InputError("--config is missing; allowed: --config=configs/NAME.py")
    if values.out and values.picture:
        raise InputError("--out and --picture are both given; allowed: one of them.")

    from vit_jax import planning
    from vit_jax.analysis import devices, tables
    from vit_jax.planning import compiled
    from vit_jax.workdir import check_writable

    if values.device:
        devices.find(values.device)
    if target := picture_of(values):
        check_writable(target.parent)  # before the work
    count = values.devices or mesh_size(config.get("mesh", {}))
    if count and values.compile == "yes":
        compiled.make_devices(count)
    told = planning.Told(
        num_examples=values.num_examples, num_classes=values.num_classes, channels=values.channels
    )
    found = planning.plan(
        config,
        depth=values.depth,
        num_devices=count,
        told=told,
        device=values.device or (None if count else at_hand()),
        compiles=values.compile == "yes",
    )
    if values.json:
        print(json.dumps(found, indent=2))
    else:
        tables.print_plan(found)
    write(found, values)
    return 0


def define_flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_bool("json", False, "one JSON object, no tables", flag_values=values)
    depth = "names of a path by which parameters are put together"
    flags.DEFINE_integer("depth", 2, depth, lower_bound=1, flag_values=values)
    for name, text in (
        ("devices", "devices of the run; by default the mesh's, or else this machine's"),
        ("num_examples", "training examples, where the data cannot be opened"),
        ("num_classes", "classes, where the data cannot be opened"),
        ("channels", "of an image, where the data cannot be opened; 3 if nothing tells"),
    ):
        flags.DEFINE_integer(name, None, text, lower_bound=1, flag_values=values)
    for name, text in (
        ("device", "kind, e.g. h100 or v5e; this machine's where no number of devices is said"),
        ("out", f"folder for the picture, {PICTURE}, and plan.json"),
        ("picture", "file for the picture alone"),
    ):
        flags.DEFINE_string(name, None, text, flag_values=values)
    compiles = "compile the step ahead of time, without running it? 'no' is quicker"
    flags.DEFINE_enum("compile", "yes", ["yes", "no"], compiles, flag_values=values)
    return values


def mesh_size(section: Any) -> int | None:
    """Devices of a mesh whose axes are all said; mistakes are left to the mesh's builder."""
    if not isinstance(section, Mapping | ConfigDict):
        return None
    sizes = [section.get("data", -1), section.get("fsdp", 1), section.get("tensor", 1)]
    if any(not isinstance(size, int) or size < 1 for size in sizes):
        return None
    return math.prod(sizes)


def at_hand() -> str | None:
    """The table's name of this machine's devices, unless they are CPUs."""
    import jax

    from vit_jax.analysis import devices

    name = devices.name_of(jax.devices()[0].device_kind)
    return None if name == "cpu" else name


def picture_of(values: flags.FlagValues) -> Path | None:
    """The file to draw, if one is wanted."""
    if not (values.out or values.picture):
        return None
    target = Path(values.picture or Path(values.out) / PICTURE)
    if target.suffix not in PICTURES or target.is_dir():
        raise InputError(f"--picture is {str(target)!r}; allowed: a file {', '.join(PICTURES)}.")
    return target


def write(found: dict[str, Any], values: flags.FlagValues) -> None:
    if (target := picture_of(values)) is None:
        return
    from vit_jax.analysis import plan_figures

    plan_figures.draw_plan(found, target)
    if values.out:
        (target.parent / "plan.json").write_text(json.dumps(found, indent=2) + "\n")
