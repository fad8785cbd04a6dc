"""What a run will be and cost, from its config, before any of it is paid for.

Nothing is computed but shapes, so that the largest model takes seconds on a laptop, and the
devices of the run need not be there; what depends on their kind (the attention that 'auto'
chooses) is this machine's. Sizes are in bytes; GFLOPs are 1e9 operations, two for a
multiply-add, and GMACs count that as one, since papers have both.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
from ml_collections import ConfigDict

from vit_jax import experiment, sections
from vit_jax.analysis import cost, memory
from vit_jax.core import Tree
from vit_jax.data import pipeline
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.layers.embed import grid_size
from vit_jax.learner import Info, Learner, TrainSettings
from vit_jax.models.mixer import Mixer
from vit_jax.models.vit import VisionTransformer
from vit_jax.train import sharding

# Where a run's length is not known; schedules need one, and sizes do not depend on it.
ANY_STEPS = 10**9
DEFAULT_CHANNELS = 3  # where neither data nor config nor command line tells
# A row of a batch beside its image, as `data.batching.batches` makes it.
ROW = {"label": ((), "int32"), "mask": ((), "bool"), "index": ((), "int32")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Told:
    """What the caller says of data that is not at hand."""

    num_examples: int | None = None
    num_classes: int | None = None
    channels: int | None = None

    def check(self, found: Info) -> None:
        """Raises `InputError` where opened data is otherwise."""
        actual = dict(
            num_examples=found.num_examples,
            num_classes=len(found.class_names),
            channels=found.preprocessing.channels,
        )
        for name, value in actual.items():
            if getattr(self, name) not in (None, value):
                raise InputError(
                    f"{name} was told to be {getattr(self, name)}, but the data says {value}; "
                    "allowed: the same, or nothing."
                )


def plan(
    config: ConfigDict | Mapping[str, Any],
    *,
    depth: int = 2,
    num_devices: int | None = None,
    told: Told = Told(),
) -> dict[str, Any]:
    """The card of a run, as plain data; see `analysis.tables` for its tables.

    Args:
      config: of the run.
      depth: names of a path by which parameters are put together.
      num_devices: of the run; by default this machine's.
      told: of the data, in case it cannot be opened.
    """
    config, *_ = experiment.read_initial(experiment.plain(config))
    notes: list[str] = []
    settings = sections.call(TrainSettings, config["train"], where="config.train")
    info = describe_data(config, settings.seed, told, notes)
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
    learner = experiment.build_learner(config, mesh, info, num_steps or ANY_STEPS)
    seen = num_steps and num_steps * batch_size
    flops = learner.flops_per_example()
    return {
        "model": config["task"].get("model", {}).get("name", "vit"),
        "image": list(info.preprocessing.image_shape),
        "tokens": count_tokens(learner),
        "parameters": parameters(learner, depth),
        "flops": {
            "forward_gflops": flops / cost.TRAINING_FACTOR / 1e9,
            "forward_gmacs": flops / cost.TRAINING_FACTOR / 2e9,
            "training_gflops": flops / 1e9,
            "run_exaflops": seen and flops * seen / 1e18,
        },
        "run": {
            "num_examples": num_examples,
            "num_classes": len(info.class_names),
            "batch_size": batch_size,
            "num_steps": num_steps,
            "num_epochs": settings.num_epochs or (seen and num_examples and seen / num_examples),
            "examples_seen": seen,
            "mesh": dict(mesh.shape),
        },
        "memory": memory_of(learner, batch_size, notes),
        "notes": notes,
    }


def describe_data(config: Mapping[str, Any], seed: int, told: Told, notes: list[str]) -> Info:
    """The data's own account of itself; if it cannot be opened, what config and caller tell.

    `num_examples` is 0 where nobody knows it.
    """
    section = config["data"]
    try:
        data = experiment.build_data(section, seed=seed)
        # One row shows what a batch is made of.
        row = dataclasses.replace(data.train, batch_size=1)
        info = Info.of(dataclasses.replace(data, train=row))
    except InputError:
        given = _checked(section, seed)
        if (problem := _why_closed(given)) is None:
            raise
    else:
        told.check(info)
        return info
    notes.append(f"the data cannot be opened: {problem}")
    num_classes = told.num_classes or config["task"].get("num_classes")
    if not num_classes:
        raise InputError(
            f"{problem.rstrip('.')}, so that the number of classes is not known; allowed: "
            "--num_classes=N for a plan without the data."
        )
    channels = given.get("channels") or told.channels
    if channels is None:
        channels = DEFAULT_CHANNELS
        notes.append(f"images are taken to have {channels} channels; --channels=N says otherwise")
    if not told.num_examples:
        notes.append("the size of the data is not known; --num_examples=N tells it")
    fields = {field.name for field in dataclasses.fields(Preprocessing)} & given.keys()
    size = given["image_size"]
    size = sections.pair(size)
    own = {name: given[name] for name in fields} | dict(image_size=size, channels=channels)
    preprocessing = Preprocessing(**own)
    return Info(
        class_names=tuple(str(k) for k in range(num_classes)),
        preprocessing=preprocessing,
        num_examples=told.num_examples or 0,
        batch={"image": (preprocessing.image_shape, "uint8"), **ROW},
    )


def _checked(section: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The keys of `config.data` once their names and types are found right."""
    keep = functools.wraps(pipeline.build)(lambda **given: given)
    return sections.call(keep, section, where="config.data", seed=seed)


