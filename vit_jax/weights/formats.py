"""What a file or folder of weights is, and all that it says of its model."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from vit_jax import models
from vit_jax.data.images.preprocessing import Preprocessing
from vit_jax.errors import InputError
from vit_jax.layers.attention_choice import runnable
from vit_jax.train.checkpoint import Checkpointer
from vit_jax.weights import (
    big_vision,
    google_families,
    huggingface,
    huggingface_processor,
    pretraining,
    timm,
)
from vit_jax.weights.files import Stored, read_arrays, read_stored
from vit_jax.weights.table import Part, Rule, Table


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
    # What a method of pretraining goes on with: settings of `config.task` by section, the
    # student's arrays where `arrays` are its teacher's, and other arrays that the task moves.
    task: Mapping[str, Mapping[str, Any]] = {}
    student: Mapping[str, np.ndarray] | None = None
    task_state: Mapping[str, np.ndarray] = {}

    def has_head_for(self, class_names: Sequence[str]) -> bool:
        """Is the stored head one for these classes?

        Where the source states no names, as many classes are taken for the same ones.
        """
        if not self.names_are_stated:
            return len(class_names) == len(self.class_names)
        return tuple(class_names) == self.class_names

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns that stored positions are for; None where there are no patches."""
        if self.name != "vit":
            return None
        model = models.build("vit", **self.settings)
        return model.position_grid or model.grid(self.preprocessing["image_size"])


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
    stored = read_stored(path, part=part)
    arrays, architecture = stored.arrays, architecture or config.get("architecture")
    if architecture is not None:
        return _read_timm(stored, architecture, config)
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
        task=family.task(config),
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


def _read_timm(stored: Stored, architecture: str, config: Mapping[str, Any]) -> Source:
    arrays = stored.arrays
    classes = timm.num_classes(arrays)
    images = timm.preprocessing(config) if config else timm.guess_preprocessing(arrays)
    names = config.get("label_names")
    return Source(
        table=timm.table(arrays),
        arrays=arrays,
        name="vit",
        settings={**timm.settings(architecture, arrays), "num_classes": classes},
        preprocessing=images,
        task=timm.task_settings(arrays),
        student=stored.student,
        task_state={} if stored.centre is None else {"centre": stored.centre.reshape(-1)},
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
    """The newest sound checkpoint of a run; the weights that it measured: averaged, a teacher's."""
    checkpointer = Checkpointer(path / "checkpoints", read_only=True)
    step = checkpointer.newest()
    if step is None:
        raise InputError(f"there is no checkpoint in {path / 'checkpoints'}.")
    card = checkpointer.read_card(step)
    model, task = card.get("model") or _whole_model(card), card["config"]["task"]
    top, *below = model["weights"].split("/")
    teaches = top == "task_state"
    student = ("params",) if teaches else ()
    found = checkpointer.read_weights(step, top, "model_state", *student)
    checkpointer.close()
    measured = functools.reduce(lambda tree, key: tree[key], below, found[top])
    arrays = traverse_util.flatten_dict(measured, sep="/")
    collections = {
        name: functools.reduce(lambda tree, key: tree.get(key, {}), model["path"], tree)
        for name, tree in found.get("model_state", {}).items()
    }
    settings = runnable(task["model"])
    if "/".join([*model["path"], "mask_token"]) in arrays:  # which DINO's task decides
        settings["mask_token"] = True
    if settings.get("name", "vit") == "vit":  # which pooling decides, and another may go on
        settings["class_token"] = "/".join([*model["path"], "class_token"]) in arrays
    return Source(
        table=_table_of_run(arrays, model["path"]),
        arrays=arrays,
        name=settings.pop("name", "vit"),
        settings={**settings, "num_classes": model["num_classes"]},
        preprocessing=dataclasses.asdict(Preprocessing.from_dict(card["preprocessing"])),
        class_names=tuple(card["class_names"]) if model["num_classes"] else (),
        collections=collections,
        task={n: task[n] for n in pretraining.TASK_SECTIONS[1:] if task.get(n)},
        student=traverse_util.flatten_dict(found["params"], sep="/") if teaches else None,
        task_state={n: x for n, x in found[top].items() if n != below[0]} if teaches else {},
    )


def _whole_model(card: Mapping[str, Any]) -> dict[str, Any]:
    """What an earlier run's card leaves unsaid: all it learned was the model."""
    keeps_average = card["config"]["train"].get("ema_decay") is not None
    return {
        "weights": "ema_params" if keeps_average else "params",
        "path": [],
        "num_classes": len(card["class_names"]),
    }


def _table_of_run(arrays: Iterable[str], path: Sequence[str]) -> Table:
    """Ours are named as in the model, theirs as in the parameters, where it is at `path`."""
    prefix = "".join(f"{key}/" for key in path)
    own = [name for name in arrays if name.startswith(prefix)]
    others: dict[str, list[Rule]] = {}
    for name in arrays:
        if not name.startswith(prefix):
            others.setdefault(name.partition("/")[0], []).append(Rule(name, name))
    return Table(
        family="vit_jax",
        rules=tuple(Rule(name, name.removeprefix(prefix)) for name in own),
        ignored={f"{prefix}mask_token": "the mask token serves pretraining only"},
        parts={
            key: Part(tuple(rules), rf"{key}/.*", "the run learned it beside its model")
            for key, rules in others.items()
        },
    )


def class_names_of(names: Mapping[Any, str] | None, num_classes: int) -> dict[str, Any]:
    """`Source`'s two fields, from {'0': 'cat', ...} (JSON has no whole numbers for keys)."""
    names = {str(key): name for key, name in (names or {}).items()}
    is_placeholder = all(re.fullmatch(r"LABEL_\d+", name) for name in names.values())
    numbers = tuple(str(i) for i in range(num_classes))
    if set(names) != set(numbers) or is_placeholder:
        return dict(class_names=numbers, names_are_stated=False)
    return dict(class_names=tuple(names[number] for number in numbers), names_are_stated=True)
