"""Depth, width and patch size, one at a time (arXiv:2010.11929, Figure 8 and section D.2).

    python -m vit_jax sweep --config=experiments/vit/fig8.py --scale=small

From a base of 8 layers, width 1,024, MLPs of 2,048 and patches of 32, the paper scales one
dimension at a time on JFT-300M and finds that depth helps most, up to 16 layers and on to 64, that
smaller patches help robustly without a single parameter more, and that width helps least. The
figure has curves without numbers. `small` takes the base of `configs/fashion_mnist.py:small`, of 4
layers, width 64 and patches of 7, and doubles its compute or (smaller patches) triples it;
GFLOPs are counted beside.
"""

from vit_jax.papers import analytic, data_sizes, measures
from vit_jax.papers.table import Better, Column, Kind, PaperTable, Row, Scale

SEEDS = (0, 1, 2)
IMAGENET = measures.few_shot(shots=5, source="tfds:imagenet2012", test="validation")
BASE, WIDTH, DEPTH, PATCH = "base", "width × 1.5", "depth × 2", "patches of 4"
SMALL = {
    BASE: {},
    DEPTH: {"task.model.depth": 8},
    WIDTH: {"task.model.width": 96, "task.model.mlp_dim": 192},
    PATCH: {"task.model.patch_size": 4},
}
PAPER_BASE = dict(
    name="vit", width=1024, depth=8, mlp_dim=2048, num_heads=16, patch_size=32, head_bias=-10.0
)
# Section D.2 names the base, 16 and 64 layers. The figure's other points are not named: these
# double and halve the base.
FULL = {
    BASE: {},
    **{f"depth {n}": {"task.model.depth": n} for n in (2, 4, 16, 32, 64)},
    **{f"width {n}": {"task.model.width": n} for n in (512, 2048)},
    **{f"MLP {n}": {"task.model.mlp_dim": n} for n in (512, 1024, 4096, 8192)},
    **{f"patches of {n}": {"task.model.patch_size": n} for n in (16, 8)},
}
GFLOPS = Column(name="GFLOPs", analytic=analytic.gflops, digits=4, higher_is_better=None)


def small() -> Scale:
    column = "test top-1"
    return Scale(
        rows=[
            Row(
                name=name,
                config="configs/fashion_mnist.py:small",
                overrides={**overrides, "train.num_epochs": 5},
                seeds=SEEDS,
            )
            for name, overrides in SMALL.items()
        ],
        columns=[Column(name=column, metric="test/top1", unit="%", scale=100), GFLOPS],
        claims=[
            Better(text="more depth is better", column=column, first=[DEPTH], than=[BASE]),
            Better(text="smaller patches are better", column=column, first=[PATCH], than=[BASE]),
            Better(
                text="depth helps more than width",
                column=column,
                first=[DEPTH],
                than=[WIDTH],
            ),
        ],
        deviations=[
            "10,000 images of Fashion-MNIST for 303 million: here data is what is short, there it "
            "is compute",
        ],
    )


def full() -> Scale:
    return Scale(
        rows=[
            Row(
                name=name,
                config="configs/pretrain_jft.py:B32",
                overrides={"task.model": {**PAPER_BASE, "dtype": "bfloat16"}, **overrides},
                kind=Kind.ANALYTIC_ONLY,
                data=data_sizes.JFT,
                why="JFT-300M is private, and Figure 8 has no numbers",
            )
            for name, overrides in FULL.items()
        ],
        columns=[
            Column(name="ImageNet, 5-shot", measure=IMAGENET, unit="%", scale=100),
            GFLOPS,
        ],
        devices="v3, 256",
        deviations=["learning rate and length are B/32's: the paper does not tell them"],
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="fig8",
        title="Depth, width, MLP and patch size",
        source="arXiv:2010.11929, Figure 8",
        question="Which dimension of a ViT is worth scaling?",
        scales={"full": full(), "small": small()},
    )
