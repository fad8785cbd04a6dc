"""What a file or folder of weights is, and all that it says of its model."""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from vit_jax import models
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.layers.attention_choice import runnable
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.weights import big_vision, google_families, huggingface, huggingface_processor, timm
from vit_jax.weights.files import read_arrays
from vit_jax.weights.table import Rule, Table


class Source(NamedTuple):
    """Weights as they were found, whatever their format."""

    table: Table
    arrays: Mapping[str, np.ndarray]
    name: str  # in `models.MODELS`
    settings: Mapping[str, Any]  # of its builder, `num_classes` among them
    preprocessing: Mapping[str, Any]  # of `Preprocessing`
    class_names: tuple[str, ...]  # one a row of the head; numbers where the file has no names
    names_are_stated: bool = True  # False where they are those numbers
    collections: Mapping[str, Any] = {}  # beside 'params': running statistics of batch norms

    def has_head_for(self, class_names: Sequence[str]) -> bool:
        """Is the stored head one for these classes?

        Where the source states no names, as many classes are taken for the same ones.
        """
        if not self.names_are_stated:
            return len(class_names) == len(self.class_names)
        return tuple(class_names) == self.class_names

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the patches that it was trained on; None where there are none."""
        if self.name != "vit":
            return None
        return models.build("vit", **self.settings).grid(self.preprocessing["image_size"])


def read(
    path: Path,
    *,
    architecture: str | None = None,
    part: str | None = None,
    old_grid: tuple[int, int] | None = None,
) -> Source:
    """Detects the format and reads it all; see `loading.load` for the arguments."""
    config = _config_of(path)
    if {"task", "data"} <= config.keys():
        return _read_run(path)
    if "model_type" in config:
        return _read_huggingface(path, config, part)
    arrays = read_arrays(path, part=part)
    architecture = architecture or config.get("architecture")
    if architecture is not None:
        return _read_timm(arrays, architecture, config)
    if google := google_families.find(arrays):
        return _read_google(google, old_grid)
    if big_vision.is_one(arrays):
        return _read_big_vision(arrays)
    if "patch_embed.proj.weight" in arrays:
        raise InputError(
            f"{path} has timm's names, which do not tell the number of heads; allowed: with "
            "architecture=NAME, e.g. vit_base_patch16_224."
        )
    some = ", ".join(list(arrays)[:5])
    raise InputError(
        f"{path} holds arrays named {some}, ..., which is no known layout; allowed: Google's and "
        "big_vision's .npz, folders of Hugging Face or timm, timm's layout with an architecture, "
        "a run's workdir."
    )


def _config_of(path: Path) -> dict[str, Any]:
    """The config.json of a folder; empty where there is none."""
    file = path / "config.json"
    if not path.is_dir() or not file.is_file():
        return {}
    try:
        config = json.loads(file.read_text())
    except ValueError as error:
        raise InputError(f"{file} is no JSON ({error}).") from error
    if not isinstance(config, dict):
        raise InputError(f"{file} holds a {type(config).__name__}; allowed: an object.")
    return config


def _read_huggingface(path: Path, config: Mapping[str, Any], part: str | None) -> Source:
    family, vision = huggingface.find_family(config)
    arrays = read_arrays(path, part=part)
    num_classes = huggingface.num_classes(family, arrays)
    processor = path / "preprocessor_config.json"
    stored = json.loads(processor.read_text()) if processor.is_file() else {}
    return Source(
        table=family.table,
        arrays=arrays,
        name="vit",
        settings={**family.settings(vision, frozenset(arrays)), "num_classes": num_classes},
        preprocessing=huggingface_processor.read_preprocessing(vision, stored),
        **class_names_of(config.get("id2label"), num_classes),
    )


def _read_google(found: google_families.Found, old_grid: tuple[int, int] | None) -> Source:
    settings = found.family.settings(found.arrays)
    return Source(
        table=found.family.table,
        arrays=found.arrays,
        name=found.name,
        settings=settings,
        preprocessing=found.family.preprocessing(found.arrays, old_grid),
        **class_names_of(None, settings["num_classes"]),
    )


def _read_timm(
    arrays: Mapping[str, np.ndarray], architecture: str, config: Mapping[str, Any]
) -> Source:
    classes = timm.num_classes(arrays)
    stored = timm.preprocessing(config) if config else timm.guess_preprocessing(arrays)
    names = config.get("label_names")
    return Source(
        table=timm.table(arrays),
        arrays=arrays,
        name="vit",
        settings={**timm.settings(architecture, arrays), "num_classes": classes},
        preprocessing=stored,
        **class_names_of(dict(enumerate(names)) if names else None, classes),
    )


def _read_big_vision(arrays: Mapping[str, np.ndarray]) -> Source:
    classes = big_vision.num_classes(arrays)
    return Source(
        table=big_vision.table(arrays),
        arrays=arrays,
        name="vit",
        settings={**big_vision.settings(arrays), "num_classes": classes},
        preprocessing=big_vision.preprocessing(arrays),
        **class_names_of(None, classes),
    )


def _read_run(path: Path) -> Source:
    """The newest sound checkpoint of a run; its averaged weights where it keeps them."""
    checkpointer = Checkpointer(path / "checkpoints", read_only=True)
    step = checkpointer.newest()
    if step is None:
        raise InputError(f"there is no checkpoint in {path / 'checkpoints'}.")
    card, state = checkpointer.read_card(step), checkpointer.read_weights(step)
    checkpointer.close()
    params = state.get("ema_params") or state["params"]
    arrays = traverse_util.flatten_dict(params, sep="/")
    model = runnable(card["config"]["task"]["model"])
    return Source(
        table=Table(family="vit_jax", rules=tuple(Rule(name, name) for name in arrays)),
        arrays=arrays,
        name=model.pop("name", "vit"),
        settings={**model, "num_classes": len(card["class_names"])},
        preprocessing=dataclasses.asdict(Preprocessing.from_dict(card["preprocessing"])),
        class_names=tuple(card["class_names"]),
        collections=state["model_state"],
    )


def class_names_of(names: Mapping[Any, str] | None, num_classes: int) -> dict[str, Any]:
    """`Source`'s two fields, from {'0': 'cat', ...} (JSON has no whole numbers for keys)."""
    names = {str(key): name for key, name in (names or {}).items()}
    is_placeholder = all(re.fullmatch(r"LABEL_\d+", name) for name in names.values())
    numbers = tuple(str(i) for i in range(num_classes))
    if set(names) != set(numbers) or is_placeholder:
        return dict(class_names=numbers, names_are_stated=False)
    return dict(class_names=tuple(names[number] for number in numbers), names_are_stated=True)
