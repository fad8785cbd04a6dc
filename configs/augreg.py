"""Pretraining of "How to train your ViT?" (arXiv:2106.10270), section 3: its grid, run by run.

    python -m vit_jax train --config=configs/augreg.py:B16,i1k,300,medium2,0.1 \
        --workdir=runs/b16-medium2 --config.data.data_dir=DIR

ARG is MODEL,DATA,EPOCHS,LEVEL,RATE: Ti16, S32, S16, B32, B16 or L16; `i1k` or `i21k`; the paper has
300 epochs, and 30 for i21k as well; a level of augmentation of `configs.common.AUGREG`; 0 or 0.1
for dropout and stochastic depth both. The decay is 0.1 (times the learning rate); the paper also
has 0.03. DIR is as for `pretrain_i1k.py` and `pretrain_i21k.py`.

What the text leaves open is as in big_vision's configs/vit_i1k.py and vit_i21k.py: losses, the
head's bias, the held-out images, the layer before the head on i1k (the paper has models with it and
without), a bfloat16 first moment. Its i21k averages the patches; the paper's models have the class
token.

Expected of `validation`: Figure 4 of the paper, e.g. 83 % for the command above, within a point;
see experiments/augreg/grid.py. For 8 to 64 GPUs; not run here, for want of them and of the data.
"""

from ml_collections import ConfigDict

from configs.common import augreg

WIDTHS = {"Ti": 192, "S": 384, "B": 768, "L": 1024}
DATA = {  # source, training and held-out part, `config.task`
    "i1k": ("imagenet2012", "train[:99%]", "train[99%:]", dict(loss="softmax")),
    "i21k": ("imagenet21k", "full[51200:]", "full[25600:51200]", dict(loss="sigmoid")),
}
SETTINGS = ("B16,i1k,300,medium2,0.1",)  # one of them


def get_config(arg: str = "") -> ConfigDict:
    given = (arg or SETTINGS[0]).split(",")
    if len(given) != 5 or given[1] not in DATA or given[0][:-2] not in WIDTHS:
        raise ValueError(f"there is no setting {arg!r}; allowed: MODEL,DATA,EPOCHS,LEVEL,RATE")
    name, data, epochs, level, rate = given
    source, train, held_out, task = DATA[data]
    augment, mixing = augreg(level)
    config = ConfigDict()
    model = dict(name="vit", size=name[:-2], patch_size=int(name[-2:]), dtype="bfloat16")
    model |= dict(dropout_rate=float(rate), drop_path_rate=float(rate))
    if data == "i1k":
        model["representation_dim"] = WIDTHS[name[:-2]]
    else:
        model["head_bias"] = -10.0
    config.task = dict(name="classification", model=model, mixing=mixing, **task)
    config.data = dict(
        source=f"tfds:{source}",
        train=train,
        image_size=224,
        batch_size=4096,
        resize="crop",
        crop_fraction=224 / 256,
        dialect="big_vision",
        augment=augment,
    )
    config.optimizer = dict(name="adamw", learning_rate=1e-3, schedule="cosine", weight_decay=0.1)
    config.optimizer.update(warmup_steps=10_000, clip_norm=1.0, moment_dtype="bfloat16")
    config.train = dict(num_epochs=int(epochs), seed=0, log_every=50, checkpoint_every=1000)
    config.evals = dict(validation=dict(split=held_out, every_steps=2500))
    config.mesh = dict(data=-1)
    return config.lock()
