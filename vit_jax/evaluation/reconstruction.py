"""How well a model paints what was masked, and pictures of it.

Compared are the pixels of masked patches alone, from 0 to 1, with the painted ones clipped to that
range, as a picture would be. Which patches these are the task says; as an example's mask is the
same at every step, the pictures of a run show one thing growing clearer.

Letters: n examples; h, w, c pixels and channels.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import Float

from vit_jax.analysis.reconstruction_figures import draw_reconstructions
from vit_jax.data.examples import Source
from vit_jax.data.pipeline import EvalSettings
from vit_jax.errors import InputError
from vit_jax.evaluation.protocol import TEST, Protocol, Report, Request, SplitOutputs

MOST = 64  # examples: each is drawn, and its pixels are held in memory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reconstruction(Protocol):
    """`mse`, the mean over examples, `psnr`, 10·log10(1 / mse) in decibels, and pictures."""

    reads: ClassVar[tuple[str, ...]] = ("reconstruction", "masked")

    def requests(self, test: EvalSettings, training_split: str | None) -> dict[str, Request]:
        del training_split
        return {TEST: Request(settings=test, own_classes=True)}

    def check_sources(self, sources: Mapping[str, Source]) -> None:
        if (found := len(sources[TEST])) > MOST:
            raise InputError(
                f"{sources[TEST].name} has {found} examples; allowed for reconstruction: up to "
                f"{MOST}, e.g. split='test[:16]'."
            )

    def metric_names(self) -> list[str]:
        return ["mse", "psnr"]

    def measure(self, outputs: Mapping[str, SplitOutputs]) -> Report:
        found = outputs[TEST]
        images = np.stack(found.images(found.index.tolist()))
        masked = found.masked > 0
        mse = float(masked_mse(images / 255, np.clip(found.reconstruction, 0, 1), masked).mean())
        painted = np.round(255 * np.clip(found.reconstruction, 0, 1)).astype(np.uint8)
        draw = functools.partial(draw_reconstructions, images, masked, painted)
        return Report(
            metrics={"mse": mse, "psnr": -10 * math.log10(mse) if mse else math.inf},
            pictures={"reconstructions.png": draw},
            is_series=True,
        )


def masked_mse(
    image: Float[np.ndarray, "n h w c"],
    painted: Float[np.ndarray, "n h w c"],
    masked: np.ndarray,
) -> Float[np.ndarray, " n"]:
    """Of each example, over the pixels where `masked` bool[n, h, w]."""
    error = np.square(image - painted).mean(axis=-1)
    return (error * masked).sum(axis=(1, 2)) / masked.sum(axis=(1, 2))
