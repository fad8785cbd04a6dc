"""Figure 4 of "How to train your ViT?" (arXiv:2106.10270): data, augmentation and regularisation.

    python -m vit_jax sweep --config=experiments/augreg/grid.py --scale=small
    python -m vit_jax sweep --config=experiments/augreg/grid.py --scale=full

`full` has S/16 and B/16 of the paper's nine models, all seven levels, with and without dropout and
stochastic depth of 0.1, on ImageNet-1k and on ImageNet-21k with two budgets: 30 epochs of the ten
times larger data cost as much as 300 of the smaller. `small` asks the same of 1,000 and 10,000
images of Fashion-MNIST in equally many steps.

One run a row, as in the paper: a single seed decides nothing here either, it shows the distance.
Values are whole percents of held-out training images. The paper has each with a weight decay of
0.1 and of 0.03, and does not tell which of them the figure shows; here it is 0.1.
"""

from configs.common import AUGREG, augreg
from vit_jax.papers import data_sizes
from vit_jax.papers.table import Better, Column, Expected, PaperTable, Row, Scale

# Model and data: levels from none to strong2, without and then with regularisation.
FIGURE_4 = {
    ("S16", "i1k", 300): "71 77 79 81 82 80 80  76 79 80 79 79 77 77",
    ("B16", "i1k", 300): "70 76 79 79 81 80 80  76 79 81 82 83 82 82",
    ("S16", "i21k", 30): "44 43 43 42 41 40 39  42 40 39 38 37 35 35",
    ("B16", "i21k", 30): "46 47 47 46 46 45 44  46 45 45 44 43 42 41",
    ("S16", "i21k", 300): "46 47 47 47 46 45 45  45 45 43 43 42 41 40",
    ("B16", "i21k", 300): "43 48 50 51 50 50 50  47 49 49 49 48 48 48",
}
RATES = ("0", "0.1")
SIZES = {"i1k": data_sizes.I1K_99, "i21k": data_sizes.I21K}
WHY = "whole percents, and the weight decay may have been the other one"


def full_name(model: str, data: str, epochs: int, level: str, rate: str) -> str:
    return f"{model}, {data}, {epochs} epochs, {level}, rate {rate}"


def settings() -> list[tuple[str, str]]:
    """(level, rate) in the order of the figure."""
    return [(level, rate) for rate in RATES for level in AUGREG]


def full() -> Scale:
    runs = [(*key, *setting) for key in FIGURE_4 for setting in settings()]
    values = [float(value) for line in FIGURE_4.values() for value in line.split()]
    return Scale(
        rows=[
            Row(
                name=full_name(*run),
                config=f"configs/augreg.py:{','.join(map(str, run))}",
                data=SIZES[run[1]],
            )
            for run in runs
        ],
        columns=[Column(name="top-1", metric="validation/top1", unit="%", scale=100.0, digits=0)],
        expected={
            (full_name(*run), "top-1"): Expected(value=value, tolerance=1.0, why=WHY)
            for run, value in zip(runs, values, strict=True)
        },
        claims=[
            *(anything_helps(lambda *s, m=m: full_name(m, "i1k", 300, *s)) for m in ("S16", "B16")),
            anything_hurts(lambda *s: full_name("S16", "i21k", 30, *s)),
        ],
        deviations=["Weight decay 0.1 alone, where the paper also has 0.03."],
        devices="tpu-v3, 32",
    )


def others(named, levels=tuple(AUGREG)) -> list[str]:
    plain = ("none", RATES[0])
    return [named(*s) for s in settings() if s != plain and s[0] in levels]


def anything_helps(named, levels=tuple(AUGREG)) -> Better:
    return Better(
        text="with little data any augmentation and regularisation is better than none",
        column="top-1",
        first=others(named, levels),
        than=[named("none", RATES[0])],
    )


def anything_hurts(named, levels=tuple(AUGREG)) -> Better:
    return Better(
        text="with ten times the data and the same budget none is better than any",
        column="top-1",
        first=[named("none", RATES[0])],
        than=others(named, levels),
    )


SMALL_LEVELS = ("none", "medium1")
COUNTS = (1_000, 10_000)


def small_name(count: int, level: str, rate: str) -> str:
    return f"{count} images, {level}, rate {rate}"


def small_row(count: int, level: str, rate: str) -> Row:
    augment, mixing = augreg(level)
    return Row(
        name=small_name(count, level, rate),
        config="configs/fashion_mnist.py:small",
        overrides={
            "data.train": f"train[:{count}]",
            "data.augment": augment,
            "task.mixing": mixing,
            "task.label_smoothing": 0.0,
            "task.model.dropout_rate": float(rate),
            "task.model.drop_path_rate": float(rate),
            "train.num_epochs": None,
            "train.num_steps": 300,
        },
        seeds=(0, 1),
    )


def small() -> Scale:
    return Scale(
        rows=[
            small_row(count, level, rate)
            for count in COUNTS
            for rate in RATES
            for level in SMALL_LEVELS
        ],
        columns=[Column(name="top-1", metric="test/top1", unit="%", scale=100.0)],
        claims=[
            anything_helps(lambda *s: small_name(COUNTS[0], *s), SMALL_LEVELS),
            anything_hurts(lambda *s: small_name(COUNTS[1], *s), SMALL_LEVELS),
        ],
        deviations=[
            "A ViT of width 64 and depth 4 with patches of 7 on 1,000 and 10,000 images of 28×28; "
            "300 steps of 100 images, so that the budget is the same: 30 and 3 epochs.",
            "Two of the seven levels; test images in place of held-out training images.",
        ],
        devices="cpu, 1",
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="grid",
        title="How to train your ViT: data, augmentation and regularisation",
        source="arXiv:2106.10270, Figure 4",
        question="When do augmentation and regularisation help?",
        scales={"full": full(), "small": small()},
    )
