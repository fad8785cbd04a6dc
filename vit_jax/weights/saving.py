"""`save`: a model's weights in the layout of another library, or an error that says why not.

A layout can express a model if reading back what it would write gives the same model. That is
what is asked before anything is written, so nothing is lost in silence.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import models, sections
from vit_jax.core import Variables
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.models.vit import VisionTransformer
from vit_jax.weights import big_vision, google_families, huggingface, huggingface_processor, timm
from vit_jax.weights.files import write_npz, write_safetensors
from vit_jax.weights.mapping import Tree, to_theirs
from vit_jax.weights.table import Table

Arrays = Mapping[str, np.ndarray]


def save(
    target: str | Path,
    model: nn.Module,
    variables: Variables,
    *,
    layout: str,
    preprocessing: Preprocessing,
    class_names: Sequence[str] = (),
    architecture: str | None = None,
) -> Path:
    """Writes weights as another library wants them, and returns the path.

    Args:
      target: of 'google' and 'big_vision' an .npz file; of 'huggingface' and 'timm' a folder.
      layout: a name in `LAYOUTS`.
      architecture: timm's name for it, e.g. 'vit_base_patch16_224'; for that layout alone.
      preprocessing, class_names: written beside the weights where the layout has a place; without
        names the classes are numbers.

    Raises:
      InputError: where the layout cannot express the model.
    """
    write = sections.choose(LAYOUTS, layout, where="layout")
    if others := [name for name in variables if name != "params"]:
        raise InputError(
            f"a {type(model).__name__} with {', '.join(others)} beside its parameters cannot be "
            f"saved as {layout!r}; allowed: a model without other collections."
        )
    params = jax.tree.map(lambda leaf: np.asarray(leaf), variables["params"])
    target = Path(target)
    if class_names and len(class_names) != model.num_classes:
        raise InputError(
            f"there are {len(class_names)} class_names, but the head has {model.num_classes} "
            "classes; allowed: one name for each, or none."
        )
    if (architecture is not None) != (layout == "timm"):
        raise InputError(
            f"layout is {layout!r} and architecture {architecture!r}; allowed: a name of timm's "
            "with layout 'timm', and none with others."
        )
    write(target, model, params, preprocessing, class_names, architecture)
    return target


def save_google(target, model, params, *_) -> None:
    families = google_families.FAMILIES.items()
    name = next((name for name, family in families if isinstance(model, family.model)), None)
    if name is None:
        allowed = ", ".join(family.model.__name__ for _, family in families)
        raise InputError(
            f"'google' files cannot hold a {type(model).__name__}; allowed: {allowed}."
        )
    family = google_families.FAMILIES[name]
    arrays = arrays_of(family.table, params)
    refuse_differences("'google'", model, models.build(name, **family.settings(arrays)))
    write_npz(npz(target), arrays)


def save_big_vision(target, model, params, *_) -> None:
    only_vit("big_vision", model)
    arrays = arrays_of(big_vision.BIG_VISION, params)
    settings = dict(big_vision.settings(arrays), num_classes=big_vision.num_classes(arrays))
    refuse_differences("'big_vision'", model, models.build("vit", **settings))
    write_npz(npz(target), arrays)


def arrays_of(table: Table, params: Tree) -> dict[str, np.ndarray]:
    """As `to_theirs`; a mask token is left out where there is no place for it.

    Without masked patches, which only methods of pretraining have, it computes nothing.
    """
    if not any(rule.ours == "mask_token" for rule in table.rules):
        params = {name: tree for name, tree in params.items() if name != "mask_token"}
    return to_theirs(table, params)


def npz(target: Path) -> Path:
    if target.suffix != ".npz":
        raise InputError(f"the target is {target}; allowed with this layout: a file *.npz.")
    return target


def only_vit(layout: str, model: nn.Module) -> None:
    if not isinstance(model, VisionTransformer):
        raise InputError(f"{layout!r} cannot hold a {type(model).__name__}; allowed: a ViT.")


def save_timm(target, model, params, preprocessing, class_names, architecture) -> None:
    only_vit("timm", model)
    is_gated = model.block.activation == "swiglu"
    arrays = arrays_of(timm.table_of(architecture, is_gated=is_gated), params)
    settings = dict(timm.settings(architecture, arrays), num_classes=model.num_classes)
    refuse_differences(f"timm's {architecture}", model, models.build("vit", **settings))
    config = dict(
        architecture=architecture.partition(".")[0],
        num_classes=model.num_classes,
        num_features=model.width,
        pretrained_cfg=timm.write_preprocessing(preprocessing),
        **(dict(label_names=list(class_names)) if class_names else {}),
    )
    write_folder(target, arrays, {"config.json": config})


def save_huggingface(target, model, params, preprocessing, class_names, _) -> None:
    only_vit("huggingface", model)
    kind, config, arrays = choose_family(model, params)
    height, width = preprocessing.image_size
    config |= dict(
        model_type=kind,
        image_size=height if height == width else [height, width],
        num_channels=preprocessing.channels,
    )
    if model.num_classes and kind != "clip_vision_model":
        names = class_names or [str(i) for i in range(model.num_classes)]
        config["id2label"] = dict(enumerate(names))
        config["label2id"] = {name: i for i, name in enumerate(names)}
    processor = huggingface_processor.write_preprocessing(preprocessing)
    write_folder(target, arrays, {"config.json": config, "preprocessor_config.json": processor})


def write_folder(target: Path, arrays: Arrays, configs: Mapping[str, Any]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    write_safetensors(target / "model.safetensors", arrays, metadata={"format": "pt"})
    for name, values in configs.items():
        (target / name).write_text(json.dumps(values, indent=2) + "\n")


def choose_family(
    model: VisionTransformer, params: Tree
) -> tuple[str, dict[str, Any], dict[str, np.ndarray]]:
    """Hugging Face's model type that expresses the model: its name, config and arrays."""
    reasons = []
    for kind, family in huggingface.FAMILIES.items():
        name = family.classes[0 if model.num_classes else 1]
        if name is None:
            continue
        config = {**family.config(model), "architectures": [name]}
        family, _ = huggingface.find_family({**config, "model_type": kind})
        try:
            arrays = arrays_of(family.table, params)
            settings = family.settings(config, frozenset(arrays))
            found = models.build("vit", num_classes=model.num_classes, **settings)
            wrong = differences(model, found)
        except InputError as error:
            wrong = [str(error)]
        if not wrong:
            return kind, config, prefixed(family, arrays)
        reasons.append(f"{kind}: {wrong[0]}")
    raise InputError(f"no Hugging Face family expresses this model ({'; '.join(reasons)}).")


