"""Class token against average pooling (arXiv:2010.11929, Figure 9 and section D.3).

    python -m vit_jax sweep --config=experiments/vit/fig9.py --scale=small

The paper's first try of pooling was poor, and neither the token nor the pooling was the reason but
the learning rate: each needs its own. Figure 9 has a class token with 8e-4 and pooling with 8e-4
and 3e-4, on JFT-300M, as curves without numbers. `small` gives both heads three rates, a factor of
three apart; each head's best is chosen on held-out training images, and the test images tell
whether these two are equally good.
"""

from vit_jax.papers import data_sizes, measures
from vit_jax.papers.table import Choice, Column, Kind, PaperTable, Row, Scale, Tie

SEEDS = (0, 1, 2)
IMAGENET = measures.few_shot(shots=5, source="tfds:imagenet2012", test="validation")
TOKEN, POOLING, VALIDATION = "class token", "pooling", "validation top-1"
RATES = (7e-4, 2e-3, 6e-3)
PAPER = {"class token, 8e-4": ("cls", 8e-4), "pooling, 8e-4": ("gap", 8e-4)}
PAPER |= {"pooling, 3e-4": ("gap", 3e-4)}


def small_rows(pool: str, name: str) -> list[Row]:
    return [
        Row(
            name=f"{name}, {rate:g}",
            config="configs/fashion_mnist.py:small",
            overrides={
                "task.model.pool": pool,
                "optimizer.learning_rate": rate,
                "train.num_epochs": 4,
            },
            seeds=SEEDS,
        )
        for rate in RATES
    ]


def small() -> Scale:
    token, pooling = small_rows("cls", TOKEN), small_rows("gap", POOLING)
    return Scale(
        rows=[*token, *pooling],
        columns=[
            Column(name="test top-1", metric="test/top1", unit="%", scale=100),
            Column(name=VALIDATION, metric="validation/top1", unit="%", scale=100),
        ],
        choices=[
            Choice(name=f"{name}, best rate", rows=[row.name for row in rows], by=VALIDATION)
            for name, rows in ((TOKEN, token), (POOLING, pooling))
        ],
        claims=[
            Tie(
                text="class token and pooling are equally good, each with its own rate",
                column="test top-1",
                rows=[f"{TOKEN}, best rate", f"{POOLING}, best rate"],
                within=1.0,
            )
        ],
        deviations=[
            "Fashion-MNIST for JFT-300M, and accuracy of the training's own task for five images a "
            "class of ImageNet",
            "both heads are linear; the paper's class token has a tanh layer before the head",
        ],
    )


def full() -> Scale:
    return Scale(
        rows=[
            Row(
                name=name,
                config="configs/pretrain_jft.py:B16",
                overrides={
                    "task.model.pool": pool,
                    "optimizer.learning_rate": rate,
                    **({"task.model.representation_dim": None} if pool == "gap" else {}),
                },
                kind=Kind.ANALYTIC_ONLY,
                data=data_sizes.JFT,
                why="JFT-300M is private; the model of Figure 9 is not named: B/16 stands for it",
            )
            for name, (pool, rate) in PAPER.items()
        ],
        columns=[Column(name="ImageNet, 5-shot", measure=IMAGENET, unit="%", scale=100)],
        devices="v3, 256",
        deviations=["Figure 9 has no numbers, so that none are expected."],
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="fig9",
        title="Class token against average pooling",
        source="arXiv:2010.11929, Figure 9",
        question="Are class token and average pooling equally good, each with its own rate?",
        scales={"full": full(), "small": small()},
    )
