"""What can be told of a row without running it: parameters, compute and hyperparameters.

Each function takes a row's whole config and its `data`, (classes, examples) where the data is not
at hand, as `table.Column.analytic` does. Models are traced with shapes alone; nothing is compiled.

The law of training compute, found by fitting Table 6 of the ViT paper (arXiv:2010.11929):

    exaFLOPs = 3 · forward · images seen / 1e18

A backward pass multiplies twice for each product of the forward pass, a multiply-add is two
operations, norms, softmax and activations are free, and a product with the padding around an image
is none, which is how XLA's own cost analysis counts convolutions. With 303 million images an epoch
and a head of 18,291 classes the law leaves less than 0.7 % in 15 of the table's 18 rows; see
experiments/vit/table6.py for the other three.
"""

import functools
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from vit_jax import experiment, planning
from vit_jax.analysis import cost
from vit_jax.core import Tree
from vit_jax.errors import InputError
from vit_jax.layers.attention_choice import by_definition
from vit_jax.learner import Learner, TrainSettings
from vit_jax.train import sharding

Config = Mapping[str, Any]
Data = tuple[int, int] | None
# Papers count models without what the first fine-tuning throws away.
HEAD = ("head", "representation")
# A learner wants to know how it is trained, and no count depends on it.
ANY_STEPS = 10**9
ANY_TRAINING = dict(optimizer=dict(learning_rate=1.0), train=dict(num_steps=ANY_STEPS))


class Counts(NamedTuple):
    """Of one model and one image."""

    model: nn.Module
    params: Tree  # shapes
    flops: int  # of the forward pass
    pixel_flops: int  # without products with padding


def parameters(config: Config, data: Data = None) -> float:
    """In millions, the head included."""
    return cost.count_parameters(_count(config, data).params) / 1e6


def backbone_parameters(config: Config, data: Data = None) -> float:
    """In millions, without the head and the tanh layer before it."""
    params = _count(config, data).params
    return cost.count_parameters({k: v for k, v in params.items() if k not in HEAD}) / 1e6


def gflops(config: Config, data: Data = None) -> float:
    """1e9 operations of a forward pass of one image, as `plan` tells them."""
    return _count(config, data).flops / 1e9


def exaflops(config: Config, data: Data = None) -> float:
    """1e18 operations of the whole training, by the law above."""
    return cost.TRAINING_FACTOR * _count(config, data).pixel_flops * images(config, data) / 1e18


def images(config: Config, data: Data = None) -> int:
    """Images that the training sees."""
    settings, batch_size = TrainSettings(**config["train"]), config["data"]["batch_size"]
    if settings.num_steps is None and data is None:
        raise InputError("a training of num_epochs needs the row's `data`; allowed: both counts.")
    num_examples = 0 if data is None else data[1]
    return settings.steps(num_examples=num_examples, batch_size=batch_size) * batch_size


def size(name: str) -> Callable[[Config, Data], float]:
    """Of the model itself: 'depth', 'width', 'mlp_dim' and so on."""
    return functools.partial(_size, name=name)


def setting(
    key: str, *, equals: Any = None, default: float = math.nan
) -> Callable[[Config, Data], float]:
    """The config's 'section.key' as a number; with `equals`, 1 where it is that and 0 elsewhere.

    `default` is what a config that leaves the key out has; `nan` equals no published value.
    """
    return functools.partial(_setting, key=key, equals=equals, default=default)


def _size(config: Config, data: Data, *, name: str) -> float:
    model = _count(config, data).model
    for holder in (model, getattr(model, "block", None)):
        if hasattr(holder, name):
            return float(getattr(holder, name))
    raise InputError(f"a {type(model).__name__} has no {name!r}; allowed: a setting of it.")


def _setting(config: Config, data: Data, *, key: str, equals: Any, default: float) -> float:
    del data
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    if equals is not None:
        return float(value == equals)
    return default if value is None else float(value)


def _count(config: Config, data: Data) -> Counts:
    sections = {name: config[name] for name in ("task", "data")}
    return _counted(json.dumps({**sections, **ANY_TRAINING}, sort_keys=True), data)


@functools.cache  # a table asks for several columns of a row, and rows share models
def _counted(text: str, data: Data) -> Counts:
    learner = _learner(json.loads(text), data)
    state = learner.abstract_state()
    forward = functools.partial(learner.task.predict, rng=jax.random.key(0))
    with by_definition():
        program = jax.make_jaxpr(forward)(state.variables(), learner.info.empty_batch()).jaxpr
    return Counts(
        model=learner.task.model,
        params=state.params,
        flops=cost.count_program(program),
        pixel_flops=count_with_pixels(program),
    )


def _learner(config: Config, data: Data) -> Learner:
    num_classes, num_examples = data or (None, None)
    told = planning.Told(num_classes=num_classes, num_examples=num_examples)
    config = experiment.plain(config)
    info = planning.describe_data(config, 0, told, [])
    mesh = sharding.make_abstract_mesh(num_devices=1)
    return experiment.build_learner(config, mesh, info, ANY_STEPS)


def count_with_pixels(program: Any) -> int:
    """FLOPs of a traced program as `cost.count_program`, without products with padding."""
    total = 0
    for equation in program.eqns:
        if equation.primitive.name == "conv_general_dilated":
            total += round(cost.count_equation(equation) * pixel_share(equation))
        elif inner := cost.inner_programs(equation):
            times = equation.params["length"] if equation.primitive.name == "scan" else 1
            total += times * sum(map(count_with_pixels, inner))
        else:
            total += cost.count_equation(equation)
    return total


def pixel_share(equation: Any) -> float:
    """Of a convolution's products, those that do not fall on padding; 0 to 1."""
    settings, share = equation.params, 1.0
    layout = settings["dimension_numbers"]
    shapes = [x.aval.shape for x in (*equation.invars[:2], *equation.outvars)]
    axes = zip(layout.lhs_spec[2:], layout.rhs_spec[2:], layout.out_spec[2:], strict=True)
    strides, paddings = settings["window_strides"], settings["padding"]
    for (i, k, o), stride, (before, _) in zip(axes, strides, paddings, strict=True):
        length, kernel, outputs = shapes[0][i], shapes[1][k], shapes[2][o]
        starts = [stride * position - before for position in range(outputs)]
        within = sum(max(0, min(length, s + kernel) - max(0, s)) for s in starts)
        share *= within / (kernel * outputs)
    return share
