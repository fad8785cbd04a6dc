"""DINO (arXiv:2104.14294) where it takes minutes: Fashion-MNIST (28×28) and digits (8×8).

    python -m vit_jax train --config=configs/dino_small.py:fashion --workdir=runs/dino-fashion

ARG is fashion or digits. Neither has been tuned, and neither run to its end as it stands.

Seen of fashion, on one trial (seed 0) of the first 10,000 training images: after 200 steps 56.0 %
of 1,200 held-out images by 5,000 voters, where the encoder had 51.7 % before training; 10 minutes
on a 2-core CPU that six other jobs shared. `digits` shows that everything works, not that it helps.
"""

from ml_collections import ConfigDict

from configs.common import FASHION

# A grey image of 28 pixels has little to blur and nothing to solarise.
VIEWS = dict(num_local=4, blur=(0.5, 0.1, 0.1), solarize=(0.0, 0.0, 0.0))
RECIPES = {
    "fashion": dict(
        head=dict(hidden_dim=512, bottleneck_dim=64, num_prototypes=1024),
        data=dict(FASHION, image_size=(28, 28), batch_size=128),
        held_out="train[95%:]",
        views=VIEWS | dict(local_size=12, global_area=(0.4, 1.0), local_area=(0.1, 0.4)),
        flip_probability=0.5,
        num_epochs=2,
        every_steps=200,
    ),
    "digits": dict(
        head=dict(hidden_dim=256, bottleneck_dim=32, num_prototypes=256),
        data=dict(source="digits", train="train[:90%]", image_size=(16, 16), batch_size=64),
        held_out="train[90%:]",
        views=VIEWS | dict(local_size=8, global_area=(0.4, 1.0), local_area=(0.1, 0.4)),
        flip_probability=0.0,
        num_epochs=20,
        every_steps=100,
    ),
}
SETTINGS = ("fashion",)  # digits differ in sizes


def get_config(arg: str = "") -> ConfigDict:
    arg = arg or "fashion"
    if arg not in RECIPES:
        raise ValueError(f"there is no setting {arg!r}; allowed: {', '.join(RECIPES)}")
    setting = RECIPES[arg]
    model = dict(name="vit", patch_size=4, width=64, depth=4, mlp_dim=128, num_heads=4)
    augment = dict(
        crop="inception",
        flip_probability=setting["flip_probability"],
        color_jitter=dict(brightness=0.4, contrast=0.4, probability=0.8),
        multi_crop=setting["views"],
    )
    config = ConfigDict()
    config.task = dict(name="dino", model=model, head=setting["head"], momentum=0.99)
    config.data = dict(setting["data"], augment=augment)
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=100,
        end_learning_rate=1e-6,
        weight_decay=0.04,
        end_weight_decay=0.4,
        clip_norm=3.0,
    )
    config.train = dict(num_epochs=setting["num_epochs"], seed=0, log_every=50)
    knn = dict(protocol="knn", train=setting["data"]["train"], split=setting["held_out"])
    config.evals = dict(knn=knn | dict(every_steps=setting["every_steps"]))
    config.mesh = dict(data=-1)
    return config.lock()
