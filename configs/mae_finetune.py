"""Fine-tuning an encoder that masked autoencoding trained (arXiv:2111.06377, Table 9).

    python -m vit_jax train --config=configs/mae_finetune.py:B16 --workdir=runs/mae-b16-finetune
    python -m vit_jax train --config=configs/mae_finetune.py:fashion --workdir=runs/mae-finetune

ARG is B16, L16 or H14, the published weights on ImageNet-1k, or fashion, which begins with
`runs/mae-fashion` of configs/mae.py:fashion; --config.init.source=WORKDIR begins with another run.
As in the published code (FINETUNE.md), since those weights are trained on normalised pixels: Table
9 has a base rate of 1e-3 and a layer decay of 0.75 for all, a drop path of 0.1 for L and 0.2 for H,
and no erasing. Rates are for 256 examples, so another data.batch_size moves them.
Published (FINETUNE.md): B16 83.6 %, L16 85.9 % (7 and 9 hours, 32 V100), H14 86.9 % (13 hours, 64).
None of these has been run here, for want of GPUs.
"""

from ml_collections import ConfigDict

from configs.common import FASHION, IMAGENET_224, MAE_ENCODERS, STRONG

# size: (rate for 256 examples, layer decay, epochs, drop path).
RECIPES = {
    "B16": (5e-4, 0.65, 100, 0.1),
    "L16": (1e-3, 0.75, 50, 0.2),
    "H14": (1e-3, 0.75, 50, 0.3),
    "fashion": (1e-3, 0.75, 20, 0.1),
}
SETTINGS = ("B16", "fashion")  # the others are larger, and otherwise the same


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ("", *RECIPES):
        raise ValueError(f"there is no setting {arg!r}; allowed: {', '.join(RECIPES)}")
    is_small, config = arg == "fashion", ConfigDict()
    learning_rate, layer_decay, num_epochs, drop_path = RECIPES[arg or "B16"]
    source, architecture = MAE_ENCODERS[arg or "B16"]
    # The last norm is a new one, on what is pooled.
    new = dict(initialise=["pooled_norm/.*"], ignore=["(.*/)?norm[./].*"])
    config.init = dict(source=source, architecture=architecture, **new)
    model = dict(pool="gap", final_norm="pooled", head_std=2e-5)
    model |= {} if is_small else dict(class_token=True)
    model |= dict(drop_path_rate=drop_path, dtype="float32" if is_small else "bfloat16")
    mixing = {} if is_small else dict(mixup_alpha=0.8, cutmix_alpha=1.0)
    config.task = dict(name="classification", model=model, label_smoothing=0.1, mixing=mixing)
    large = dict(IMAGENET_224, batch_size=1024, augment=STRONG)
    config.data = dict(FASHION, batch_size=256) if is_small else large
    config.optimizer = dict(
        name="adamw",
        learning_rate=learning_rate,
        reference_batch_size=256,
        end_learning_rate=1e-6,
        warmup_epochs=2.0 if is_small else 5.0,
        weight_decay=0.05,
        layer_decay=layer_decay,
    )
    config.train = dict(num_epochs=num_epochs, seed=0, checkpoint_every=1000)
    small = dict(validation=dict(split="train[95%:]", every_steps=1000), test=dict(split="test"))
    config.evals = small if is_small else dict(val=dict(split="validation", every_steps=12_500))
    config.mesh = dict(data=-1)
    return config.lock()
