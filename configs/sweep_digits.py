"""Many trainings of the small ViT on digits: a grid with seeds, and a search.

    python -m vit_jax sweep --config=configs/sweep_digits.py --workdir=runs/sweep --workers=2
    python -m vit_jax sweep --config=configs/sweep_digits.py --workdir=runs/search \
        --num_trials=20 --metric=validation/top1 --pruner=median --workers=2

The model is that of digits.py, trained for 30 epochs. Settings are compared on the tenth of the
training digits that is held out; the test digits are scored at the end of each run, for the report.
"""

from ml_collections import ConfigDict

from vit_jax.sweeps.trials import grid

MODEL = dict(name="vit", patch_size=4, width=64, depth=4, mlp_dim=128, num_heads=4, pool="gap")


def get_config(arg: str = "") -> ConfigDict:
    del arg
    config = ConfigDict()
    config.task = dict(
        name="classification",
        model=dict(position_embedding="learned", **MODEL),
        label_smoothing=0.1,
    )
    config.data = dict(
        source="digits",
        train="train[:90%]",
        image_size=(16, 16),
        batch_size=64,
        augment=dict(crop="shift", padding=2),
    )
    config.optimizer = dict(
        name="adamw",
        learning_rate=2e-3,
        schedule="cosine",
        warmup_steps=100,
        weight_decay=0.05,
        clip_norm=1.0,
    )
    config.train = dict(num_epochs=30, seed=0, log_every=100, checkpoint_every=200)
    config.evals = dict(
        validation=dict(split="train[90%:]", every_steps=100), test=dict(split="test")
    )
    config.mesh = dict(data=-1)
    return config.lock()


def sweep():
    """Two settings in every combination, three seeds of each."""
    yield from grid(
        {
            "optimizer.learning_rate": (5e-4, 2e-3, 8e-3),
            "optimizer.weight_decay": (0.0, 0.05),
            "train.seed": (0, 1, 2),
        }
    )


def search_space(trial):
    """Called for each trial of Optuna; returns what it changes."""
    return {
        "optimizer.learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "optimizer.weight_decay": trial.suggest_float("weight_decay", 0.0, 0.3),
        "task.label_smoothing": trial.suggest_categorical("label_smoothing", [0.0, 0.1, 0.2]),
    }
