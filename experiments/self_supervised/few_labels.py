"""What pretraining without labels is worth to a training with 1,000 labels.

    python -m vit_jax sweep --config=experiments/self_supervised/few_labels.py --scale=small \
        --workdir=runs/self_supervised/frozen-small

The encoders of frozen.py (MAE and DINO, never shown a label) and a random one are trained in the
same way on the first 1,000 images of Fashion-MNIST with labels for 40 epochs, and scored on the
10,000 test images. The workdir is that of frozen.py, whose trainings are then not done again.
"""

import dataclasses

from experiments.self_supervised.frozen import DINO, MAE, RANDOM, SEEDS, encoders
from vit_jax.papers.table import Better, Column, PaperTable, Row, Scale

TOP1, BEGINNINGS = "top-1", (RANDOM, MAE, DINO)
# The same for all, so without layer decay, which is for what has been trained.
SHORT = {
    "data.train": "train[:1000]",
    "data.batch_size": 100,
    "train.num_epochs": 40.0,
    "optimizer.layer_decay": None,
    "optimizer.learning_rate": 2e-3,
    "evals.validation.every_steps": 0,
    "init.new_head": True,
}


def tuned(name: str) -> str:
    return f"{name}, then 1,000 labels"


def small() -> Scale:
    pretrained = [row for row in encoders() if row.name in BEGINNINGS]
    return Scale(
        rows=[dataclasses.replace(row, is_shown=False) for row in pretrained]
        + [
            Row(
                name=tuned(name),
                config="configs/mae_finetune.py:fashion",
                overrides=SHORT | {"init.source": f"row:{name}"},
                seeds=SEEDS,
                data=(10, 1_000),
            )
            for name in BEGINNINGS
        ],
        columns=[Column(name=TOP1, metric="test/top1", unit="%", scale=100.0)],
        claims=[
            Better(
                text=f"with 1,000 labels it is better to begin with {name}",
                column=TOP1,
                first=[tuned(name)],
                than=[tuned(RANDOM)],
            )
            for name in (MAE, DINO)
        ],
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="few_labels",
        title="Fine-tuning with 1,000 labels",
        source="no paper's table",
        question="Does what MAE and DINO learn without labels help where labels are few?",
        scales={"small": small()},
    )
