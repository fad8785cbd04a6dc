"""Inside a trained ViT (arXiv:2010.11929, Figures 7, 10 and 11, sections 4.5, D.4 and D.7).

    python -m vit_jax sweep --config=experiments/vit/fig7_10_11.py --scale=small

The paper looks at ViT-L/16 and L/32 of JFT-300M: filters of the patch embedding, similarity of
position embeddings, and how far each head attends. It sees that near patches have similar
positions, and those of one row or column, too; that attention reaches further with depth; and that
heads which attend nearby in low layers are rarer in hybrids. `small` measures this on a ViT of
Fashion-MNIST with 7×7 patches, and takes the same model after one idle step as what training is
compared with.
"""

from vit_jax.papers import data_sizes, measures, pictures
from vit_jax.papers.table import Better, Column, Kind, PaperTable, Row, Scale

SEEDS = (0, 1, 2)
TRAINED, UNTRAINED, HYBRID = "ViT", "ViT, untrained", "hybrid"
MODEL = dict(name="vit", width=64, depth=6, mlp_dim=128, num_heads=4, pool="cls")
VIT = dict(MODEL, patch_size=4)
STEPS = {"data.batch_size": 50, "train.num_epochs": None, "train.num_steps": 600}
NO_STEPS = {
    "train.num_epochs": None,
    "train.num_steps": 1,
    "optimizer.learning_rate": 0.0,
    "optimizer.warmup_steps": 0,
}
ROWS = {
    TRAINED: {"task.model": VIT, **STEPS},
    UNTRAINED: {"task.model": VIT, **NO_STEPS},
    HYBRID: {"task.model": dict(MODEL, stem="resnet_root", patch_size=1), **STEPS},
}
TREND, NEAR, AXIS, FIRST = "further with depth", "near positions", "rows, columns", "first layer"


def columns() -> list[Column]:
    return [
        Column(name="test top-1", metric="test/top1", unit="%", scale=100),
        Column(name=TREND, measure=measures.attention_distance_trend()),
        Column(
            name=FIRST,
            measure=measures.mean_attention_distance(layer=0),
            unit="pixels",
            higher_is_better=True,
        ),
        Column(name=NEAR, measure=measures.position_neighbour_contrast),
        Column(name=AXIS, measure=measures.position_axis_contrast),
    ]


def claims() -> list[Better]:
    than_untrained = {
        TREND: "attention reaches further with depth",
        NEAR: "near patches have more similar positions",
        AXIS: "patches of one row or column have more similar positions",
    }
    return [
        Better(text=f"{text} (than untrained)", column=column, first=[TRAINED], than=[UNTRAINED])
        for column, text in than_untrained.items()
    ] + [
        Better(
            text="in the first layer a hybrid attends less nearby than a ViT",
            column=FIRST,
            first=[HYBRID],
            than=[TRAINED],
        )
    ]


def get_table() -> PaperTable:
    small = Scale(
        rows=[
            Row(
                name=name,
                config="configs/fashion_mnist.py:small",
                overrides=overrides,
                seeds=SEEDS,
            )
            for name, overrides in ROWS.items()
        ],
        columns=columns(),
        claims=claims(),
        deviations=[
            "a ViT of 6 layers and width 64 on Fashion-MNIST for L/16 and L/32 on JFT-300M"
        ],
    )
    full = Scale(
        rows=[
            Row(
                name=name,
                config=f"configs/pretrain_jft.py:{arg}",
                kind=Kind.ANALYTIC_ONLY,
                data=data_sizes.JFT,
                why="JFT-300M is private and the paper's figures have no numbers",
            )
            for name, arg in (("L/32", "L32"), ("L/16", "L16,14"), ("R50+L/16", "R50+L16,7"))
        ],
        columns=columns()[1:],
        devices="v3, 256",
    )
    return PaperTable(
        name="fig7_10_11",
        title="Filters, positions and attention distance",
        source="arXiv:2010.11929, Figures 7, 10 and 11",
        question="Does a ViT learn where patches are, and to look further in deeper layers?",
        scales={"full": full, "small": small},
        pictures=(
            pictures.draw_patch_filters,
            pictures.draw_position_similarities,
            pictures.draw_attention_distances,
        ),
    )
