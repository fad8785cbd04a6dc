"""`load`: published weights, or a run's own, as a model that is ready to use."""

import dataclasses
import functools
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from vit_jax import models, sections
from vit_jax.core import Variables
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.layers import resize
from vit_jax.layers.stem import STRIDES
from vit_jax.models.vit import VisionTransformer
from vit_jax.weights.formats import Source, read
from vit_jax.weights.mapping import Adapter, merge, to_ours
from vit_jax.weights.pretraining import DECODER
from vit_jax.weights.remote import fetch
from vit_jax.weights.report import Report
from vit_jax.weights.table import Table

logger = logging.getLogger(__name__)

# What reads the image: of a ViT or Mixer, a hybrid, a ResNet.
FIRST_KERNELS = ("patch_embedding/kernel", "stem/root/kernel", "root/kernel")
RELATIVE = "encoder/blocks/attention/relative_positions/embedding"
DECODER_POSITIONS = f"{DECODER}/position_embedding"  # of MAE
HEADS = r"(distillation_)?head/(kernel|bias)"
HEAD_STATISTICS = r"(distillation_)?head_norm/(mean|var)"


class Pretrained(NamedTuple):
    """A model with its weights and what belongs to them.

    Attributes:
      model: `model.apply(variables, images)` takes f32[b, h, w, c], normalised.
      variables: {'params': ..., other collections}, in float32.
      preprocessing: `preprocessing(image)` gives the uint8[h, w, c] that was trained on; its mean
        and std normalise.
      class_names: one a row of the head.
      settings: `name` in `models.MODELS`, and the settings of its builder: a config's task.model.
      report: what became of each array; print it.
    """

    model: nn.Module
    variables: Variables
    preprocessing: Preprocessing
    class_names: tuple[str, ...]
    settings: dict[str, Any]
    report: Report


def load(
    source: str | Path,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    class_names: tuple[str, ...] | None = None,
    architecture: str | None = None,
    part: str | None = None,
    positions: str = "bicubic",
    old_grid: tuple[int, int] | None = None,
    seed: int = 0,
    **settings: Any,
) -> Pretrained:
    """Loads any published ViT, Mixer or BiT, or fails with the leaves that do not fit.

    Nothing is fetched unless `source` is a remote id or a URL.

    Args:
      source: a file, a folder, 'hf:owner/name', 'owner/name', 'https://...' or 'gs://...'.
      image_size: (height, width) of the images to come; by default that of the weights. Learned
        positions are resized to its grid. A Mixer has no other size; a BiT file does not tell
        its own.
      channels: of the images to come; the first convolution is adapted. Grey images then have
        the features of grey RGB ones; of a ResNet or hybrid, whose kernels are standardised, up
        to a factor a channel, so fine-tune it, or keep the channels of the weights.
      class_names: of a new task: the head is new unless it has these classes already, or states
        none and has as many; () leaves the head out.
      architecture: timm's name, for a bare file in timm's or Facebook's layout.
      part: of a PyTorch file, see `files.read_arrays`.
      positions: how learned positions are resized: 'bicubic' and 'bilinear' are antialiased, as
        in timm; 'zoom' is the original code's law.
      old_grid: (rows, columns) of the stored positions, where they are no square; tells the
        default of image_size, too.
      seed: of what is initialised anew.
      **settings: of the model's builder, in place of the stored ones, e.g. drop_path_rate=0.1,
        dtype='bfloat16', patch_size=8.

    Raises:
      InputError: with what was found and what is allowed.
    """
    found = read(fetch(source), architecture=architecture, part=part, old_grid=old_grid)
    names = found.class_names if class_names is None else tuple(class_names)
    chosen = {**found.settings, **settings}
    if class_names is not None:
        chosen["num_classes"] = len(names)
    model = models.build(found.name, where="settings", **chosen)
    if image_size is None and old_grid is not None:
        image_size = _size_of(old_grid, found.settings)
    preprocessing = _preprocessing(found.preprocessing, image_size, channels)
    variables, report = load_into(
        model,
        found,
        image_shape=preprocessing.image_shape,
        new_head=not found.has_head_for(names),
        positions=positions,
        old_grid=old_grid,
        seed=seed,
    )
    settings = {"name": found.name, **chosen}
    return Pretrained(model, variables, preprocessing, names, settings, report)


