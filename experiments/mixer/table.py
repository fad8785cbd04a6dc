"""MLP-Mixer (arXiv:2105.01601): its models, and itself against a ViT and a ResNet at equal compute.

    python -m vit_jax sweep --config=experiments/mixer/table.py --scale=models
    python -m vit_jax sweep --config=experiments/mixer/table.py --scale=small
    python -m vit_jax sweep --config=experiments/mixer/table.py --scale=full

`models` is the paper's Table 1, counted; its parameters are those without a head (with one for
1,000 classes L/16 would have 208 M and not 207). `full` is what Table 3 trains from scratch on
ImageNet-1k, and a run that big_vision tells of. `small` trains three models of equal cost on 10,000
images of Fashion-MNIST; their cost is counted beside the result.
"""

from vit_jax.papers import analytic, data_sizes
from vit_jax.papers.table import Better, Column, Expected, PaperTable, Row, Scale

# Table 1: layers, hidden size, MLP of channels, MLP of tokens, M parameters.
TABLE_1 = {
    "S32": (8, 512, 2048, 256, 19),
    "S16": (8, 512, 2048, 256, 18),
    "B32": (12, 768, 3072, 384, 60),
    "B16": (12, 768, 3072, 384, 59),
    "L32": (24, 1024, 4096, 512, 206),
    "L16": (24, 1024, 4096, 512, 207),
    "H14": (32, 1280, 5120, 640, 431),
}
SIZES = {
    "layers": "depth",
    "width": "width",
    "channel MLP": "channel_mlp_dim",
    "token MLP": "token_mlp_dim",
}
# Model, epochs: top-1 on ImageNet's validation images, and where it stands.
FULL = {
    ("B16", 300): (76.44, "Table 3"),
    ("L16", 300): (71.76, "Table 3"),
    ("B16", 60): (70.5, "big_vision, configs/mlp_mixer_i1k.py"),
}


def models() -> Scale:
    counted = Column(
        name="M parameters", analytic=analytic.backbone_parameters, digits=1, higher_is_better=None
    )
    sizes = [
        Column(name=name, analytic=analytic.size(key), digits=0, higher_is_better=None)
        for name, key in SIZES.items()
    ]
    expected = {
        (row, column): Expected(value=value, tolerance=0)
        for row, values in TABLE_1.items()
        for column, value in zip(SIZES, values, strict=False)
    }
    for row, (*_, millions) in TABLE_1.items():
        expected[row, counted.name] = Expected(value=millions, tolerance=0.5, why="rounding")
    return Scale(
        rows=[
            Row(name=name, config=f"configs/mixer_i1k.py:{name},300", data=data_sizes.I1K_99)
            for name in TABLE_1
        ],
        columns=[*sizes, counted],
        expected=expected,
    )


def full() -> Scale:
    names = {key: f"{key[0]}, {key[1]} epochs" for key in FULL}
    return Scale(
        rows=[
            Row(
                name=name,
                config=f"configs/mixer_i1k.py:{model},{epochs}",
                seeds=(0, 1, 2),
                data=data_sizes.I1K_99,
            )
            for (model, epochs), name in names.items()
        ],
        columns=[Column(name="top-1", metric="val/top1", unit="%", scale=100.0)],
        expected={
            (names[key], "top-1"): Expected(
                value=value,
                tolerance=0.5,
                source=source,
                why="the paper and big_vision differ by 0.14 on the same model",
            )
            for key, (value, source) in FULL.items()
        },
        claims=[
            Better(
                text="from scratch on ImageNet-1k the larger Mixer overfits and is behind",
                column="top-1",
                first=[names["B16", 300]],
                than=[names["L16", 300]],
            )
        ],
        deviations=[
            "Settings are big_vision's for B/16, of L/16 too; the paper tunes each on held-out "
            "images and does not tell what it chose."
        ],
        devices="tpu-v3, 128",
    )


# Within 0.4 % of each other, as the column of the cost shows. A ResNet's width comes in steps, so
# that the others' MLPs were made to fit.
SMALL = {
    "ViT": dict(name="vit", width=64, depth=4, mlp_dim=216, num_heads=4, patch_size=7, pool="gap"),
    "Mixer": dict(
        name="mixer", width=64, depth=4, token_mlp_dim=32, channel_mlp_dim=328, patch_size=7
    ),
    "ResNet": dict(name="resnet", stages=(1, 1), width_factor=0.5),
}


def small() -> Scale:
    return Scale(
        rows=[
            Row(
                name=name,
                config="configs/fashion_mnist.py:small",
                overrides={"task.model": model, "data.channels": 1},
                seeds=(0, 1, 2),
                data=(10, 10_000),
            )
            for name, model in SMALL.items()
        ],
        columns=[
            Column(name="top-1", metric="test/top1", unit="%", scale=100.0),
            Column(
                name="MFLOPs",
                analytic=analytic.gflops,
                scale=1e3,
                digits=3,
                higher_is_better=None,
            ),
            Column(
                name="k parameters",
                analytic=analytic.parameters,
                scale=1e3,
                digits=1,
                higher_is_better=None,
            ),
        ],
        claims=[
            Better(
                text="from scratch on little data Mixer is behind ViT (76.4 and 79.7 % with B/16)",
                column="top-1",
                first=["ViT"],
                than=["Mixer"],
            ),
            Better(
                text="with little data a ResNet's convolutions help: it overfits less than Mixer",
                column="top-1",
                first=["ResNet"],
                than=["Mixer"],
            ),
        ],
        deviations=[
            "Models of 6 MFLOPs on 10,000 images of 28×28, not of 25 GFLOPs on ImageNet-1k or 3 % "
            "of JFT-300M; one recipe for all three, not one chosen for each.",
            "The paper compares a ResNet and Mixer by 5-shot accuracy; here it is test top-1.",
        ],
        devices="cpu, 1",
    )


def get_table() -> PaperTable:
    return PaperTable(
        name="table",
        title="MLP-Mixer: models, and against ViT and ResNet",
        source="arXiv:2105.01601, Tables 1 and 3, section 3.3",
        question="Is a model without attention and convolutions as good at equal compute?",
        scales={"models": models(), "full": full(), "small": small()},
    )
