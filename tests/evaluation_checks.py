"""Features as a model might give them, for tests of protocols that need no model.

Letters: n examples; d channels; k classes.
"""

import numpy as np

from vit_jax.data.pipeline import EvalSettings
from vit_jax.evaluation.protocol import SplitOutputs


def clusters(n, d, *, k, seed=0, spread=1.0):
    """(features, labels): noise around a centre of each class."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % k)
    centres = np.random.default_rng(99).normal(size=(k, d))
    return (centres[labels] + spread * rng.normal(size=(n, d))).astype(np.float32), labels


def split(examples, k, *, name="train", **more):
    """What a model would have made of a split; `more` is further of its attributes."""
    features, labels = examples
    return SplitOutputs(
        name=name,
        index=np.arange(len(features)),
        label=labels,
        representation=features,
        num_examples=len(features),
        class_names=tuple(map(str, range(k))),
        **more,
    )


def settings(**changed):
    return EvalSettings(**{"split": "test", **changed})