class Network(NamedTuple):
    """What learns with a model as a part of it.

    Attributes:
      path: where in the parameters those of the model are.
      init: new variables.
    """

    path: tuple[str, ...]
    init: Callable[[], Variables]

    @property
    def prefix(self) -> str:
        return "".join(f"{key}/" for key in self.path)

    def beside(self, params: Mapping[str, Any]) -> list[str]:
        """Names of what is there beside the model."""
        return [name for name in params if name not in self.path[:1]] if self.path else []

    def model_in(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return functools.reduce(lambda tree, key: tree[key], self.path, params)


def load_into(
    model: nn.Module,
    found: Source,
    *,
    image_shape: tuple[int, int, int],
    network: Network | None = None,
    new_head: bool = False,
    new_parts: bool = False,
    positions: str = "bicubic",
    old_grid: tuple[int, int] | None = None,
    initialise: Sequence[str] = (),
    ignore: Sequence[str] = (),
    seed: int = 0,
) -> tuple[Variables, Report]:
    """Variables of a model with what was found, and the report, in which all is explained.

    Args:
      image_shape: (height, width, channels) of the images to come.
      network: that the model is a part of; the variables are then the network's. Of its other
        parts those are loaded that the source has; the rest is new.
      new_head: is the stored head another task's?
      new_parts: are the network's other parts new even if the source has them?
      positions, old_grid, seed: see `load`.
      initialise: regular expressions of paths of ours that are not to be loaded.
      ignore: regular expressions of their names that are not to be used.

    Raises:
      InputError: for leaves that are missing, unused or of another shape without a reason.
    """
    image = jnp.zeros((1, *image_shape))
    network = network or Network((), lambda: model.init(jax.random.key(seed), image))
    shapes = jax.eval_shape(network.init)
    beside = network.beside(shapes["params"])
    wanted = [] if new_parts else [n for n in found.table.parts_in(found.arrays) if n in beside]
    fresh, unused = _explained(found, network, shapes["params"], new_head=new_head)
    new = "new, as asked" if new_parts else "the source has none"
    fresh |= {f"{name}/.*": new for name in beside if name not in wanted}
    params, report = to_ours(
        found.table.of_network(network.path, wanted),
        found.arrays,
        target_shapes=shapes["params"],
        adapters=_adapters(model, network, image_shape[:2], positions, old_grid or found.grid),
        initialised={**dict.fromkeys(initialise, "as asked"), **fresh},
        ignored={**dict.fromkeys(ignore, "as asked"), **unused},
    )
    report.check()
    initial: dict[str, Any] = {}
    if initialised := report.of("initialised"):
        names = ", ".join(leaf.name for leaf in initialised)
        logger.warning("initialised anew instead of loaded: %s", names)
        initial = jax.jit(network.init)()
        params = merge(initial["params"], params)
    anew = [*fresh, *initialise]
    if new_head:
        anew.append(network.prefix + HEAD_STATISTICS)
    others = {
        name: _collection(name, tree, _below(found, network, name), initial.get(name, {}), anew)
        for name, tree in shapes.items()
        if name != "params"
    }
    return jax.tree.map(jnp.asarray, {"params": params, **others}), report


def _explained(
    found: Source, network: Network, params: Any, *, new_head: bool
) -> tuple[dict[str, str], dict[str, str]]:
    """Of the model: paths of ours that are new and names of theirs that are not used -> why."""
    model, prefix = network.model_in(params), network.prefix
    fresh, unused = {}, {}
    if new_head and "head" in model:
        fresh[prefix + HEADS] = "a new head for other classes"
    elif new_head or (network.path and "head" not in model):
        unused[_names_of_heads(found.table)] = "the head is left out, as asked"
    if "mask_token" in model and not found.table.has(found.arrays, "mask_token"):
        fresh[f"{prefix}mask_token"] = "the source has none"
    return fresh, unused


def _below(found: Source, network: Network, name: str) -> Any:
    """The source's collection, which is the model's, as one of the network's."""
    stored = found.collections.get(name, {})
    return functools.reduce(lambda tree, key: {key: tree}, reversed(network.path), stored)


def _collection(
    name: str, shapes: Any, stored: Any, initial: Any, fresh: Sequence[str]
) -> dict[str, Any]:
    """A collection beside 'params': as stored, but initial where the parameters are, too."""
    stored, initial = (traverse_util.flatten_dict(t, sep="/") for t in (stored, initial))
    leaves = {}
    for path, target in traverse_util.flatten_dict(shapes, sep="/").items():
        is_fresh = any(re.fullmatch(pattern, path) for pattern in fresh)
        leaves[path] = leaf = (initial if is_fresh else stored).get(path)
        if leaf is None or leaf.shape != target.shape:
            held = "is not in the file" if leaf is None else f"has shape {leaf.shape} there"
            raise InputError(f"{name} {path} has shape {target.shape} here and {held}.")
    return traverse_util.unflatten_dict(leaves, sep="/")


def _size_of(grid: tuple[int, int], settings: Mapping[str, Any]) -> tuple[int, int]:
    """Pixels of an image that has this grid of patches."""
    patch, stride = settings["patch_size"], STRIDES.get(settings.get("stem"), 1)
    patch = sections.pair(patch)
    return grid[0] * patch[0] * stride, grid[1] * patch[1] * stride


def _preprocessing(
    stored: Mapping[str, Any], image_size: int | tuple[int, int] | None, channels: int | None
) -> Preprocessing:
    """The stored one, but for images of another size or number of channels."""
    found, changes = Preprocessing.from_dict(stored), {}
    if image_size is not None:
        size = sections.pair(image_size)
        changes["image_size"] = size
    if channels is not None and channels != found.channels:
        changes["channels"] = channels
        for name in ("mean", "std"):  # one number a channel no longer fits: their average
            values = getattr(found, name)
            changes[name] = (sum(values) / len(values),)
    return dataclasses.replace(found, **changes)


def _adapters(
    model: nn.Module,
    network: Network,
    image_size: tuple[int, int],
    positions: str,
    old_grid: tuple[int, int] | None,
) -> dict[str, Adapter]:
    """What may be resized: positions to the model's grid, first kernels to its patches, channels.

    Paths that the model does not have are never asked.
    """
    adapters: dict[str, Adapter] = dict.fromkeys(FIRST_KERNELS, resize.adapt_patch_kernel)
    if not isinstance(model, VisionTransformer):
        return {network.prefix + path: adapter for path, adapter in adapters.items()}
    law = dict(method=positions, antialias=positions != "zoom")
    grid = model.grid(image_size)
    adapters["position_embedding"] = resize.position_adapter(
        new_grid=model.position_grid or grid,
        num_prefix=len(model.prefix) if model.prefix_positions else 0,
        old_grid=old_grid,
        **law,
    )
    for axis in ("rows", "columns"):
        adapters[f"position_embedding/{axis}"] = resize.axis_adapter(**law)
    adapters[RELATIVE] = _same_grid_only(grid, old_grid)
    adapters = {network.prefix + path: adapter for path, adapter in adapters.items()}
    if network.path:
        adapters[DECODER_POSITIONS] = resize.position_adapter(
            new_grid=grid, num_prefix=len(model.prefix), old_grid=old_grid, **law
        )
    return adapters


def _same_grid_only(new_grid: tuple[int, int], old_grid: tuple[int, int] | None) -> Adapter:
    """Offsets are of patches numbered row by row: with rows of another length they mean others."""

    def adapt(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if tuple(old_grid or new_grid) != new_grid or table.shape != shape:
            raise InputError(
                f"position_embedding is 'relative', the weights' grid {_by(old_grid)} and the "
                f"images' {_by(new_grid)}, to which offsets cannot be resized; allowed: images of "
                f"the weights' size, or config.init.initialise=['{RELATIVE}']."
            )
        return table

    return adapt


def _by(grid: tuple[int, int] | None) -> str:
    return "another" if grid is None else "x".join(map(str, grid))


def _names_of_heads(table: Table) -> str:
    """A regular expression of their names for our heads."""
    rules = [rule for rule in table.rules if isinstance(rule.ours, str)]
    return "|".join(re.escape(rule.theirs) for rule in rules if re.fullmatch(HEADS, rule.ours))
