"""Multi-crop: several views of one image, two of them large (SwAV, arXiv:2006.09882).

With the settings of DINO (arXiv:2104.14294, main_dino.py): two global views that cover much of the
image, several small local ones, each drawn and coloured on its own. The first global view is always
blurred, the second seldom and sometimes solarised, the local ones every other time. For a ViT
DINO's recipes have global_area=(0.25, 1) and local_area=(0.05, 0.25).

Letters: H, W, c = height, width and channels of a global view, h, w of a local one; n local views.
"""

from dataclasses import dataclass, replace

import numpy as np

from vit_jax import sections
from vit_jax.data.augment import jitter
from vit_jax.data.augment.crops import InceptionCrop
from vit_jax.data.examples import Example, Transform
from vit_jax.data.images.decode import pixels
from vit_jax.errors import InputError

NUM_GLOBAL = 2
# What lives in the coordinates of the image, and so belongs to no one of the views.
PLACED = ("image", "video", "boxes", "box_label", "segmentation", "masks", "keypoints")


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view is made: a crop, then the steps in their order."""

    crop: InceptionCrop
    steps: tuple[Transform, ...]

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        view = self.crop({"image": image}, rng)
        for step in self.steps:
            view = step(view, rng)
        return view["image"]


@dataclass(frozen=True, kw_only=True)
class MultiCrop:
    """`transform(example, rng)`: views in place of the image.

    The result has 'global_images' uint8[2,H,W,c] and 'local_images' uint8[n,h,w,c], and of the
    example what does not live in the coordinates of its image.

    Attributes:
      global_views: one for each.
      local_view: for all of them.
      num_local: n.
    """

    global_views: tuple[View, ...]
    local_view: View
    num_local: int

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        kept = {name: value for name, value in example.items() if name not in PLACED}
        image = pixels(example["image"])  # once, rather than a part of it for each view
        kept["global_images"] = np.stack([view(image, rng) for view in self.global_views])
        if self.num_local:
            local = [self.local_view(image, rng) for _ in range(self.num_local)]
            kept["local_images"] = np.stack(local)
        return kept


def build_multi_crop(
    *,
    num_local: int = 8,
    local_size: tuple[int, int] | int = 96,
    global_area: tuple[float, float] = (0.4, 1.0),
    local_area: tuple[float, float] = (0.05, 0.4),
    blur: tuple[float, float, float] = (1.0, 0.1, 0.5),
    solarize: tuple[float, float, float] = (0.0, 0.2, 0.0),
    crop: InceptionCrop,
    before: tuple[Transform, ...],
    after: tuple[Transform, ...],
) -> MultiCrop:
    """Views by the law of `crop`, of other areas and sizes.

    Args:
      num_local: n; with 0 there is no 'local_images'.
      local_size: (h, w), or one number for a square.
      global_area, local_area: least and largest share of the image.
      blur: probability of a Gaussian blur of 0.1 to 2 pixels in the first global view, the
        second, and a local one.
      solarize: the same, of solarising at 128.
      crop: whose law, size, channels and resampling the global views have.
      before, after: steps of every view around blur and solarisation.

    Raises:
      InputError: for a value out of range.
    """
    _check_areas(global_area=global_area, local_area=local_area)
    _check_probabilities(blur=blur, solarize=solarize)
    if num_local < 0:
        raise InputError(f"augment.multi_crop.num_local is {num_local}; allowed: 0 or more.")
    local_size = sections.pair(local_size)
    for side in local_size:
        sections.positive_int(side, "augment.multi_crop.local_size")

    def view(k: int, **changed) -> View:
        middle = (
            *((jitter.build_gaussian_blur(probability=blur[k]),) if blur[k] else ()),
            *((jitter.build_solarize(probability=solarize[k]),) if solarize[k] else ()),
        )
        return View(crop=replace(crop, **changed), steps=(*before, *middle, *after))

    return MultiCrop(
        global_views=tuple(view(k, area=global_area) for k in range(NUM_GLOBAL)),
        local_view=view(NUM_GLOBAL, area=local_area, size=local_size),
        num_local=num_local,
    )


def _check_areas(**areas: tuple[float, float]):
    for name, (low, high) in areas.items():
        if not 0 < low <= high <= 1:
            raise InputError(
                f"augment.multi_crop.{name} is {low} to {high}; it is a share of the image area "
                "with 0 < least <= largest <= 1."
            )


def _check_probabilities(**groups: tuple[float, float, float]):
    for name, values in groups.items():
        if not all(0 <= value <= 1 for value in values):
            raise InputError(
                f"augment.multi_crop.{name} is {values}; allowed: three numbers of 0 to 1."
            )
