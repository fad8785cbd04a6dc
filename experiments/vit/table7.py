"""ResNets that are pretrained with Adam and with SGD (arXiv:2010.11929, Table 7 and section D.1).

    python -m vit_jax sweep --config=experiments/vit/table7.py --scale=small
    python -m vit_jax sweep --config=experiments/vit/table7.py --scale=full --dry_run

The paper pretrains ResNets on JFT-300M with Adam, which is unusual, and shows why: after the same
fine-tuning with SGD they are better on average than after pretraining with SGD. `small` does so
from 20,000 images of Fashion-MNIST to 200 handwritten digits. It also fine-tunes the first of them
with Adam: the paper fine-tunes everything with SGD and says that this is as good.
"""

from vit_jax.papers import data_sizes
from vit_jax.papers.table import Better, Column, Expected, Kind, PaperTable, Row, Scale, Tie

WHY = "neither JFT-300M nor ResNets that were trained on it by this recipe are public"
# Table 7: ImageNet, CIFAR-10, CIFAR-100, Pets, Flowers and their average.
DATASETS = ("ImageNet", "CIFAR-10", "CIFAR-100", "Pets", "Flowers", "average")
PAPER = {
    "R50x1, Adam": (77.54, 97.67, 86.07, 91.11, 94.26, 89.33),
    "R50x1, SGD": (78.24, 97.46, 85.17, 91.00, 92.06, 88.79),
    "R152x2, Adam": (84.97, 99.06, 92.05, 95.37, 98.62, 94.01),
    "R152x2, SGD": (84.37, 99.07, 91.06, 94.79, 99.32, 93.72),
}
# BiT's pretraining on large data (arXiv:1912.11370, section 3.3), which the paper follows for SGD.
BIT = {
    "optimizer.name": "sgd",
    "optimizer.momentum": 0.9,
    "optimizer.learning_rate": 0.03 * 4096 / 256,
    "optimizer.weight_decay": 1e-4,
    "optimizer.end_learning_rate": 0.0,
    "optimizer.warmup_steps": 5_000,
}
SEEDS = (0, 1, 2, 3)
RESNET = dict(name="resnet", stages=(1, 1), width_factor=0.5)
PRETRAINING = {"task.model": RESNET, "data.train": "train[:20000]", "train.num_epochs": 2}
# The best of four rates for each optimizer is not searched for: these are common ones.
BY_ADAM = {"optimizer.name": "adamw", "optimizer.learning_rate": 2e-3}
BY_SGD = {
    "optimizer.name": "sgd",
    "optimizer.learning_rate": 0.1,
    "optimizer.weight_decay": 1e-4,
}
DIGITS = {
    "data.source": "digits",
    "data.train": "train[:200]",
    "data.augment": {},
    "data.batch_size": 50,
    "task.label_smoothing": 0.0,
    "optimizer.warmup_steps": 20,
    "optimizer.weight_decay": 0.0,
    "train.num_epochs": None,
    "train.num_steps": 200,
}
FINE_SGD = {"optimizer.name": "sgd", "optimizer.learning_rate": 0.03}
FINE_ADAM = {"optimizer.name": "adamw", "optimizer.learning_rate": 1e-3}


def pretraining(name: str, by: dict) -> Row:
    return Row(
        name=name,
        config="configs/fashion_mnist.py:small",
        overrides={**PRETRAINING, **by},
        seeds=SEEDS,
        is_shown=False,
    )


def fine_tuning(name: str, source: str, by: dict) -> Row:
    return Row(
        name=name,
        config="configs/fashion_mnist.py:small",
        overrides={
            "init.source": f"row:{source}",
            "init.new_head": True,  # clothes and digits: both have ten classes
            "task.model": {},
            **DIGITS,
            **by,
        },
        seeds=SEEDS,
    )


def small() -> Scale:
    return Scale(
        rows=[
            pretraining("pretrained by Adam", BY_ADAM),
            pretraining("pretrained by SGD", BY_SGD),
            fine_tuning("Adam, then SGD", "pretrained by Adam", FINE_SGD),
            fine_tuning("SGD, then SGD", "pretrained by SGD", FINE_SGD),
            fine_tuning("Adam, then Adam", "pretrained by Adam", FINE_ADAM),
        ],
        columns=[Column(name="digits, top-1", metric="test/top1", unit="%", scale=100)],
        claims=[
            Better(
                text="a ResNet pretrained with Adam is better after fine-tuning than one with SGD",
                column="digits, top-1",
                first=["Adam, then SGD"],
                than=["SGD, then SGD"],
            ),
            Tie(
                text="fine-tuning with SGD is as good as with Adam",
                column="digits, top-1",
                rows=["Adam, then SGD", "Adam, then Adam"],
                within=2.0,
            ),
        ],
        deviations=[
            "Fashion-MNIST for JFT-300M, 200 digits for five data sets, a ResNet of two stages",
            "the learning rates are common ones, not searched for; gradients are clipped to 1",
        ],
    )


def full() -> Scale:
    rows = []
    for name in PAPER:
        model, optimizer = name.split(", ")
        rows.append(
            Row(
                name=name,
                config=f"configs/pretrain_jft.py:{model}",
                overrides=BIT if optimizer == "SGD" else {},
                kind=Kind.ANALYTIC_ONLY,
                data=data_sizes.JFT,
                why=WHY,
            )
        )
    return Scale(
        rows=rows,
        columns=[
            Column(name=dataset, metric=f"{dataset}/top1", unit="%", scale=100)
            for dataset in DATASETS
        ],
        expected={
            (name, dataset): Expected(value=value, tolerance=0.3)
            for name, values in PAPER.items()
            for dataset, value in zip(DATASETS, values, strict=True)
        },
        devices="v3, 256",
        deviations=["warm-up and weight decay of SGD are those of BiT on ImageNet-21k"],
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="table7",
        title="Adam against SGD for ResNets",
        source="arXiv:2010.11929, Table 7",
        question="Is a ResNet that Adam pretrained better after fine-tuning than one by SGD?",
        scales={"full": full(), "small": small()},
    )
