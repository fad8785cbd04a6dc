"""What a policy does with one example: the draws of RandAugment, AutoAugment and 3-Augment.

The settings of each library stand in `policies.py`, which builds these.
"""

import dataclasses
import math

import numpy as np

from vit_jax.data.augment import colour, geometry, levels, operations
from vit_jax.data.augment.autoaugment_tables import SubPolicy
from vit_jax.data.examples import Example

Fill = int | tuple[int, int, int]

UNIFORM_STD = 100  # above it timm draws the level uniformly below the magnitude
BLUR_RADII = (0.1, 2.0)  # in pixels, of 3-Augment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Style:
    """How one use of an operation is drawn and computed.

    Attributes:
      dialect: a name of `operations.DIALECTS`.
      policy: 'randaugment' or 'autoaugment'.
      interpolations: of what moves pixels; one is drawn for each use.
      fill: of what moves pixels.
      bins: of torchvision.
      magnitude_std, magnitude_max: of timm: noise on the level, and its limit.
    """

    dialect: str
    policy: str
    interpolations: tuple[str, ...]
    fill: Fill
    bins: int = 0
    magnitude_std: float = 0.0
    magnitude_max: float = math.inf

    def use(self, example: Example, rng: np.random.Generator, name: str, level: float) -> Example:
        """Does the operation of that name in `levels.py` to an example."""
        rule = levels.RULES[self.dialect][name]
        use = levels.Use(
            level=self._level(rng, level),
            sign=-1 if rule.is_signed and rng.random() < 0.5 else 1,
            size=geometry.example_size(example),
            bins=self.bins,
            policy=self.policy,
        )
        return operations.perform(
            example,
            rng,
            rule.operation,
            rule.amount(use),
            dialect=self.dialect,
            resample=self.interpolations[int(rng.integers(len(self.interpolations)))],
            fill=self.fill,
        )

    def _level(self, rng: np.random.Generator, level: float) -> float:
        if self.magnitude_std > UNIFORM_STD:
            level = rng.uniform(0, level)
        elif self.magnitude_std > 0:
            level = rng.normal(level, self.magnitude_std)
        return max(0, min(level, self.magnitude_max))


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
    """`num_ops` operations, each drawn uniformly and done with `probability`."""

    names: tuple[str, ...]
    num_ops: int
    magnitude: float
    probability: float
    style: Style

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for _ in range(self.num_ops):
            name = self.names[int(rng.integers(len(self.names)))]
            if rng.random() < self.probability:
                example = self.style.use(example, rng, name, self.magnitude)
        return example


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAugment:
    """A pair drawn uniformly, each of its operations done with its probability."""

    table: tuple[SubPolicy, ...]
    style: Style

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        for name, probability, level in self.table[int(rng.integers(len(self.table)))]:
            if rng.random() < probability:
                example = self.style.use(example, rng, name, level or 0)
        return example


def three_augment(example: Example, rng: np.random.Generator) -> Example:
    """Grey, inverted from 128 or blurred, each for one example in three."""
    choice = int(rng.integers(3))
    if choice == 0:
        return operations.change_values(example, colour.grayscale)
    if choice == 1:
        return operations.change_values(example, colour.solarize, 128)
    return operations.change_values(example, colour.gaussian_blur, rng.uniform(*BLUR_RADII))
