"""What a config's training and evaluations will see, as pictures."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vit_jax import sections
from vit_jax.analysis import sheets
from vit_jax.data.pipeline import EvalSettings
from vit_jax.experiment import build_data
from vit_jax.initial import Beginning
from vit_jax.learner import TrainSettings


def draw(config: dict[str, Any], folder: Path, number: int) -> Iterator[Path]:
    """Writes train.png and one PNG an evaluation, of `number` examples each; yields the files."""
    config, _ = Beginning.read(config)
    settings = sections.call(TrainSettings, config["train"], where="config.train")
    data = build_data(config["data"], seed=settings.seed)
    readers = {"train": data.train}
    for name, section in config["evals"].items():
        where = f"config.evals.{name}"
        readers[name] = data.evaluation(sections.call(EvalSettings, section, where=where))
    for name, reader in readers.items():
        shown = min(number, reader.num_examples)
        target = folder / f"{name}.png"
        title = f"{name}: {reader.source.name}"
        sheets.draw_batch(reader.first(shown), data.class_names, target, title=title)
        yield target