def _why_closed(given: Mapping[str, Any]) -> str | None:
    try:
        pipeline.Origin.of(given).open(given.get("train", "train"))
    except InputError as error:
        return str(error)
    return None


def count_tokens(learner: Learner) -> dict[str, int] | None:
    """Length of the sequence that the blocks work on; None for models without one."""
    model, size = getattr(learner.task, "model", None), learner.info.preprocessing.image_size
    if isinstance(model, VisionTransformer):
        (rows, columns), prefix = model.grid(size), model.num_prefix
    elif isinstance(model, Mixer):
        (rows, columns), prefix = grid_size(size, model.patch_size), 0
    else:
        return None
    return {"patches": rows * columns, "prefix": prefix, "sequence": rows * columns + prefix}


def parameters(learner: Learner, depth: int) -> dict[str, Any]:
    params, transform = _shapes(learner.abstract_state().params), learner.optimizer.transform

    def update(gradients: Tree, params: Tree) -> Tree:
        return transform.update(gradients, transform.init(params), params)[0]

    return {
        "total": cost.count_parameters(params),
        "trainable": cost.count_trained(update, params),
        "table": [row._asdict() for row in cost.parameter_table(params, depth)],
    }


def memory_of(learner: Learner, batch_size: int, notes: list[str]) -> dict[str, int]:
    """Bytes of a training step on each device; those but activations and workspace are exact."""
    state, mesh, accum_steps = learner.abstract_state(), learner.mesh, learner.settings.accum_steps
    rows = batch_size // (mesh.shape["data"] * mesh.shape["fsdp"])  # on one device
    key, small = jax.random.key(0), _shapes(state.replace(opt_state=(), ema_params=None))

    def loss(params, state, batch):
        return learner.task.loss(params, state, batch, key, train=True)[0].total

    def traced(size):
        return small.params, small, learner.abstract_batch(size)

    # Mixing wants even batches; what is saved is a constant and a multiple of the rows.
    two, four = (memory.saved_bytes(loss, *traced(size)) for size in (2, 4))
    per_image, microbatch = (four - two) // 2, rows // accum_steps
    saved = two + (microbatch - 2) * per_image
    even = microbatch + microbatch % 2
    peak = memory.peak_bytes(jax.grad(loss), *traced(even)) - (even - microbatch) * per_image
    gradients = memory.device_bytes(state.params)
    model = getattr(learner.task, "model", None)
    if getattr(model, "remat", "none") != "none" and getattr(model, "unroll", 1) > 1:
        notes.append(
            f"remat is counted as if it held, but with unroll {model.unroll} XLA may merge what is "
            "computed again with what was computed before; with unroll 1 it cannot"
        )
    found = {
        "parameters": memory.device_bytes(state.params),
        "averaged_parameters": memory.device_bytes(state.ema_params),
        "optimizer": memory.device_bytes(state.opt_state),
        "other_state": memory.device_bytes((state.model_state, state.task_state)),
        # Microbatches have a sum of gradients, and each its own.
        "gradients": gradients * (1 if accum_steps == 1 else 2),
        "batch": memory.tree_bytes(learner.abstract_batch(rows)),
        "activations": saved,
        "workspace": max(0, peak - saved - memory.tree_bytes(state.params)),
    }
    if mesh.shape["tensor"] > 1:
        notes.append("activations are counted whole, though the tensor axis splits some of them")
    if mesh.shape["fsdp"] > 1:
        notes.append("layers that the fsdp axis gathers for their use are not counted")
    return {**found, "total": sum(found.values()), "activations_per_image": per_image}


def _shapes(tree: Tree) -> Tree:
    """Without places, which tracing has no use for."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
