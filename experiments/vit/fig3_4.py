"""How much data a ViT needs (arXiv:2010.11929, Figures 3 and 4, section 4.3).

    python -m vit_jax sweep --config=experiments/vit/fig3_4.py --scale=small
    python -m vit_jax sweep --config=experiments/vit/fig3_4.py --scale=full --dry_run

On 9 million images of JFT-300M a ViT-B/32 is much worse than a ResNet-50 of about its speed, and on
90 million and more it is better (Figure 4: 5-shot ImageNet, the same settings for all sizes, curves
without numbers); pretrained on ImageNet larger ViTs are worse than smaller ones, and on JFT better
(Figure 3; its numbers are Table 5, see table5.py). `small` trains a ViT and a ResNet of equal FLOPs
for the same number of steps on the first 500, 5,000 and 57,000 images of Fashion-MNIST.
"""

from vit_jax.papers import analytic, data_sizes, measures
from vit_jax.papers.table import Better, Column, Kind, PaperTable, Row, Scale

SEEDS = (0, 1, 2)
IMAGENET = measures.few_shot(shots=5, source="tfds:imagenet2012", test="validation")
DIGITS = measures.few_shot(shots=5, source="digits")
SIZES = (500, 5_000, 57_000)
VIT = dict(name="vit", width=64, depth=5, mlp_dim=128, num_heads=4, patch_size=7, pool="gap")
MODELS = {"ViT": VIT, "ResNet": dict(name="resnet", stages=(1, 1), width_factor=0.5)}
# Figure 4. Three random subsets of JFT-300M and all of it.
JFT_CLASSES, JFT_IMAGES = data_sizes.JFT
JFT_SIZES = {"9M": 9_000_000, "30M": 30_000_000, "90M": 90_000_000, "300M": JFT_IMAGES}
FIGURE_4 = ("B32", "R50x1", "L16", "R152x2")
WHY = "JFT-300M is private, and Figure 4 has no numbers"


def small() -> Scale:
    few, many = SIZES[0], SIZES[-1]
    column = "test top-1"
    return Scale(
        rows=[
            Row(
                name=f"{model} {size}",
                config="configs/fashion_mnist.py:small",
                overrides={
                    "task.model": settings,
                    "data.train": f"train[:{size}]",
                    "train.num_epochs": None,
                    "train.num_steps": 600,
                },
                seeds=SEEDS,
            )
            for size in SIZES
            for model, settings in MODELS.items()
        ],
        columns=[
            Column(name=column, metric="test/top1", unit="%", scale=100),
            Column(name="digits, 5-shot", measure=DIGITS, unit="%", scale=100),
            Column(
                name="MFLOPs", analytic=analytic.gflops, scale=1000, digits=1, higher_is_better=None
            ),
        ],
        claims=[
            Better(
                text="on little data the ResNet is better",
                column=column,
                first=[f"ResNet {few}"],
                than=[f"ViT {few}"],
            ),
            Better(
                text="on much data the ViT is better",
                column=column,
                first=[f"ViT {many}"],
                than=[f"ResNet {many}"],
            ),
        ],
        deviations=[
            "at most 57,000 images of Fashion-MNIST for 9 to 303 million of JFT, and accuracy of "
            "the training's own task for five images a class of ImageNet",
            "equal steps for all sizes, without the paper's early stopping",
        ],
    )


def full() -> Scale:
    return Scale(
        rows=[
            Row(
                name=f"{model} {size}",
                config=f"configs/pretrain_jft.py:{model},7",
                kind=Kind.ANALYTIC_ONLY,
                data=(JFT_CLASSES, count),
                why=WHY,
            )
            for size, count in JFT_SIZES.items()
            for model in FIGURE_4
        ],
        columns=[
            Column(name="ImageNet, 5-shot", measure=IMAGENET, unit="%", scale=100),
        ],
        devices="v3, 256",
        deviations=["7 epochs of each subset: the paper does not tell the length of these runs"],
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="fig3_4",
        title="Data size, ViT against ResNet",
        source="arXiv:2010.11929, Figures 3 and 4",
        question="Is a ResNet better on little data, and a ViT on much?",
        scales={"full": full(), "small": small()},
    )
