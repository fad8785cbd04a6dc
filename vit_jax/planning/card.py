"""The card of a planned run as plain data; `analysis.tables` prints it, `analysis.plan_figures`
draws it. Keys name their units; GFLOPs are 1e9 operations, two for a multiply-add, and GMACs
count that as one, since papers have both."""

from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from vit_jax import experiment, sections
from vit_jax.analysis import devices
from vit_jax.initial import Beginning
from vit_jax.layers.attention_choice import choose_attention
from vit_jax.layers.remat import REMAT_POLICIES
from vit_jax.learner import Learner, TrainSettings
from vit_jax.planning import compiled, notes, search
from vit_jax.planning.data import Told, describe_data
from vit_jax.planning.model import count_tokens, parameters, setting
from vit_jax.planning.speed import Traffic, expected_traffic, link_seconds, step_time
from vit_jax.planning.work import Work
from vit_jax.train import sharding

# Where a run's length is not known; schedules need one, and sizes do not depend on it.
ANY_STEPS = 10**9
NOTHING = Told()
# Memory of the host is not counted, so that offloading to it is not searched.
POLICIES = tuple(name for name in REMAT_POLICIES if name != "offload")
FUSED = ("cudnn", "pallas")
ATTENTION = ("task", "model", "attention_implementation")


def plan(
    config: ConfigDict | Mapping[str, Any],
    *,
    depth: int = 2,
    num_devices: int | None = None,
    told: Told = NOTHING,
    device: str | None = None,
    compiles: bool = False,
    searches: bool = True,
) -> dict[str, Any]:
    """Everything that is told of a run.

    Args:
      config: of the run.
      depth: names of a path by which parameters are put together.
      num_devices: of the run; by default this machine's.
      told: of the data, in case it cannot be opened.
      device: a name of `analysis.devices.DEVICES`, for speed and for what fits.
      compiles: compiles the step for this process's devices, if they are as many as the run's.
      searches: tells what would fit the device, too; that takes most of the time.
    """
    config, _ = Beginning.read(experiment.plain(config))
    found: list[str] = []  # notes
    name = device and device.lower()
    target = devices.find(name) if name else None
    settings = sections.call(TrainSettings, config["train"], where="config.train")
    info = describe_data(config, settings.seed, told, found)
    batch_size, num_examples = config["data"]["batch_size"], info.num_examples or None
    mesh = sections.call(
        sharding.make_abstract_mesh,
        config["mesh"],
        where="config.mesh",
        num_devices=jax.device_count() if num_devices is None else num_devices,
    )
    sharding.check_batch_size(
        batch_size, mesh, accum_steps=settings.accum_steps, where="config.data.batch_size"
    )
    num_steps = settings.num_steps
    if num_examples:
        num_steps = settings.steps(num_examples=num_examples, batch_size=batch_size)

    def build(config: Mapping[str, Any], mesh: Any = mesh) -> Learner:
        return experiment.build_learner(config, mesh, info, num_steps or ANY_STEPS)

    traced = as_on(name, config, build(config), found)
    learner = build(traced)
    work = Work(learner, batch_size)
    seen = num_steps and num_steps * batch_size
    forward, flops = learner.forward_flops_per_example(), learner.flops_per_example()
    needed = expected_traffic(work, settings.accum_steps)
    card = {
        "model": config["task"].get("model", {}).get("name", "vit"),
        "image": list(info.preprocessing.image_shape),
        "tokens": count_tokens(learner),
        "parameters": parameters(work, depth),
        "flops": {
            "forward_gflops": forward / 1e9,
            "forward_gmacs": forward / 2e9,
            "training_gflops": flops / 1e9,
            "recomputed_gflops": max(0.0, recomputed(work, build, traced)) / 1e9,
            "step_teraflops": flops * batch_size / 1e12,
            "run_exaflops": seen and flops * seen / 1e18,
        },
        "run": {
            "num_examples": num_examples,
            "num_classes": len(info.class_names),
            "batch_size": batch_size,
            "accum_steps": settings.accum_steps,
            "microbatch_per_device": work.rows // settings.accum_steps,
            "num_steps": num_steps,
            "num_epochs": settings.num_epochs or (seen and num_examples and seen / num_examples),
            "examples_seen": seen,
            "mesh": dict(mesh.shape),
            "num_devices": mesh.size,
        },
        "memory_bytes": work.memory(settings.accum_steps),
        "activation_bytes_per_image": work.saved_per_image,
        "collectives": [collective(part) for part in needed],
        "device": name and describe_device(name, target),
        "fit": None,
        "speed": None,
        "compiled": None,
    }
    # A CPU compiles no fused kernel; the device itself compiles what the run will.
    compilable = traced if jax.default_backend() == "cpu" else config
    measured = compile_step(compilable, batch_size, build, mesh, found) if compiles else None
    if measured:
        card["compiled"] = describe_compiled(measured)
    if target and target.memory_bytes:
        if searches:
            card["fit"] = fit(traced, work, build, target, settings.accum_steps)
        traffic = sent(measured, needed)
        card["speed"] = speed(work, settings.accum_steps, target, traffic, num_steps, flops)
    found += notes.of(card, work, target)
    return {**card, "notes": found}


