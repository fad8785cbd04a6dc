"""JFT-300M, as in Table 3 of the ViT paper (arXiv:2010.11929): ViTs, ResNets and hybrids.

    python -m vit_jax plan --config=configs/pretrain_jft.py:L16,14 --device=h100 --devices=64 \
        --num_examples=303000000 --num_classes=18291

ARG is MODEL[,EPOCHS]; two models have two rows, of 7 and of 14 epochs. The data is private and so
are the weights, so `plan` alone can use this: it says what each cell of Table 6 costs.

The loss, the head's bias, the layer before the head and the rate's end are those of
`pretrain_i21k.py`, from the same authors' issues; of ResNets nothing is told, and they have no such
layer. They are BiT's, with group norm. Hybrids have one before patches of one pixel: /32 the four
stages of a ResNet-50, /16 three of them, the third with the fourth's units as well.
Expected is the compute of Table 6, e.g. 1567 exaFLOPs for L16,14; see experiments/vit/table6.py.
L/16 took the authors 680 and H/14 2,500 TPUv3-core-days (Table 2).
"""

from ml_collections import ConfigDict

# Table 3: numbers of epochs, learning rate. The decay is 0.1 and there is no dropout.
ROWS = {
    "B16": ((7,), 8e-4),
    "B32": ((7,), 8e-4),
    "L32": ((7,), 6e-4),
    "L16": ((7, 14), 4e-4),
    "H14": ((14,), 3e-4),
    "R50x1": ((7,), 1e-3),
    "R50x2": ((7,), 1e-3),
    "R101x1": ((7,), 8e-4),
    "R152x1": ((7,), 6e-4),
    "R152x2": ((7,), 6e-4),
    "R50+B16": ((7,), 8e-4),
    "R50+B32": ((7,), 8e-4),
    "R50+L32": ((7,), 2e-4),
    "R50+L16": ((7, 14), 4e-4),
}
WIDTHS = {"B": 768, "L": 1024, "H": 1280}
STEMS = {"16": "resnet50_stride16", "32": "resnet50"}
SETTINGS = ("R50x1",)  # one of them; the ViTs are those of pretrain_i21k.py


def get_model(name: str) -> dict:
    if "x" in name:
        depth, width_factor = name[1:].split("x")
        return dict(name="resnet", depth=int(depth), width_factor=int(width_factor))
    stem, _, transformer = name.rpartition("+")
    size, patch = transformer[0], transformer[1:]
    model = dict(name="vit", size=size, representation_dim=WIDTHS[size], dropout_rate=0.0)
    return model | (dict(stem=STEMS[patch], patch_size=1) if stem else dict(patch_size=int(patch)))


def get_config(arg: str = "") -> ConfigDict:
    name, _, epochs = (arg or "B16").partition(",")
    known, learning_rate = ROWS.get(name, ((), None))
    if (epochs and epochs not in map(str, known)) or not known:
        allowed = ", ".join(f"{m},{epochs}" for m, (some, _) in ROWS.items() for epochs in some)
        raise ValueError(f"there is no setting {arg!r}; allowed: {allowed}")
    config = ConfigDict()
    model = dict(**get_model(name), head_bias=-10.0, dtype="bfloat16")
    config.task = dict(name="classification", model=model, loss="sigmoid")
    config.data = dict(
        source="tfds:jft_300m",
        train="full[51200:]",
        image_size=224,
        batch_size=4096,
        resize="crop",
        crop_fraction=224 / 256,
        dialect="big_vision",
        augment=dict(crop="inception", min_area=0.05, flip_probability=0.5),
    )
    config.optimizer = dict(name="adamw", learning_rate=learning_rate, schedule="linear")
    config.optimizer.update(warmup_steps=10_000, end_learning_rate=1e-5, weight_decay=0.1)
    num_epochs = int(epochs or known[0])
    config.train = dict(num_epochs=num_epochs, seed=0, log_every=50, checkpoint_every=1000)
    config.evals = dict(val=dict(split="full[25600:51200]", every_steps=5000))
    config.mesh = dict(data=-1)
    return config.lock()
