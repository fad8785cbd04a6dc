"""Table 3 of the ViT paper (arXiv:2010.11929): hyperparameters of pretraining.

    python -m vit_jax sweep --config=experiments/vit/table3.py --scale=full

Every cell is read from the config that a run would use, so it cannot drift from what is trained.
The decay of the rate is 1 where it is linear and 0 where it is a cosine; a clip norm of 0 is none.
tests/test_pretraining.py compares the same configs leaf by leaf.
"""

from collections.abc import Iterable

from vit_jax.papers import analytic
from vit_jax.papers.table import Column, Expected, Kind, PaperTable, Row, Scale

# Models, data, epochs, base rate, is the decay of the rate linear?, weight decay, dropout.
TABLE = """
B16 B32          jft   7      8e-4  1  0.1   0.0
L32              jft   7      6e-4  1  0.1   0.0
L16              jft   7,14   4e-4  1  0.1   0.0
H14              jft   14     3e-4  1  0.1   0.0
R50x1 R50x2      jft   7      1e-3  1  0.1   0.0
R101x1           jft   7      8e-4  1  0.1   0.0
R152x1 R152x2    jft   7      6e-4  1  0.1   0.0
R50+B16 R50+B32  jft   7      8e-4  1  0.1   0.0
R50+L32          jft   7      2e-4  1  0.1   0.0
R50+L16          jft   7,14   4e-4  1  0.1   0.0
B16 B32          i21k  90     1e-3  1  0.03  0.1
L16 L32          i21k  30,90  1e-3  1  0.03  0.1
B16 B32 L16 L32  i1k   300    3e-3  0  0.3   0.1
"""
PRIVATE = "JFT-300M is private"
COLUMNS = {
    "epochs": analytic.setting("train.num_epochs"),
    "base rate": analytic.setting("optimizer.learning_rate"),
    "linear decay": analytic.setting("optimizer.schedule", equals="linear"),
    "weight decay": analytic.setting("optimizer.weight_decay"),
    "dropout": analytic.setting("task.model.dropout_rate", default=0),  # ResNets have none
    "batch": analytic.setting("data.batch_size"),
    "warm-up steps": analytic.setting("optimizer.warmup_steps"),
    "resolution": analytic.setting("data.image_size"),
    "clip norm": analytic.setting("optimizer.clip_norm", default=0),
}
FOR_ALL = {"batch": 4096, "warm-up steps": 10_000, "resolution": 224}  # below the table
CLIP_NORM = {"i1k": 1.0, "jft": 0.0}  # "for ImageNet"; whether i21k is meant, too, is not told


def rows():
    for line in TABLE.strip().splitlines():
        *models, data, all_epochs, rate, shape, decay, dropout = line.split()
        for model in models:
            for epochs in all_epochs.split(","):
                values = map(float, (epochs, rate, shape, decay, dropout))
                yield row(model, data, epochs), cells(data, values)


def cells(data: str, values: Iterable[float]) -> dict[str, float]:
    found = {**dict(zip(COLUMNS, values, strict=False)), **FOR_ALL}
    return found | ({"clip norm": CLIP_NORM[data]} if data in CLIP_NORM else {})


def row(model: str, data: str, epochs: str) -> Row:
    file = {
        "jft": f"pretrain_jft.py:{model},{epochs}",
        "i21k": f"pretrain_i21k.py:{model},{epochs}",
        "i1k": f"pretrain_i1k_vit.py:{model}",
    }[data]
    is_private = data == "jft"
    return Row(
        name=f"{model}, {data}, {epochs} epochs",
        config=f"configs/{file}",
        kind=Kind.ANALYTIC_ONLY if is_private else Kind.TRAINED,
        why=PRIVATE if is_private else "",
    )


def get_table() -> PaperTable:
    found = list(rows())
    full = Scale(
        rows=[row for row, _ in found],
        columns=[
            Column(name=name, analytic=function, digits=5, higher_is_better=None)
            for name, function in COLUMNS.items()
        ],
        expected={
            (row.name, name): Expected(value=value, tolerance=0)
            for row, values in found
            for name, value in values.items()
        },
    )
    return PaperTable(
        name="table3",
        title="Hyperparameters of pretraining",
        source="arXiv:2010.11929, Table 3",
        question="Are our pretraining runs those of the paper?",
        scales={"full": full},
    )
