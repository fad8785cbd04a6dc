"""Published architectures as Flax modules.

`MODELS` maps a name to the function that builds it; `build('vit', size='B', ...)` calls one.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from vit_jax import sections
from vit_jax.errors import InputError
from vit_jax.models import mixer, resnet, vit

MODELS = {"vit": vit.build, "mixer": mixer.build, "resnet": resnet.build}


def of_task(model: Mapping[str, Any], *, num_classes: int) -> nn.Module:
    """What `config.task.model` describes, by default a ViT, with a head for so many classes."""
    settings = {"name": "vit", **model}
    if "num_classes" in settings:
        raise InputError(
            f"config.task.model.num_classes is {settings['num_classes']}; allowed: no such key, "
            "since the task tells it."
        )
    return build(settings.pop("name"), num_classes=num_classes, **settings)


def build(name: str, *, where: str = "config.task.model", **settings: Any) -> nn.Module:
    """The model `name` with these settings; an unknown name or setting is an `InputError`."""
    builder = sections.choose(MODELS, name, where=f"{where}.name")
    return sections.call(builder, settings, where=where)
