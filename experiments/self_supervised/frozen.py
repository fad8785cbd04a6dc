"""What encoders learn without labels: MAE and DINO beside labels and beside nothing.

    python -m vit_jax sweep --config=experiments/self_supervised/frozen.py --scale=small
    python -m vit_jax sweep --config=experiments/self_supervised/frozen.py --scale=full

`small` trains one ViT (width 64, four layers, patches of 7×7, averaged tokens) on 57,000 images of
Fashion-MNIST: with labels, as MAE and as DINO, each with the settings of its own config and as long
as two busy cores had patience for. The frozen encoders are compared on the 10,000 test images, by
20 nearest neighbours among 10,000 training images and by a linear probe of these. The random
encoder has one step at rate 0. `full` is what the papers' repositories publish for ImageNet.

Tolerance: a repeated DINO run of others' is within half a point of the published one.
"""

from pathlib import Path

from vit_jax.papers import data_sizes
from vit_jax.papers.pictures import copy_reconstructions, draw_progress
from vit_jax.papers.table import Better, Column, Expected, PaperTable, Row, Scale

SEEDS = (0, 1, 2)
RANDOM, LABELS, MAE, DINO = "random weights", "labels", "MAE", "DINO"
KNN, PROBE = "20-NN", "linear probe"

ENCODER = dict(name="vit", patch_size=7, width=64, depth=4, mlp_dim=128, num_heads=4, pool="gap")
SUPERVISED = "configs/fashion_mnist.py:small"
WHOLE = {"data.train": "train[:95%]", "data.batch_size": 128, "data.channels": 1}
BANK = "train[:10000]"
FROZEN = {
    "evals.nearest": dict(protocol="knn", split="test", train=BANK),
    "evals.probe": dict(protocol="linear_probe", split="test", train=BANK),
}
CURVE = {"evals.knn": dict(protocol="knn", split="train[95%:]", train=BANK, every_steps=200)}


def encoders() -> list[Row]:
    model = {"task.model": ENCODER}
    nothing = {"optimizer.learning_rate": 0.0, "optimizer.weight_decay": 0.0}
    nothing |= {"train.num_epochs": None, "train.num_steps": 1, "optimizer.warmup_steps": 0}
    mae = {"task.model": ENCODER | dict(position_initial="sincos2d", activation="gelu")}
    overrides = {
        RANDOM: (SUPERVISED, WHOLE | model | nothing),
        LABELS: (SUPERVISED, WHOLE | model | {"train.num_epochs": 2.0} | CURVE),
        MAE: ("configs/mae.py:fashion,6", mae | CURVE),
        DINO: ("configs/dino_small.py:fashion", model | CURVE),
    }
    return [
        Row(name=name, config=config, overrides=changes | FROZEN, seeds=SEEDS, data=(10, 57_000))
        for name, (config, changes) in overrides.items()
    ]


def small() -> Scale:
    return Scale(
        rows=encoders(),
        columns=[
            Column(name=KNN, metric="nearest/top1", unit="%", scale=100.0),
            Column(name=PROBE, metric="probe/top1", unit="%", scale=100.0),
        ],
        claims=[
            Better(
                text=f"what {method} learns without labels is better than random weights",
                column=column,
                first=[method],
                than=[RANDOM],
            )
            for method in (MAE, DINO)
            for column in (KNN, PROBE)
        ]
        + [
            Better(
                text="frozen, DINO's encoder is better than MAE's",
                column=KNN,
                first=[DINO],
                than=[MAE],
            )
        ],
    )


# Of facebookresearch/dino's README: 20-NN on the validation images of ImageNet.
PUBLISHED = {"S16_100": 69.3, "S16_300": 73.3, "S16": 74.5, "B16": 76.1}


def full() -> Scale:
    return Scale(
        rows=[
            Row(name=f"DINO {arg}", config=f"configs/dino.py:{arg}", data=data_sizes.I1K)
            for arg in PUBLISHED
        ],
        columns=[Column(name=KNN, metric="knn/top1", unit="%", scale=100.0)],
        expected={
            (f"DINO {arg}", KNN): Expected(
                value=value,
                tolerance=0.5,
                source="facebookresearch/dino, README",
                why="one seed; the public code clips each parameter's gradient, ours that of all",
            )
            for arg, value in PUBLISHED.items()
        },
        devices="h100, 16",
    )


def draw_learning(sweep: Path, folder: Path) -> None:
    draw_progress(sweep, folder, metric="knn/top1")


def get_table() -> PaperTable:
    return PaperTable(
        name="frozen",
        title="Frozen encoders, learned without labels",
        source="arXiv:2104.14294, Table 2; arXiv:2111.06377",
        question="Is what MAE and DINO learn without labels better than nothing?",
        scales={"small": small(), "full": full()},
        pictures=[draw_learning, copy_reconstructions],
    )