def prefixed(family: huggingface.Family, arrays: Arrays) -> dict[str, np.ndarray]:
    """With the tower's name before all but the heads' names, where the file has a head."""
    heads = (family.head.removesuffix("weight"), "distillation_classifier.")
    if family.head not in arrays:
        return dict(arrays)
    return {n if n.startswith(heads) else family.prefix + n: array for n, array in arrays.items()}


def refuse_differences(layout: str, model: nn.Module, other: nn.Module) -> None:
    """Raises `InputError` where what would be read back is another model."""
    if wrong := differences(model, other):
        raise InputError(f"{layout} weights cannot express {'; '.join(wrong)}.")


def differences(model: nn.Module, other: nn.Module) -> list[str]:
    """'pool=gap (would be cls)' for each setting that changes what the model computes."""
    ours, theirs = (dict(_leaves(computing(m))) for m in (model, other))
    return [f"{n}={ours[n]} (would be {theirs[n]})" for n in ours if ours[n] != theirs[n]]


# What concerns only training, the start of it, or speed; None means more, that there is none.
IRRELEVANT = dict(
    dropout_rate=0.0,
    drop_path_rate=0.0,
    layer_scale=1.0,
    head_bias=0.0,
    head_std=0.0,
    unroll=1,
    remat="none",
    dtype=jnp.float32,
    attention_implementation="auto",
    matmul="default",
    position_initial="normal",
    mask_token=False,
)


def computing(settings: Any) -> Any:
    """A module or settings within it, with `IRRELEVANT` as it stands there."""
    changes = {}
    for field in dataclasses.fields(settings):
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value) and field.name != "parent":
            changes[field.name] = computing(value)
        elif field.name in IRRELEVANT and value is not None:
            changes[field.name] = IRRELEVANT[field.name]
    return dataclasses.replace(settings, **changes)


def _leaves(settings: Any):
    for field in dataclasses.fields(settings):
        if field.name in ("parent", "name"):
            continue
        value = getattr(settings, field.name)
        if dataclasses.is_dataclass(value):
            yield from _leaves(value)
        else:
            yield field.name, value


LAYOUTS = {
    "google": save_google,
    "big_vision": save_big_vision,
    "huggingface": save_huggingface,
    "timm": save_timm,
}
