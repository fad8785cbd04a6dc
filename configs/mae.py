"""Pretraining of the masked autoencoder (arXiv:2111.06377, Table 8), and the same on small images.

    python -m vit_jax train --config=configs/mae.py:fashion --workdir=runs/mae-fashion
    python -m vit_jax train --config=configs/mae.py:L16,800 --workdir=runs/mae-l16 \
        --config.data.data_dir=DIR
"""

from ml_collections import ConfigDict

SETTINGS = ("fashion", "digits", "B16", "L16", "H14,1600")
FASHION = dict(
    source="idx:/usr/share/datasets/fashion-mnist",
    train="train[:95%]",
    image_size=(28, 28),
    batch_size=128,
    augment=dict(crop="shift", padding=2, flip_probability=0.5),
)
DIGITS = dict(
    source="digits",
    train="train[:95%]",
    image_size=(16, 16),
    batch_size=64,
    augment=dict(crop="shift", padding=2),
)
IMAGENET = dict(
    source="tfds:imagenet2012",
    image_size=224,
    channels=3,
    batch_size=4096,
    resize="crop",
    interpolation="bicubic",
    dialect="torchvision",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    augment=dict(crop="inception", min_area=0.2, interpolation="bicubic", flip_probability=0.5),
)
# Besides the kernels, as in the public code, whose optimizer spares vectors and biases alone.
DECAYED = ((r"(.*/)?(kernel|class_token|mask_token)", True), (r".*", False))
EPOCHS = {"fashion": 20, "digits": 150}
FROZEN = ((r".*position_embedding", 0.0), (r".*", 1.0))


def get_config(arg: str = "") -> ConfigDict:
    name, _, epochs = (arg or "fashion").partition(",")
    if name not in ("fashion", "digits", "B16", "L16", "H14") or not (epochs or "1").isdecimal():
        raise ValueError(f"there is no setting {arg!r}; allowed: NAME[,EPOCHS], {SETTINGS}")
    config = ConfigDict()
    model = dict(name="vit", position_initial="sincos2d", activation="gelu")
    if name in ("fashion", "digits"):
        model |= dict(patch_size=4, width=64, depth=4, mlp_dim=128, num_heads=4, pool="gap")
        decoder = dict(width=48, depth=2, num_heads=4, mlp_dim=96)
        data, base, warmup_steps = (FASHION if name == "fashion" else DIGITS), 8e-3, 500
        held_out = dict(split="train[95%:]", every_steps=1000)
        evals = dict(
            knn=dict(protocol="knn", train="train[:20%]", **held_out),
            pictures=dict(held_out, protocol="reconstruction", split="train[-16:]"),
            validation=held_out,
            test=dict(protocol="knn", train="train[:95%]", split="test"),
        )
    else:
        model |= dict(size=name[0], patch_size=int(name[1:]), dtype="bfloat16")
        decoder, data, base, warmup_steps = {}, IMAGENET, 1.5e-4, 12_511
        evals = dict(
            knn=dict(protocol="knn", split="validation", train="train[:10%]", every_steps=25_000),
            pictures=dict(protocol="reconstruction", split="validation[:16]", every_steps=5_000),
        )
    config.task = dict(name="mae", model=model, decoder=decoder, mask_ratio=0.75)
    config.data = data
    config.optimizer = dict(
        name="adamw",
        learning_rate=base * data["batch_size"] / 256,
        schedule="cosine",
        warmup_steps=warmup_steps,
        weight_decay=0.05,
        b2=0.95,
        decay_patterns=DECAYED,
        rate_patterns=FROZEN,
    )
    config.train = dict(
        num_epochs=int(epochs or EPOCHS.get(name, 800)), seed=0, log_every=50, checkpoint_every=1000
    )
    config.evals = evals
    config.mesh = dict(data=-1)
    return config.lock()
