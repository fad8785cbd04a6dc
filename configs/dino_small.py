"""DINO (arXiv:2104.14294) where it takes minutes: Fashion-MNIST (28×28) and digits (8×8).

    python -m vit_jax train --config=configs/dino_small.py:fashion --workdir=runs/dino-fashion

ARG is fashion or digits. Expected of `fashion`: 20-NN of 74.0 to 74.8 % on the held-out images
(seeds 0 to 2, 10,000 voters; an encoder of random weights has 63 %), 8 to 9 minutes on a core of a
busy 2-core CPU (AMD EPYC); its settings are the best of five trials, see
experiments/self_supervised. Momentum is lower than for ImageNet, since so few steps are made.
`digits` shows that everything works, not that it helps: nothing of it was chosen.
"""

from ml_collections import ConfigDict

from configs.common import FASHION

# A grey image of 28 pixels has little to blur and nothing to solarise.
VIEWS = dict(num_local=4, blur=(0.5, 0.1, 0.1), solarize=(0.0, 0.0, 0.0), global_area=(0.4, 1.0))
HEAD = dict(hidden_dim=256, bottleneck_dim=32, num_prototypes=256)
RECIPES = {
    "fashion": dict(
        task=dict(centring="sinkhorn", koleo_weight=0.1),
        model=dict(patch_size=7, pool="gap"),
        data=dict(FASHION, image_size=(28, 28), batch_size=128),
        voters="train[:20%]",
        held_out="train[95%:]",
        local_size=14,
        flip_probability=0.5,
        learning_rate=2e-3,
        num_epochs=2,
        every_steps=200,
    ),
    "digits": dict(
        task={},
        model=dict(patch_size=4),
        data=dict(source="digits", train="train[:90%]", image_size=(16, 16), batch_size=64),
        voters="train[:90%]",
        held_out="train[90%:]",
        local_size=8,
        flip_probability=0.0,
        learning_rate=1e-3,
        num_epochs=20,
        every_steps=100,
    ),
}
SETTINGS = ("fashion",)  # digits differ in sizes


def get_config(arg: str = "") -> ConfigDict:
    arg = arg or "fashion"
    if arg not in RECIPES:
        raise ValueError(f"there is no setting {arg!r}; allowed: {', '.join(RECIPES)}")
    recipe = RECIPES[arg]
    model = dict(name="vit", width=64, depth=4, mlp_dim=128, num_heads=4, **recipe["model"])
    augment = dict(
        crop="inception",
        flip_probability=recipe["flip_probability"],
        color_jitter=dict(brightness=0.4, contrast=0.4, probability=0.8),
        multi_crop=VIEWS | dict(local_size=recipe["local_size"], local_area=(0.1, 0.4)),
    )
    config = ConfigDict()
    config.task = dict(name="dino", model=model, head=HEAD, momentum=0.99, **recipe["task"])
    config.data = dict(recipe["data"], augment=augment)
    config.optimizer = dict(
        name="adamw",
        learning_rate=recipe["learning_rate"],
        schedule="cosine",
        warmup_steps=100,
        end_learning_rate=1e-6,
        weight_decay=0.04,
        end_weight_decay=0.4,
        clip_norm=3.0,
    )
    config.train = dict(num_epochs=recipe["num_epochs"], seed=0, log_every=50)
    knn = dict(protocol="knn", train=recipe["voters"], split=recipe["held_out"])
    config.evals = dict(knn=knn | dict(every_steps=recipe["every_steps"]))
    config.mesh = dict(data=-1)
    return config.lock()
