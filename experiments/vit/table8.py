"""Position embeddings: none, 1-D, 2-D and relative (arXiv:2010.11929, Table 8 and section D.4).

    python -m vit_jax sweep --config=experiments/vit/table8.py --scale=small
    python -m vit_jax sweep --config=experiments/vit/table8.py --scale=i21k --dry_run

`full` is ViT-B/16; the paper trained it on JFT-300M, which is private, and scored ImageNet with
five images a class. Those numbers stand for reference. `small` asks the same of a ViT that trains
on 10,000 images of Fashion-MNIST, with 7×7 patches, so that there are positions to learn; `i21k`
is the paper's B/16 on ImageNet-21k, which is public, and has not been run. The paper's other
columns, positions that are added at every layer, are left out: there is no such setting.
"""

from vit_jax.papers import data_sizes, measures
from vit_jax.papers.table import Better, Column, Expected, Kind, PaperTable, Row, Scale, Tie

KINDS = {"none": "none", "1-D": "learned", "2-D": "learned2d", "relative": "relative"}
PAPER = {"none": 61.382, "1-D": 64.206, "2-D": 64.001, "relative": 64.032}
WITH_POSITIONS = ("1-D", "2-D", "relative")
SEEDS = (0, 1, 2, 3)
DIGITS = measures.few_shot(shots=5, source="digits")
IMAGENET = measures.few_shot(shots=5, source="tfds:imagenet2012", test="validation")
# A third of the config's images: a step with 49 tokens takes five times as long as with its 16.
SHORT = {"data.batch_size": 50, "train.num_epochs": None, "train.num_steps": 600}
WHY = "the paper's numbers are of JFT-300M, which is private, with five images a class of ImageNet"


def claims(column: str, within: float) -> tuple[Better | Tie, ...]:
    return (
        Better(
            text="any position embedding beats none",
            column=column,
            first=WITH_POSITIONS,
            than=("none",),
        ),
        Tie(
            text="the three kinds of position embedding tie",
            column=column,
            rows=WITH_POSITIONS,
            within=within,
        ),
    )


def get_table() -> PaperTable:
    small = Scale(
        rows=[
            Row(
                name=name,
                config="configs/fashion_mnist.py:small",
                overrides={
                    "task.model.position_embedding": kind,
                    "task.model.patch_size": 4,
                    **SHORT,
                },
                seeds=SEEDS,
            )
            for name, kind in KINDS.items()
        ],
        columns=[
            Column(name="test top-1", metric="test/top1", unit="%", scale=100),
            Column(name="digits, 5-shot", measure=DIGITS, unit="%", scale=100),
        ],
        reference={(name, "test top-1"): value for name, value in PAPER.items()},
        claims=claims("test top-1", within=1.0),
        deviations=[
            "Fashion-MNIST instead of JFT-300M, and accuracy of the training's own task instead of "
            "five images a class of ImageNet",
            "the mean of the tokens instead of a class token",
        ],
    )
    full = Scale(
        rows=[
            Row(
                name=name,
                config="configs/pretrain_jft.py:B16",
                overrides={"task.model.position_embedding": kind},
                kind=Kind.ANALYTIC_ONLY,
                data=data_sizes.JFT,
                why=WHY,
            )
            for name, kind in KINDS.items()
        ],
        columns=[Column(name="ImageNet, 5-shot", measure=IMAGENET, unit="%", scale=100, digits=3)],
        expected={
            (name, "ImageNet, 5-shot"): Expected(
                value=value, tolerance=0.5, why="the paper tells no spread over seeds"
            )
            for name, value in PAPER.items()
        },
        claims=claims("ImageNet, 5-shot", within=0.5),
        devices="v3, 256",
    )
    i21k = Scale(
        rows=[
            Row(
                name=name,
                config="configs/pretrain_i21k.py:B16",
                overrides={"task.model.position_embedding": kind},
                seeds=(0, 1, 2),
                data=data_sizes.I21K,
            )
            for name, kind in KINDS.items()
        ],
        columns=[
            Column(name="ImageNet, 5-shot", measure=IMAGENET, unit="%", scale=100, digits=3),
            Column(name="ImageNet-21k", metric="val/top1", unit="%", scale=100),
        ],
        claims=claims("ImageNet, 5-shot", within=0.5),
        deviations=["ImageNet-21k instead of JFT-300M, with its own settings of Table 3"],
        devices="v3, 256",
    )
    return PaperTable(
        name="table8",
        title="Position embeddings",
        source="arXiv:2010.11929, Table 8",
        question="Does a ViT need position embeddings, and does their kind matter?",
        scales={"full": full, "i21k": i21k, "small": small},
    )
