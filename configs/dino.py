"""DINO on digits."""

from ml_collections import ConfigDict

SETTINGS = ("digits",)


def get_config(arg: str = "") -> ConfigDict:
    config = ConfigDict()
    config.task = dict(
        name="dino",
        model=dict(
            name="vit", patch_size=4, width=64, depth=4, num_heads=4, mlp_dim=128, activation="gelu"
        ),
        head=dict(hidden_dim=256, bottleneck_dim=32, num_prototypes=256),
        momentum=0.99,
    )
    config.data = dict(
        source="digits",
        train="train[:90%]",
        image_size=(16, 16),
        batch_size=64,
        augment=dict(
            crop="inception",
            multi_crop=dict(
                num_local=4,
                local_size=8,
                global_area=(0.4, 1.0),
                local_area=(0.1, 0.4),
                blur=(0.5, 0.1, 0.1),
                solarize=(0.0, 0.0, 0.0),
            ),
        ),
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=1e-3,
        schedule="cosine",
        warmup_steps=50,
        weight_decay=0.04,
        clip_norm=3.0,
    )
    config.train = dict(num_epochs=20, seed=0, log_every=20)
    config.evals = dict(
        knn=dict(protocol="knn", split="train[90%:]", train="train[:90%]", every_steps=100)
    )
    config.mesh = dict(data=-1)
    return config.lock()
