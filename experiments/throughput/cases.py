"""What is measured: models, works, and peers with their options.

Letters: b images of a batch.
"""

import json
from dataclasses import asdict, dataclass
from typing import Any

CLASSES = 1000
# Widths, depths, MLP widths and heads, as in vit_jax/models/vit.py; timm's names for them.
TIMM_SIZES = {"Ti": "tiny", "S": "small", "B": "base", "L": "large", "H": "huge"}
WORKS = ("train", "infer", "infer1")  # a step of a batch; inference of a batch, and of one image
TRAIN_BATCHES = {"Ti": 1024, "S": 1024, "B": 512, "L": 256, "H": 128}  # on one GPU of 141 GB
CPU_BATCH = 32
GPU_INFER_BATCH = 256
LEARNING_RATE, WEIGHT_DECAY = 1e-3, 0.05
# Of the pixels, in units of the range [0, 1]; the same for all.
MEAN, STD = 0.5, 0.5
GATE_STEPS = 3  # training steps whose losses are compared; they are the warm-up, too
GATE_ROWS = 4  # images whose logits are compared


@dataclass(frozen=True, kw_only=True)
class Case:
    """One comparison.

    Attributes:
      model: e.g. 'B/16'.
      image_size: pixels of a side.
      work: one of `WORKS`.
      batch: images a step.
      device: 'cpu' or 'gpu'.
      dtype: of the computation, 'float32' or 'bfloat16'; parameters of training are float32.
      weights: folder of the weights that all start from.
      cores: of the CPU that a process may use.
    """

    model: str
    image_size: int
    work: str
    batch: int
    device: str
    dtype: str
    weights: str
    cores: int

    @property
    def size(self) -> str:
        return self.model.split("/")[0]

    @property
    def patch_size(self) -> int:
        return int(self.model.split("/")[1])

    @property
    def architecture(self) -> str:
        """timm's name of the model at its usual resolution."""
        return f"vit_{TIMM_SIZES[self.size]}_patch{self.patch_size}_224"

    @property
    def name(self) -> str:
        return f"{self.model} {self.image_size} {self.work} b{self.batch} {self.dtype}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def batch_of(model: str, work: str, device: str, given: int | None) -> int:
    if work == "infer1":
        return 1
    if given is not None:
        return given
    if device == "cpu":
        return CPU_BATCH
    return TRAIN_BATCHES[model.split("/")[0]] if work == "train" else GPU_INFER_BATCH


def parse_peer(text: str) -> tuple[str, dict[str, Any]]:
    """'ours+unroll=1+remat=dots' -> ('ours', {'unroll': 1, 'remat': 'dots'})."""
    name, *options = text.split("+")
    found = {}
    for option in options:
        key, _, value = option.partition("=")
        try:
            found[key] = json.loads(value)
        except json.JSONDecodeError:
            found[key] = value
    return name, found


def random_batch(case: Case) -> tuple[Any, Any]:
    """uint8[b, h, w, 3] and int[b]; the same for every peer, and never zeros."""
    import numpy as np

    random = np.random.default_rng(0)
    shape = (case.batch, case.image_size, case.image_size, 3)
    return random.integers(256, size=shape, dtype=np.uint8), random.integers(
        CLASSES, size=case.batch
    )
