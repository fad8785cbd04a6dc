"""What a ViT attends to (arXiv:2010.11929, Figure 6 and section D.8): attention rolled out.

    python -m vit_jax sweep --config=experiments/vit/fig6.py --scale=small

The paper shows images whose class token attends to what is on them, with ViT-L/16 of JFT-300M; it
is a picture without numbers, and so is this one. `small` draws a ViT of Fashion-MNIST; `full` names
the paper's model, which is not drawn: it needs published weights, which no run here can begin from
without training them on.
"""

from vit_jax.papers import data_sizes, pictures
from vit_jax.papers.table import Column, Kind, PaperTable, Row, Scale

MODEL = dict(name="vit", width=64, depth=6, mlp_dim=128, num_heads=4, patch_size=4, pool="cls")


def get_table() -> PaperTable:
    small = Scale(
        rows=[
            Row(
                name="ViT",
                config="configs/fashion_mnist.py:small",
                overrides={
                    "task.model": MODEL,
                    "data.batch_size": 50,
                    "train.num_epochs": None,
                    "train.num_steps": 600,
                },
            )
        ],
        columns=[Column(name="test top-1", metric="test/top1", unit="%", scale=100)],
        deviations=["a ViT of 6 layers and width 64 on Fashion-MNIST for L/16 on JFT-300M"],
    )
    full = Scale(
        rows=[
            Row(
                name="L/16",
                config="configs/finetune.py:L16,imagenet",
                kind=Kind.WEIGHTS_ONLY,
                data=data_sizes.I1K,
                why="the paper's L/16 of JFT-300M is private; that of ImageNet-21k is published",
            )
        ],
        columns=[Column(name="ImageNet", metric="test/top1", unit="%", scale=100)],
        devices="v3, 64",
    )
    return PaperTable(
        name="fig6",
        title="Attention rollout",
        source="arXiv:2010.11929, Figure 6",
        question="What does a ViT's output attend to?",
        scales={"full": full, "small": small},
        pictures=(pictures.draw_rollouts,),
    )
