"""DINO (arXiv:2104.14294) where it takes minutes: Fashion-MNIST (28×28) and digits (8×8).

    python -m vit_jax train --config=configs/dino_small.py:fashion --workdir=runs/dino-fashion

ARG is fashion or digits. Neither has been tuned, and neither run to its end as it stands.

Seen of fashion, on one trial (seed 0) of the first 10,000 training images: after 200 steps 56.0 %
of 1,200 held-out images by 5,000 voters, where the encoder had 51.7 % before training; 10 minutes
on a 2-core CPU that six other jobs shared. `digits` shows that everything works, not that it helps.
"""

from ml_collections import ConfigDict

# A grey image of 28 pixels has little to blur and nothing to solarise.
VIEWS = dict(num_local=4, blur=(0.5, 0.1, 0.1), solarize=(0.0, 0.0, 0.0))
HEAD = dict(hidden_dim=256, bottleneck_dim=32, num_prototypes=256)
SETTINGS = {
    "fashion": dict(
        task=dict(centring="sinkhorn", koleo_weight=0.1),
        model=dict(patch_size=7, pool="gap"),
        learning_rate=2e-3,
        source="idx:/usr/share/datasets/fashion-mnist",
        train="train[:95%]",
        held_out="train[95%:]",
        image_size=(28, 28),
        batch_size=128,
        views=VIEWS | dict(local_size=14, global_area=(0.4, 1.0), local_area=(0.1, 0.4)),
        flip_probability=0.5,
        num_epochs=2,
        every_steps=200,
    ),
    "digits": dict(
        task={},
        model=dict(patch_size=4),
        learning_rate=1e-3,
        source="digits",
        train="train[:90%]",
        held_out="train[90%:]",
        image_size=(16, 16),
        batch_size=64,
        views=VIEWS | dict(local_size=8, global_area=(0.4, 1.0), local_area=(0.1, 0.4)),
        flip_probability=0.0,
        num_epochs=20,
        every_steps=100,
    ),
}


def get_config(arg: str = "") -> ConfigDict:
    arg = arg or "fashion"
    if arg not in SETTINGS:
        raise ValueError(f"there is no setting {arg!r}; allowed: {', '.join(SETTINGS)}")
    setting = SETTINGS[arg]
    model = dict(name="vit", width=64, depth=4, mlp_dim=128, num_heads=4, **setting["model"])
    augment = dict(
        crop="inception",
        flip_probability=setting["flip_probability"],
        color_jitter=dict(brightness=0.4, contrast=0.4, probability=0.8),
        multi_crop=setting["views"],
    )
    config = ConfigDict()
    config.task = dict(name="dino", model=model, head=HEAD, momentum=0.99, **setting["task"])
    config.data = dict(
        source=setting["source"],
        train=setting["train"],
        image_size=setting["image_size"],
        batch_size=setting["batch_size"],
        augment=augment,
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=setting["learning_rate"],
        schedule="cosine",
        warmup_steps=100,
        end_learning_rate=1e-6,
        weight_decay=0.04,
        end_weight_decay=0.4,
        clip_norm=3.0,
    )
    config.train = dict(num_epochs=setting["num_epochs"], seed=0, log_every=50)
    knn = dict(protocol="knn", train=setting["train"], split=setting["held_out"])
    config.evals = dict(knn=knn | dict(every_steps=setting["every_steps"]))
    config.mesh = dict(data=-1)
    return config.lock()
