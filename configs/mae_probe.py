"""A linear probe of an encoder that masked autoencoding trained (arXiv:2111.06377, Table 10).

    python -m vit_jax train --config=configs/mae_probe.py:B16 --workdir=runs/mae-b16-probe
    python -m vit_jax train --config=configs/mae_probe.py:fashion --workdir=runs/mae-probe

ARG is B16, L16 or H14, the published weights on ImageNet-1k, or fashion, which begins with
`runs/mae-fashion` of configs/mae.py:fashion; --config.init.source=WORKDIR begins with another run.
LARS trains the head alone, on the class token (fashion has none: on the average of the others)
behind a batch norm without parameters; the rest stays as it is, in evaluation's mode, since nothing
drops out. 50 epochs do for L and H (FINETUNE.md). The rate is for 256 examples, so another batch
size moves it. Two differences from the published code: a crop that does not fit is drawn again,
where that cuts it; and the batch norm sees all 16,384 images of a batch, where that has 512 a GPU.
Published: B16 67.8 %, L16 76.0 %, H14 77.2 % (FINETUNE.md), B16 in 2 h 20 on 32 V100. None of these
has been run here, for want of GPUs.
"""

from ml_collections import ConfigDict

from configs.common import FASHION, IMAGENET_224, MAE_ENCODERS

EPOCHS = {"B16": 90, "L16": 50, "H14": 50, "fashion": 30}
SETTINGS = ("B16", "fashion")  # the others are larger, and otherwise the same
WEAK = dict(crop="inception", interpolation="bicubic", flip_probability=0.5)


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", *EPOCHS):
        raise ValueError(f"there is no setting {arg!r}; allowed: {', '.join(EPOCHS)}")
    is_small, config = arg == "fashion", ConfigDict()
    source, architecture = MAE_ENCODERS[arg or "B16"]
    config.init = dict(source=source, architecture=architecture)
    dtype, pool = ("float32", "gap") if is_small else ("bfloat16", "cls")
    config.task = dict(
        name="classification",
        model=dict(pool=pool, head_norm="batch", head_std=0.01, dtype=dtype),
    )
    large = dict(IMAGENET_224, batch_size=16_384, dialect="torchvision", augment=WEAK)
    config.data = dict(FASHION, batch_size=1024) if is_small else large
    config.optimizer = dict(
        name="lars",
        momentum=0.9,
        learning_rate=0.1,
        reference_batch_size=256,
        warmup_epochs=3.0 if is_small else 10.0,
        rate_patterns=[("head/.*", 1.0), (".*", 0.0)],
    )
    config.train = dict(num_epochs=EPOCHS[arg or "B16"], seed=0, checkpoint_every=500)
    small = dict(validation=dict(split="train[95%:]", every_steps=500), test=dict(split="test"))
    config.evals = small if is_small else dict(val=dict(split="validation", every_steps=800))
    config.mesh = dict(data=-1)
    return config.lock()
