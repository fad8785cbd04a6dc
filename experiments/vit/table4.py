"""Table 4 of the ViT paper (arXiv:2010.11929): hyperparameters of fine-tuning.

    python -m vit_jax sweep --config=experiments/vit/table4.py --scale=full

Read from `configs/finetune.py`, as the runs of Table 5 are. The base rate is one of the paper's
grid, which stands in experiments/vit/table5.py with the runs that choose from it.
"""

from vit_jax.papers import analytic
from vit_jax.papers.table import Column, Expected, PaperTable, Row, Scale

STEPS = {
    "imagenet": 20_000,
    "cifar100": 10_000,
    "cifar10": 10_000,
    "pets": 500,
    "flowers": 500,
    "vtab:dtd": 2_500,  # one of the 19 tasks, which share all settings
}
# The caption, and section B.1.1.
FOR_ALL = {
    "batch": ("data.batch_size", 512),
    "resolution": ("data.image_size", 384),
    "momentum": ("optimizer.momentum", 0.9),
    "clip norm": ("optimizer.clip_norm", 1.0),
}
# Left at its default, which is none; a config that sets it shows.
NONE = {"weight decay": "optimizer.weight_decay"}


def columns() -> list[Column]:
    found = {
        "steps": analytic.setting("train.num_steps"),
        "cosine decay": analytic.setting("optimizer.schedule", equals="cosine"),
        "SGD": analytic.setting("optimizer.name", equals="sgd"),
        "base rate": analytic.setting("optimizer.learning_rate"),
        **{name: analytic.setting(key) for name, (key, _) in FOR_ALL.items()},
        **{name: analytic.setting(key, default=0) for name, key in NONE.items()},
    }
    return [
        Column(name=name, analytic=function, digits=3, higher_is_better=None)
        for name, function in found.items()
    ]


def expected() -> dict[tuple[str, str], Expected]:
    same = {"cosine decay": 1, "SGD": 1, "weight decay": 0}
    same |= {name: value for name, (_, value) in FOR_ALL.items()}
    cells = {"base rate": {"vtab:dtd": 0.01}, "steps": STEPS}
    cells |= {name: dict.fromkeys(STEPS, value) for name, value in same.items()}
    return {
        (row, column): Expected(value=value, tolerance=0)
        for column, values in cells.items()
        for row, value in values.items()
    }


def get_table() -> PaperTable:
    full = Scale(
        rows=[Row(name=name, config=f"configs/finetune.py:B16,{name}") for name in STEPS],
        columns=columns(),
        expected=expected(),
        deviations=["The steps of the warm-up are not told: 500, and 100 or 200 of short runs."],
    )
    return PaperTable(
        name="table4",
        title="Hyperparameters of fine-tuning",
        source="arXiv:2010.11929, Table 4 and section B.1.1",
        question="Are our fine-tuning runs those of the paper?",
        scales={"full": full},
    )