def as_on(
    name: str | None, config: Mapping[str, Any], learner: Learner, found: list[str]
) -> Mapping[str, Any]:
    """The config with the attention that 'auto' would take on the device of the run.

    Fused kernels cannot be traced where they do not run: 'xla' stands for them.
    """
    block = setting(learner, "block")
    tokens = count_tokens(learner)
    kernel = getattr(block, "attention_implementation", "dense")
    if kernel == "auto" and name is not None and tokens:
        choice = choose_attention(
            backend=devices.DEVICES[name].backend,
            device_kind=name.upper().split("-")[0],
            head_size=learner.task.model.width // block.num_heads,
            num_queries=tokens["sequence"],
            num_keys=tokens["sequence"],
            dtype=str(block.dtype),
            has_bias=setting(learner, "position_embedding") == "relative",
        )
        found.append(f"attention on {name}: {choice}")
        config = search.set_key(config, ATTENTION, kernel := choice.name)
    if kernel in FUSED:
        found.append(
            f"attention is counted with its weights in memory, which {kernel} does not store: the "
            "run needs less memory and time than is told"
        )
        config = search.set_key(config, ATTENTION, "xla")
    return config


def recomputed(work: Work, build: Any, config: Mapping[str, Any]) -> float:
    """FLOPs for an example that rematerialisation adds."""
    if setting(work.learner, "remat", "none") == "none":
        return 0.0
    plainly = Work(build(search.set_key(config, search.REMAT, "none")), work.batch_size)
    return work.flops_per_example - plainly.flops_per_example


def sent(measured: compiled.Compiled | None, needed: list[Traffic]) -> list[Traffic]:
    """The collectives that the time is reckoned with.

    Those of a CPU's program are taken only where they show a mistake: its compiler sums along
    fsdp and cuts, where those of accelerators scatter at half the cost.
    """
    if measured is None:
        return needed
    is_wrong = notes.is_suspicious(measured.traffic, needed)
    return measured.traffic if is_wrong or measured.backend != "cpu" else needed


def fit(
    config: Mapping[str, Any], work: Work, build: Any, target: devices.Device, accum_steps: int
) -> dict[str, Any]:
    """Does the run fit the device, and what would?"""
    usable = (1 - search.RESERVE) * target.memory_bytes
    options = search.search(config, work, build, usable, POLICIES)
    best = search.cheapest(options)
    return {
        "fits": work.memory(accum_steps)["total"] <= usable,
        "usable_bytes": usable,
        "reserve_share": search.RESERVE,
        "options": [describe_option(option, target) for option in options],
        "cheapest": best and {"remat": best.remat, "flags": search.flags(best)},
    }


def describe_option(option: search.Option, target: devices.Device) -> dict[str, Any]:
    traffic = expected_traffic(option.work, option.accum_steps)
    seconds = step_time(option.work, option.accum_steps, target, traffic).total
    return {
        "remat": option.remat,
        "fits": option.fits,
        "accum_steps": option.accum_steps,
        "microbatch_per_device": option.microbatch,
        "memory_bytes": dict(option.memory),
        "gflops_per_example": option.flops_per_example / 1e9,
        "step_seconds": seconds,
        "flags": search.flags(option),
    }


def speed(
    work: Work,
    accum_steps: int,
    target: devices.Device,
    traffic: list[Traffic],
    num_steps: int | None,
    flops: float,
) -> dict[str, Any]:
    mesh, batch_size = dict(work.learner.mesh.shape), work.batch_size
    time, num_devices = step_time(work, accum_steps, target, traffic), work.learner.mesh.size
    hours = num_steps and num_steps * time.total / 3600
    return {
        "step_seconds": time.total,
        "parts_seconds": {
            "products": time.products,
            "passes": time.passes,
            "optimizer": time.optimizer,
            "exposed_collectives": time.exposed,
        },
        "collectives_seconds": [
            {**collective(part), "seconds": link_seconds(part, mesh, target)} for part in traffic
        ],
        "images_per_second": batch_size / time.total,
        "images_per_second_per_device": batch_size / time.total / num_devices,
        "mfu": flops * batch_size / (time.total * num_devices * target.peak_flops),
        "run_hours": hours,
        "run_device_hours": hours and hours * num_devices,
    }


def compile_step(
    config: Mapping[str, Any], batch_size: int, build: Any, mesh: Any, found: list[str]
) -> compiled.Compiled | None:
    if jax.device_count() == mesh.size:
        return compiled.compile_step(config, batch_size, build, mesh.shape)
    found.append(
        f"the step is not compiled: this process has {jax.device_count()} devices, and the run "
        f"{mesh.size}"
    )
    return None


def describe_compiled(step: compiled.Compiled) -> dict[str, Any]:
    return {
        "backend": step.backend,
        "compile_seconds": step.seconds,
        "memory_bytes": dict(step.memory),
        "collectives": [collective(part) for part in step.traffic],
        "collectives_are_exact": step.is_exact,
    }


def collective(part: Traffic) -> dict[str, Any]:
    return {
        "axes": list(part.axes),
        "kind": part.kind,
        "count_per_step": part.count,
        "bytes_per_step": part.bytes_per_step,
    }


def describe_device(name: str, device: devices.Device) -> dict[str, Any]:
    return {
        "name": name,
        "peak_teraflops": device.peak_flops and device.peak_flops / 1e12,
        "memory_bytes": device.memory_bytes,
        "memory_bytes_per_second": device.memory_bandwidth,
        "link_bytes_per_second_within": device.bandwidth_within,
        "link_bytes_per_second_across": device.bandwidth_across,
        "devices_per_node": device.devices_per_node,
    }
